"""`plumbline audit`: sides are named, leaks are found and counted, bad input is exit code 2."""

import errno
import json
import shutil
import sys

import pandas as pd
import pytest

from drawn import scene
from plumbline import commands
from plumbline.commands.audit import BAD_INPUT, CLEAN, LEAKS, audit, name_sides, read_unlabelled
from plumbline.common.errors import UserError
from plumbline.imaging.settings import DataParams


@pytest.fixture
def split(tmp_path, monkeypatch):
    """Two folders with two classes and no picture in common; the current folder."""
    monkeypatch.chdir(tmp_path)
    for place, side in enumerate(("train", "test")):
        for number in range(4):
            path = tmp_path / side / ("cat" if number % 2 else "dog") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            scene(10 * place + number, (120, 90)).save(path)
    return tmp_path


def test_sides_are_called_by_their_folders(tmp_path):
    for name in ("a/train", "b/train", "b/test"):
        (tmp_path / name).mkdir(parents=True)
    assert name_sides([tmp_path / "a/train", tmp_path / "b/test"]) == ["train", "test"]
    assert name_sides([tmp_path / "a/train", tmp_path / "b/train"]) == ["train-1", "train-2"]


@pytest.mark.parametrize(
    ("folders", "says"),
    [
        (["a/train", "nowhere"], "nowhere is not a folder"),
        (["a/train", "a/train"], "two or more different folders"),
        (["a/train"], "two or more different folders"),
        (["a", "a/train"], "every picture of it would be compared with itself"),
    ],
)
def test_folders_that_make_no_split_are_a_sentence(folders, says, tmp_path):
    (tmp_path / "a" / "train").mkdir(parents=True)
    with pytest.raises(UserError, match=says):
        name_sides([tmp_path / name for name in folders])


@pytest.mark.slow
def test_a_clean_split(split, capsys):
    assert audit(["--no-embeddings", "train", "test"]) == CLEAN
    assert json.loads((split / "reports/audit.json").read_text())["pairs_across_splits"] == 0
    assert pd.read_csv(split / "reports/audit_pairs.csv").empty
    assert "embeddings" not in capsys.readouterr().err


def test_a_copy_across_is_counted_and_what_to_drop_is_named(split, capsys):
    shutil.copy(split / "train/cat/1.png", split / "test/cat/copied.png")
    page = split / "out" / "found.html"
    assert audit(["--no-embeddings", "train", "test", "--page", str(page)]) == LEAKS
    found = json.loads(page.with_suffix(".json").read_text())
    assert (found["pairs_across_splits"], found["to_drop"]) == (1, {"train": 1})
    (row,) = pd.read_csv(page.with_name("found_pairs.csv")).itertuples()
    assert (row.drop, row.keep) == ("train/cat/1.png", "test/cat/copied.png")
    assert "1 pictures of train" in capsys.readouterr().out


@pytest.fixture
def boxes(tmp_path, monkeypatch):
    """Two YOLO folders whose files are numbered alike, of other pictures; the current folder."""
    monkeypatch.chdir(tmp_path)
    for place, side in enumerate(("train", "test")):
        (tmp_path / side).mkdir()
        (tmp_path / side / "obj.names").write_text("cat\ndog\n")
        for number in range(2):
            scene(10 * place + number, (120, 90)).save(tmp_path / side / f"{number}.png")
            (tmp_path / side / f"{number}.txt").write_text(f"{number} 0.5 0.5 1 1\n")
    return tmp_path


def test_files_that_are_numbered_alike_are_no_leak(boxes):
    assert audit(["--no-embeddings", "train", "test"]) == CLEAN


@pytest.mark.parametrize("photo", ["0", "roll 7"])
def test_a_photograph_that_the_metadata_names_on_both_sides_is_one(boxes, photo):
    for side in ("train", "test"):
        (boxes / side / "metadata.csv").write_text(f"path,photo\n0.png,{photo}\n")
    assert audit(["--no-embeddings", "train", "test"]) == LEAKS
    assert json.loads((boxes / "reports/audit.json").read_text())["pairs_across_splits"] == 1


def test_copies_of_roboflow_are_tied_within_a_side(split):
    for side, mark in (("train", "0123456789abcdef"), ("test", "fedcba9876543210")):
        for number in range(2):
            image = scene(100 + ord(mark[0]) + number, (120, 90))
            image.save(split / side / "cat" / f"x_jpg.rf.{mark}{number:016}.png")
    assert audit(["--no-embeddings", "train", "test"]) == CLEAN
    assert json.loads((split / "reports/audit.json").read_text())["groups"] == 10


def test_bad_input_is_exit_code_2(split, capsys):
    assert audit(["train", "nowhere"]) == BAD_INPUT
    assert audit(["train", "test", "--pairs", "found.txt"]) == BAD_INPUT
    (split / "empty").mkdir()
    assert audit(["train", "empty"]) == BAD_INPUT
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(said) == 3
    assert "--pairs found.txt names no table: end it in .csv or .parquet." in said[1]


def test_outer_folders_called_like_sites_are_classes_where_somebody_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for place, path in enumerate(
        f"{side}/site_{a}/{b}" for side in ("train", "test") for a in "ab" for b in ("up", "on")
    ):
        (tmp_path / path).mkdir(parents=True)
        scene(place, (120, 90)).save(tmp_path / path / "0.png")
    assert audit(["--no-embeddings", "train", "test"]) == BAD_INPUT
    assert "--layout folders" in capsys.readouterr().err
    assert audit(["--no-embeddings", "--layout", "folders", "train", "test"]) == CLEAN
    assert json.loads((tmp_path / "reports/audit.json").read_text())["images"] == 8


def test_pictures_without_classes_are_read_and_the_others_passed_over(tmp_path, capsys):
    scene(1, (60, 50)).save(tmp_path / "b.png")
    scene(2, (60, 50)).save(tmp_path / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    side = read_unlabelled("x", DataParams(root=tmp_path))
    assert side.manifest["path"].tolist() == ["a.png", "b.png"]
    assert set(side.manifest["label"]) == {""}
    assert (len(side.fingerprints), len(side.thumbnails)) == (2, 2)
    assert "broken.jpg" in capsys.readouterr().err


def test_a_disk_that_is_full_is_a_sentence_and_bad_input(split, monkeypatch, capsys):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(commands.audit, "write_table", full)
    monkeypatch.setattr(sys, "argv", ["plumbline audit", "--no-embeddings", "train", "test"])
    with pytest.raises(SystemExit) as ended:
        commands.audit.main()
    assert ended.value.code == BAD_INPUT
    assert "error: " in capsys.readouterr().err
