"""README's words for one's own photographs, followed up to `validate`, with sets of other kinds."""

import importlib
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from plumbline.cli import app
from plumbline.commands.init import fit, next_step, with_changes
from plumbline.common.errors import UserError

TOP = Path(__file__).parents[3]


def draw(path, seed):
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC).save(path)


def lay_folders(root, *classes):
    for place, name in enumerate(classes):
        for number in range(12):
            draw(root / name / f"{number}.png", 100 * place + number)


def lay_several(root):
    labels = ["helmet", "vest", "helmet; vest", "bare"]
    rows = ["path,label"]
    for number in range(48):
        draw(root / "photos" / f"{number}.png", number)
        rows.append(f"photos/{number}.png,{labels[number % 4]}")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")


def lay_split(root):
    for side in ("Training", "Testing"):
        lay_folders(root / side, "cat", "dog")


def lay_arrays(root):
    root.mkdir(parents=True, exist_ok=True)
    np.save(root / "images.npy", np.random.default_rng(0).integers(0, 256, (36, 40, 40, 3), dtype=np.uint8))
    (root / "labels.csv").write_text("".join(f"{number % 3:.18e}\n" for number in range(36)))


def readmes_words():
    """The commands of README's section, one list of words each, without comments."""
    section = (TOP / "README.md").read_text().partition("## Your own photographs")[2].partition("\n## ")[0]
    block = re.search(r"(?:^    .*\n)+", section, re.MULTILINE).group(0)
    return [shlex.split(line, comments=True) for line in block.splitlines()]


@pytest.fixture
def project(tmp_path, monkeypatch):
    root = tmp_path / "project"
    root.mkdir()
    shutil.copy(TOP / "params.yaml", root)
    lay_folders(root / "data", "with_helmet", "without_helmet")
    (root / "incoming" / "SITE_A").mkdir(parents=True)
    monkeypatch.chdir(root)
    return root


def follow(words, photographs, violation):
    """One line of README with the reader's own folder and class."""
    line = shlex.join(words).replace("/path/to/photographs", str(photographs)).replace("without_mask", violation)
    line = line.replace("'&&'", "&&")
    if words[0] == "plumbline":
        result = CliRunner().invoke(app, shlex.split(line)[1:])
        assert result.exit_code == 0, result.output
        return result.output
    assert words[0] == "rm", words
    subprocess.run(["sh", "-c", line], check=True)
    return ""


def run_stage(name):
    importlib.import_module(f"stages.{name}").main()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lay", "violation", "said"),
    [
        (lambda root: lay_folders(root, "with_mask", "without_mask"), "without_mask", "Without_mask may be"),
        (lambda root: lay_folders(root, "cat", "dog", "horse"), "none", "12 cat, 12 dog, 12 horse"),
        (lay_several, "bare", "some with several labels"),
        (lay_arrays, "none", "12 class_0, 12 class_1, 12 class_2"),
    ],
    ids=["masks", "three classes", "several labels", "arrays"],
)
def test_readmes_words_lead_to_a_set_that_is_valid(project, tmp_path, lay, violation, said):
    lay(tmp_path / "own")
    output = "".join(
        follow(words, tmp_path / "own", violation) for words in readmes_words() if words[0] in ("rm", "plumbline")
    )
    assert said in output
    wanted = None if violation == "none" else violation
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert params["evaluate"]["violation_class"] == wanted
    shipped = yaml.safe_load((TOP / "params.yaml").read_text())
    assert {**params, "evaluate": 0, "data": 0} == {**shipped, "evaluate": 0, "data": 0}
    run_stage("ingest")
    run_stage("validate")


@pytest.mark.slow
def test_without_init_validate_says_in_one_message_what_to_set(project, tmp_path):
    shutil.rmtree(project / "data")
    lay_folders(project / "data", "with_mask", "without_mask")
    text = (project / "params.yaml").read_text().replace("columns: [photo, video", "columns: [photo, vidoe")
    (project / "params.yaml").write_text(text)
    run_stage("ingest")
    with pytest.raises(UserError) as error:
        run_stage("validate")
    assert "evaluate.violation_class is without_helmet" in str(error.value)
    assert "set without_mask if that is the class that must not be missed" in str(error.value)
    assert "group.columns names vidoe" in str(error.value)
    assert "The run stops here" in (project / "reports/validation/index.html").read_text()


