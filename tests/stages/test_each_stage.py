"""Each stage's `main`, one after the other in one small project: what it reads, what it writes, what it refuses."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from fabricated import CLASSES, draw_people
from PIL import Image

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import write_record
from plumbline.evidence.candidates import read_candidates
from plumbline.evidence.probes import COVERED, ELSEWHERE, read_not_probed, read_probes
from plumbline.evidence.records import Disturbing
from stages import (
    ablation,
    card,
    card_compressed,
    compress,
    disturb,
    drift,
    featurize,
    group,
    ingest,
    probe,
    probe_compressed,
    split,
    train,
    weights,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("data")]

PARAMS = {
    "data": {"root": "data"},
    "ingest": {},
    "group": {"columns": ["photo"], "embedding": None},
    "split": {"fractions": {"train": 0.6, "validation": 0.2, "test": 0.2}},
    "backbones": {
        "pixels": {"image_size": 32},
        "hybrid": {
            "networks": ["mobilenet", "mobilenet_v2"],
            "image_size": 32,
            "weights": "random",
            "pooling": "average",
        },
    },
    "candidates": {
        "lenet5": {"architecture": "lenet5", "backbone": "pixels", "epochs": 2, "batch_size": 16},
        "hybrid": {"architecture": "transfer", "backbone": "hybrid", "head": {}, "epochs": 1},
    },
    "compressed": {
        "small": {"of": "lenet5", "backbone": "pixels", "how": "int8", "calibration": 16},
        "whole": {"of": "hybrid", "backbone": "hybrid", "how": "float16"},
    },
    "ablations": {"hybrid": {"backbone": "hybrid", "seeds": 1}},
    "train": {"folds": 3},
    "probe": {"pictures": 10, "attention_pictures": 4},
    "promote": {},
    "drift": {},
    "sites": {"GATE": {"timezone": "UTC"}},
}
PICTURES = 60


def run(stage, *arguments):
    """The stage as `python -m stages.X ARGUMENTS` runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [stage.__name__, *arguments])
        stage.main()


