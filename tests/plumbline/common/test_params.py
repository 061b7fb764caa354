"""params.yaml is read strictly, and what is wrong in it is named."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from plumbline.common.errors import UserError
from plumbline.common.params import Section, load_section, load_sections, name_given, with_value


class Split(Section):
    test: float
    seed: int = 0


@pytest.fixture
def params(tmp_path):
    def write(text):
        path = tmp_path / "params.yaml"
        path.write_text(text)
        return path

    return write


def test_a_section_is_typed_and_frozen(params):
    section = load_section("split", Split, params("split: {test: 0.15}"))
    assert section == Split(test=0.15, seed=0)
    with pytest.raises(ValidationError, match="frozen"):
        section.seed = 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("split: {test: 0.15, tset: 1}", r"split\.tset: Extra inputs are not permitted \(got 1\)"),
        ("split: {test: much}", r"split\.test: Input should be a valid number.*\(got 'much'\)"),
        ("split:", r"split\.test: Field required"),
        ("group: {}", "has no section 'split'"),
        ("split: {test: [", "is not valid YAML"),
        ("- a", "holds no sections"),
    ],
)
def test_what_is_wrong_is_one_sentence_that_names_it(params, text, message):
    with pytest.raises(UserError, match=message) as error:
        load_section("split", Split, params(text))
    assert "params.yaml" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(UserError, match=r"params\.yaml is missing: run from the project's top folder"):
        load_section("split", Split, tmp_path / "params.yaml")


def test_named_entries_are_read_one_by_one(params):
    path = params("splits: {a: {test: 0.1}, b: {test: 0.2}}")
    assert load_sections("splits", Split, path) == {"a": Split(test=0.1), "b": Split(test=0.2)}
    assert load_section("splits.b", Split, path) == Split(test=0.2)
    with pytest.raises(UserError, match="no entries under 'nothing'"):
        load_sections("nothing", Split, path)


def test_a_user_error_ends_a_command_with_its_sentence_alone():
    code = (
        "from plumbline.common.errors import UserError, run\n"
        "def main(): raise UserError('a.jpg is empty: remove it.')\nrun(main)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: a.jpg is empty: remove it.\n")


TEXT = """# top
data: # what
  root: data # here
  arrays:
    classes: {"0": a}
evaluate:
  violation_class: without_helmet # the class
  # a comment
  seed: 0
last:
  seed: 3
"""


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("evaluate.violation_class", None, "  violation_class: null # the class\n"),
        ("evaluate.violation_class", "no: helmet", "  violation_class: 'no: helmet' # the class\n"),
        ("data.arrays.classes", {"0": "x"}, "    classes: {'0': x}\n"),
        ("data.published_split", "keep", "  published_split: keep\n"),
        ("last.seed", 5, "  seed: 5\n"),
    ],
)
def test_one_value_is_written_and_every_other_line_stays(key, value, line):
    written = with_value(TEXT, key, value)
    assert line in written
    before, after = TEXT.splitlines(True), written.splitlines(True)
    assert len([one for one in before if one not in after]) <= 1
    assert set(after) - set(before) == {line}


@pytest.mark.parametrize(
    "text", ["evaluate: {violation_class: a}\n", "other: 1\n", "evaluate:\n  violation_class:\n    - a\n"]
)
def test_what_cannot_be_written_safely_is_left_to_a_person(text):
    with pytest.raises(UserError, match="by hand"):
        with_value(text, "evaluate.violation_class", "b")


def test_experiments_can_read_the_shipped_file():
    """`dvc exp run -S` reads params.yaml with OmegaConf, to which `???` is a value that is missing."""
    from omegaconf import OmegaConf

    OmegaConf.to_container(OmegaConf.load(Path(__file__).parents[3] / "params.yaml"), throw_on_missing=True)


def test_a_file_that_is_not_utf8_is_one_sentence(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_bytes("split: {test: 0.1} # Prüfung".encode("latin-1"))
    with pytest.raises(UserError, match=r"params\.yaml is not UTF-8 \(byte 24\): save it as UTF-8\."):
        load_section("split", Split, path)


@pytest.mark.parametrize("stage", ["train", "card", "featurize", "disturb", "probe", "ablation"])
@pytest.mark.parametrize("arguments", [(), ("a", "b")])
def test_a_stage_that_takes_a_name_says_which_there_are(params, monkeypatch, stage, arguments):
    path = params("candidates: {one: {}, two: {}}\nbackbones: {one: {}, two: {}}\nablations: {one: {}, two: {}}")
    monkeypatch.chdir(path.parent)
    monkeypatch.setattr(sys, "argv", [stage, *arguments])
    with pytest.raises(
        UserError,
        match=r"say which of params\.yaml's (\w+|candidates or students) this is for, one by name: one, two\.",
    ):
        importlib.import_module(f"stages.{stage}").main()


def test_a_name_is_taken_and_without_any_entry_it_is_said(params, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "one"])
    assert name_given("candidates", path=params("candidates:")) == "one"
    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(UserError, match="there is none yet"):
        name_given("candidates", path=params("candidates:"))