def test_a_published_split_is_settled_by_what_is_asked(project):
    shutil.rmtree(project / "data")
    lay_split(project / "data")
    refused = CliRunner().invoke(app, ["init", "data"])
    assert refused.exit_code != 0
    assert "--published-split merge" in str(refused.output) + str(refused.exception)
    merged = CliRunner().invoke(app, ["init", "data", "--published-split", "keep", "--violation", "none"])
    assert merged.exit_code == 0, merged.output
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert params["data"]["published_split"] == "keep"
    assert "24 cat, 24 dog" in merged.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--violation", "bird"], "the classes are with_helmet, without_helmet"),
        (["nowhere"], "nowhere/ is missing"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence_and_changes_nothing(project, arguments, said):
    before = (project / "params.yaml").read_text()
    result = CliRunner().invoke(app, ["init", *arguments])
    assert result.exit_code == 1
    assert said in result.output
    assert (project / "params.yaml").read_text() == before


def test_what_has_to_be_another_is_said_and_nothing_is_written(tmp_path):
    lay_folders(tmp_path / "own", "with_mask", "without_mask")
    shipped = yaml.safe_load((TOP / "params.yaml").read_text())
    found = fit(shipped, tmp_path / "own")
    assert found.changes == {"evaluate.violation_class": None}
    assert found.said[0] == f"{tmp_path / 'own'}/: 24 pictures (12 with_mask, 12 without_mask)."
    assert fit(shipped, tmp_path / "own", "without_mask").changes == {"evaluate.violation_class": "without_mask"}
    with pytest.raises(UserError, match="--violation bare: the classes are with_mask, without_mask, or none"):
        fit(shipped, tmp_path / "own", "bare")


@pytest.mark.parametrize(
    ("classes", "wanted", "written"),
    [
        (("mit", "ohne_h\u00e4lm"), "ohne_ha\u0308lm", "ohne_h\u00e4lm"),
        (("some", "none"), "none", "none"),
        (("some", "other"), "none", None),
    ],
)
def test_the_violation_is_the_class_of_that_name(tmp_path, classes, wanted, written):
    lay_folders(tmp_path / "own", *classes)
    shipped = yaml.safe_load((TOP / "params.yaml").read_text())
    assert fit(shipped, tmp_path / "own", wanted).changes == {"evaluate.violation_class": written}


def test_one_class_alone_is_refused(tmp_path):
    lay_folders(tmp_path / "own", "with_mask")
    with pytest.raises(UserError, match="has only the class with_mask, and telling apart takes two"):
        fit({}, tmp_path / "own")


def test_whole_photographs_of_one_class_are_enough(tmp_path):
    for number in range(3):
        draw(tmp_path / f"{number}.png", number)
        (tmp_path / f"{number}.txt").write_text("0 0.5 0.5 0.2 0.2\n" * (number > 0))
    (tmp_path / "obj.names").write_text("helmet\n")
    found = fit({"data": {"task": "detect"}, "evaluate": {"violation_class": "head"}}, tmp_path)
    assert found.said[0] == f"{tmp_path}/: 3 photographs, 2 boxes (2 helmet)."
    assert found.changes == {"evaluate.violation_class": None}


def test_a_folder_around_the_class_folders_is_said(tmp_path):
    lay_folders(tmp_path / "own" / "photos", "cat", "dog")
    with pytest.raises(UserError, match=r"holds one folder, photos/, .*\(cat, dog\).* move what photos/ holds up into"):
        fit({}, tmp_path / "own")


def test_changes_reach_nested_keys_and_leave_the_settings_as_they_were():
    settings = {"data": {"arrays": {"channels": "bgr"}}}
    changed = with_changes(settings, {"data.arrays.classes": {"0": "a"}, "evaluate.violation_class": None})
    assert changed == {
        "data": {"arrays": {"channels": "bgr", "classes": {"0": "a"}}},
        "evaluate": {"violation_class": None},
    }
    assert settings == {"data": {"arrays": {"channels": "bgr"}}}


@pytest.mark.parametrize(("pictures", "home"), [("my pictures; here", "data"), ("data/in it", "data"), ("$(x)", "d'a")])
def test_what_to_run_next_is_ready_for_a_shell_and_loses_no_picture(tmp_path, monkeypatch, pictures, home):
    monkeypatch.chdir(tmp_path)
    Path(pictures).mkdir(parents=True)
    (Path(pictures) / "a.png").write_text("a picture")
    said = next_step(Path(pictures), Path(home))
    command = said[said.index("(") + 1 : said.rindex(")")]
    subprocess.run(["sh", "-ec", command], check=True)
    assert (Path(home) / "a.png").read_text() == "a picture"
    assert next_step(Path(home), Path(home)) == f"Next: dvc add {shlex.quote(home)} && dvc repro"