def read(name):
    return json.loads(Path(name).read_text())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Sixty pictures, two of each photograph, and the project around them; the current folder."""
    root = tmp_path_factory.mktemp("stages")
    labels = np.arange(PICTURES) // 2 % 2
    lines = ["path,photo"]
    for number, pixels in enumerate(draw_people(labels, seed=5)):
        path = root / "data" / CLASSES[labels[number]] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        lines.append(f"{path.parent.name}/{path.name},photo {number // 2}")
    (root / "data" / "metadata.csv").write_text("\n".join(lines) + "\n")
    (root / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("PLUMBLINE_OFFLINE", "1")
        patch.setenv("KERAS_HOME", str(root / "no-keras-cache"))
        for name in ("PLUMBLINE_WEIGHTS", "PLUMBLINE_STORE", "DASK_SCHEDULER_ADDRESS", "MLFLOW_TRACKING_URI"):
            patch.delenv(name, raising=False)
        yield root


@pytest.fixture(scope="module")
def splits(data):
    for stage in (ingest, group, split):
        run(stage)
    return pd.read_parquet("build/splits.parquet")


@pytest.fixture(scope="module")
def features(splits):
    run(weights)
    run(featurize, "pixels")
    return np.load("build/features/pixels/features.npy")


@pytest.fixture(scope="module")
def candidate(features):
    run(train, "lenet5")
    return read("build/candidates/lenet5/model.json")


@pytest.fixture(scope="module")
def disturbed(candidate):
    write_record(artefacts.RACE / artefacts.DISTURB / "pixels.json", Disturbing(not_measured=None))
    run(disturb, "pixels")
    return pd.read_parquet("build/disturbed/pixels/index.parquet")


def test_group_ties_what_the_columns_tie(splits):
    groups = pd.read_parquet("build/groups.parquet").set_index("path")["group"]
    photo = pd.read_parquet("build/manifest.parquet").set_index("path")["photo"]
    assert len(groups) == PICTURES
    assert (groups.groupby(photo).nunique() == 1).all()
    assert read("build/group.json")["groups"] == groups.nunique()


def test_group_stops_on_opposite_labels_where_it_is_asked_to(splits, data):
    before = {path: path.read_bytes() for path in (data / "build").glob("*.parquet")}
    manifest = before[data / "build/manifest.parquet"]
    table = pd.read_parquet("build/manifest.parquet")
    twin = table.iloc[[0]].assign(path="without_helmet/twin.png", label="without_helmet", photo=None)
    (data / "data/without_helmet/twin.png").write_bytes((data / "data" / table["path"][0]).read_bytes())
    strict = {**PARAMS, "group": {**PARAMS["group"], "label_conflicts": "fail"}}
    (data / "params.yaml").write_text(yaml.safe_dump(strict))
    try:
        run(ingest)
        assert twin["path"].item() in set(pd.read_parquet("build/manifest.parquet")["path"])
        with pytest.raises(UserError, match=r"images are copies of one another with different labels"):
            run(group)
        assert (data / "build/groups.parquet").read_bytes() == before[data / "build/groups.parquet"]
    finally:
        (data / "data/without_helmet/twin.png").unlink()
        (data / "params.yaml").write_text(yaml.safe_dump(PARAMS))
        run(ingest)
        run(group)
    assert (data / "build/manifest.parquet").read_bytes() == manifest


def test_split_parts_no_group_and_remembers(splits, data):
    assert (splits.groupby("group")["split"].nunique() == 1).all()
    assert splits["split"].value_counts().to_dict() == {"train": 36, "validation": 12, "test": 12}
    memory = (data / "memberships/seed-0.csv").read_text()
    run(split)
    assert (data / "memberships/seed-0.csv").read_text() == memory
    pd.testing.assert_frame_equal(pd.read_parquet("build/splits.parquet"), splits)


def test_another_seed_says_what_it_does_not_keep(splits, data, capsys):
    (data / "params.yaml").write_text(yaml.safe_dump({**PARAMS, "split": {**PARAMS["split"], "seed": 7}}))
    try:
        run(split)
        assert "first draw with seed 7: it owes nothing to seed-0.csv" in capsys.readouterr().err
        other = pd.read_parquet("build/splits.parquet")
    finally:
        (data / "params.yaml").write_text(yaml.safe_dump(PARAMS))
        run(split)
    assert not other["split"].equals(splits["split"])


def test_featurize_keeps_the_pixels_of_every_picture(splits, features):
    index = pd.read_parquet("build/features/pixels/index.parquet")
    assert features.shape == (PICTURES, 1, 32, 32, 3)
    place = index.index[index["path"] == "with_helmet/00.png"][0]
    shown = np.asarray(Image.open("data/with_helmet/00.png"))
    assert abs(features[place, 0].mean() - shown.mean()) < 2


def test_featurize_refuses_weights_that_are_out_of_date(features, data):
    path = data / "build/weights/pixels.json"
    kept = path.read_text()
    path.write_text(kept.replace('"pixels"', '"other"', 1))
    try:
        with pytest.raises(UserError, match=r"pixels\.json is out of date: run `dvc repro`"):
            run(featurize, "pixels")
    finally:
        path.write_text(kept)


def test_train_leaves_a_model_with_its_predictions_and_cost(candidate, splits):
    assert (candidate["candidate"], candidate["classes"], candidate["epochs_run"]) == ("lenet5", CLASSES, 2)
    table = pd.read_parquet("build/candidates/lenet5/predictions.parquet")
    assert set(table["path"]) == set(splits["path"])
    np.testing.assert_allclose(table[[f"p_{name}" for name in CLASSES]].sum(axis=1), 1, atol=1e-5)
    assert pd.read_csv("build/candidates/lenet5/history.csv")["epoch"].tolist() == [1, 2]
    cost = read("build/candidates/lenet5/cost.json")
    assert cost["latency_ms"] > 0
    assert cost["peak_megabytes"] > 100


def test_train_of_no_candidate_is_a_sentence(features):
    with pytest.raises(UserError, match=r"params\.yaml has no section 'candidates\.nobody'"):
        run(train, "nobody")


def test_card_is_one_page_of_the_candidate(candidate):
    told = artefacts.RACE / artefacts.DISTURB / "pixels.json"
    write_record(told, Disturbing(not_measured="nobody asks"))
    run(card, "lenet5")
    assert "not measured, for nobody asks" in Path("reports/candidates/lenet5.html").read_text()
    write_record(told, Disturbing(not_measured=None))
    run(card, "lenet5")
    page = Path("reports/candidates/lenet5.html").read_text()
    assert "lenet5" in page
    assert "not measured" not in page
    assert "12 test pictures" in page or "of 12" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_disturb_keeps_a_row_for_each_condition(disturbed):
    names = read("build/disturbed/pixels/conditions.json")
    values = np.load("build/disturbed/pixels/features.npy")
    assert values.shape == (len(disturbed), len(names), 32, 32, 3)
    assert len(disturbed) == 10
    assert not np.array_equal(values[:, names.index(COVERED)], values[:, names.index(ELSEWHERE)])
    assert set(disturbed["path"]) <= set(pd.read_parquet("build/splits.parquet").query("split == 'test'")["path"])


def test_what_the_race_left_out_is_neither_disturbed_nor_probed_and_says_why(candidate, data, tmp_path, monkeypatch):
    """A worthless backbone that nobody in question stands on: two small files, and no network is built."""
    shutil.copytree(data, tmp_path / "work")
    monkeypatch.chdir(tmp_path / "work")
    kept = artefacts.RACE / artefacts.DISTURB / "pixels.json"
    write_record(kept, Disturbing(not_measured="nobody asks"))
    run(disturb, "pixels")
    run(probe, "lenet5")
    assert [path.name for path in Path("build/disturbed/pixels").iterdir()] == ["not_measured.json"]
    assert [path.name for path in Path("build/probes/lenet5").iterdir()] == ["not_measured.json"]
    found, _ = read_candidates(Path("build/candidates"), ["lenet5"])
    assert read_not_probed(Path("build"), found) == {"lenet5": "nobody asks"}
    assert read_probes(Path("build"), found) == {}
    kept.unlink()
    with pytest.raises(UserError, match=r"pixels\.json is missing: run `dvc repro race`"):
        run(disturb, "pixels")


def test_probe_answers_every_condition(disturbed):
    run(probe, "lenet5")
    answers = pd.read_parquet("build/probes/lenet5/answers.parquet")
    names = read("build/disturbed/pixels/conditions.json")
    assert answers.groupby("path")["condition"].nunique().tolist() == [answers["condition"].nunique()] * 10
    assert set(names) <= set(answers["condition"])
    np.testing.assert_allclose(answers[[f"p_{name}" for name in CLASSES]].sum(axis=1), 1, atol=1e-5)
    looks = pd.read_parquet("build/probes/lenet5/attention.parquet")
    assert len(looks) == 4
    assert looks["mass"].between(0, 1).all()


def test_a_compressed_candidate_leaves_what_a_trained_one_does(candidate, disturbed):
    run(compress, "small")
    model, cost = read("build/candidates/small/model.json"), read("build/candidates/small/cost.json")
    assert (model["candidate"], model["parameters"]) == ("small", candidate["parameters"])
    assert model["compressed"]["bytes"] == Path("build/candidates/small/served.onnx").stat().st_size
    assert cost["latency_ms"] == cost["speed"]["one_ms"] > 0
    found, absent = read_candidates(Path("build/candidates"), ["lenet5", "small"])
    assert absent == []
    assert list(found["small"].table.columns) == list(found["lenet5"].table.columns)
    run(probe_compressed, "small")
    run(probe, "lenet5")
    probed = read_probes(Path("build"), found)
    assert probed["small"].paths == probed["lenet5"].paths
    assert list(probed["small"].answers) == list(probed["lenet5"].answers)
    for condition, answers in probed["small"].answers.items():
        assert np.abs(answers - probed["lenet5"].answers[condition]).mean() < 0.1, condition
    assert len(probed["small"].attention) == 0
    run(card_compressed, "small")
    page = Path("reports/candidates/small.html").read_text()
    assert "lenet5</a> made smaller: int8" in page
    assert "Its temperature was fitted anew" in page


def test_a_network_is_compressed_with_its_frozen_backbone(splits, data):
    """And with what was trained of it."""
    run(weights)
    run(featurize, "hybrid")
    run(train, "hybrid")
    run(compress, "whole")
    model = read("build/candidates/whole/model.json")
    assert model["compressed"]["bytes"] > 1.9 * model["parameters"], "the backbones' weights are in the file"
    assert model["compressed"]["bytes"] < 0.6 * model["compressed"]["original_bytes"]
    both, _ = read_candidates(Path("build/candidates"), ["hybrid", "whole"])
    columns = [f"p_{name}" for name in CLASSES]
    apart = np.abs(both["whole"].table[columns] - both["hybrid"].table[columns]).to_numpy()
    assert (apart.mean() < 0.03, apart.max() < 0.15) == (True, True), "of networks at random weights, fifty layers deep"


def test_ablation_tries_every_subset(splits, data):
    run(weights)
    run(featurize, "hybrid")
    run(ablation, "hybrid")
    found = read("build/ablations/hybrid.json")
    assert {tuple(row["networks"]) for row in found["rows"]} == {
        ("mobilenet",),
        ("mobilenet_v2",),
        ("mobilenet", "mobilenet_v2"),
    }
    assert found["test_images"] == 12
    assert (data / "reports/ablations/hybrid.html").is_file()


def test_ablation_of_a_single_network_is_refused(features, data):
    single = {**PARAMS, "ablations": {"lenet5": {"backbone": "pixels"}}}
    (data / "params.yaml").write_text(yaml.safe_dump(single))
    try:
        with pytest.raises(UserError, match=r"ablations\.lenet5 takes pixels apart, which is not the several frozen"):
            run(ablation, "lenet5")
    finally:
        (data / "params.yaml").write_text(yaml.safe_dump(PARAMS))


def test_drift_without_a_champion_says_so_and_ends_well(data, capsys):
    run(drift)
    found = read("build/drift.json")
    assert found["verdict"] is None
    assert "has no champion" in found["reason"]
    assert found["sites"] == {}
    assert "Nothing was judged yet" in Path("reports/drift/index.html").read_text()
