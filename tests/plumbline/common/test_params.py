"""params.yaml is read strictly, and what is wrong in it is named."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from plumbline.common.errors import UserError
from plumbline.common.params import Section, load_section, load_sections


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
