"""JSON between stages: what was written is read, what is old still opens, anything else is one sentence."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError
from recorded import backbone_json, certificate_json, model_json

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import (
    Record,
    read_array,
    read_plain,
    read_record,
    read_records,
    read_table,
    write_record,
)
from plumbline.evidence.records import CalibrationNull, Decision, LeaderboardRow, Rule
from plumbline.leakage.records import Certificate
from plumbline.models.records import BackboneRecord, ModelRecord

ROW = {
    "candidate": "x",
    "parameters": 5,
    "trainable_parameters": 5,
    "weights": "random",
    "metrics": {"test": {"accuracy": 0.5}},
    "intervals": {"test": {"accuracy": [0.0, 1.0]}},
}


@pytest.mark.parametrize(
    ("kind", "content"),
    [(ModelRecord, model_json()), (BackboneRecord, backbone_json()), (Certificate, certificate_json())],
)
def test_what_is_written_is_what_was_read_key_by_key(kind, content, tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(content))
    write_record(path, read_record(path, kind))
    assert json.dumps(json.loads(path.read_text())) == json.dumps(content), "the order of the keys, too"


def test_numbers_stay_what_they_are(tmp_path):
    rules = (Rule("a", 0, 40, True, "x"), Rule("b", 0.0, None, True, "x"), Rule("c", "imagenet", 1e8, False, "x", 3))
    write_record(tmp_path / "decision.json", Decision(verdict="HOLD", candidate="x", rules=rules))
    found = read_record(tmp_path / "decision.json", Decision)
    assert [(rule.value, type(rule.value)) for rule in found.rules] == [(0, int), (0.0, float), ("imagenet", str)]
    assert '"value": 0,' in (tmp_path / "decision.json").read_text()
    null = CalibrationNull(mean=0.1, in_95=0.2, in_99=0.3)
    assert null.content() == {"mean": 0.1, "95%": 0.2, "99%": 0.3}


def test_records_are_frozen():
    with pytest.raises(ValidationError):
        ModelRecord(**model_json()).seed = 3


def test_files_of_earlier_versions_still_open(tmp_path):
    """Before several labels, before freezing, before rules that are not judged, before HOLD said how many groups."""
    (tmp_path / "model.json").write_text(json.dumps(model_json()))
    assert not read_record(tmp_path / "model.json", ModelRecord).several_labels
    (tmp_path / "backbone.json").write_text(json.dumps(backbone_json()))
    assert read_record(tmp_path / "backbone.json", BackboneRecord).freeze == "head"
    rule = {"name": "a", "value": 1, "bound": 2, "passed": True, "reason": "x"}
    (tmp_path / "decision.json").write_text(json.dumps({"verdict": "PROMOTE", "candidate": "x", "rules": [rule]}))
    assert read_record(tmp_path / "decision.json", Decision).rules[0].judged


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "is missing: run `dvc repro evaluate`."),
        ("", "is damaged (Invalid JSON"),
        ("[{", "is damaged (Invalid JSON"),
        ("\xff", "is damaged (Invalid JSON"),
        ("{}", "was not written by this version of Plumbline (its content: Input should be a valid array)"),
        ("[3]", "was not written by this version of Plumbline (0: Input should be an object)"),
        (json.dumps([{**ROW, "parameters": None}]), "(0.parameters: Input should be a valid integer)"),
        (json.dumps([{**ROW, "speed": 3}]), "(0.speed: Extra inputs are not permitted)"),
        (json.dumps([{"candidate": "x"}]), "(0.parameters: Field required)"),
    ],
)
def test_anything_else_is_one_sentence_with_the_file_and_the_way_out(text, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = artefacts.LEADERBOARD.path
    path.parent.mkdir()
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError) as caught:
        read_records(artefacts.LEADERBOARD, LeaderboardRow)
    said = str(caught.value)
    assert said.startswith("build/leaderboard.json ")
    assert words in said
    assert "\n" not in said
    assert said.endswith("run `dvc repro evaluate`." if text is None else "run `dvc repro -f evaluate`.")


def test_a_folder_in_its_place_is_said(tmp_path):
    with pytest.raises(UserError, match=r"can't be read \(Is a directory\): run `dvc repro"):
        read_record(tmp_path, Record)


@pytest.mark.parametrize("read", [read_table, read_array, lambda path: read_plain(path, dict[str, str])])
def test_a_table_an_array_or_plain_json_that_is_missing_or_damaged_is_one_sentence(read, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^build/splits\.parquet is missing: run `dvc repro split`\.$"):
        read(artefacts.SPLITS)
    (tmp_path / "build").mkdir()
    for content in (b"", b"no such thing", b"PAR1" * 20, b"\x93NUMPY", b"{"):
        artefacts.SPLITS.path.write_bytes(content)
        with pytest.raises(UserError, match=r"^build/splits\.parquet .*: run `dvc repro -f split`\.$"):
            read(artefacts.SPLITS)


def test_a_column_that_a_table_lacks_is_one_sentence(tmp_path):
    pd.DataFrame({"path": ["a"]}).to_parquet(tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet", ["path"])["path"].tolist() == ["a"]
    with pytest.raises(UserError, match=r"x\.parquet can't be read .*: run `dvc repro -f split`"):
        read_table(tmp_path / "x.parquet", ["path", "group"], "split")


def test_no_artefact_is_read_past_these_functions():
    top = Path(__file__).parents[3]
    code = [path for folder in ("plumbline", "stages") for path in (top / folder).rglob("*.py")]
    past = re.compile(r"read_parquet\(artefacts|np\.load\(artefacts|json\.loads\(\(?artefacts")
    assert not [str(path) for path in code if past.search(path.read_text(encoding="utf-8"))]
