"""The embedded sample is what its truth says, and the same every time."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from plumbline.common.errors import UserError
from samples.camera import decode
from samples.draw import copy_pixels, draw_shot, file_bytes, truth_table, write_sample
from samples.measure import load
from samples.plan import Item, plan

TRUTH = Path("samples/truth.csv")
SIZES = {"seed": 3, "labelled": 45, "incoming": 3}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sample")
    write_sample(root, **SIZES)
    return root


@pytest.fixture(scope="module")
def truth(sample: Path) -> pd.DataFrame:
    return pd.read_csv(sample / "truth.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def items() -> dict[str, Item]:
    return {item.path: item for item in plan(**SIZES)}


def folder(root: Path, batch: str) -> Path:
    return root / "data" if batch == "data" else root / "incoming" / batch


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two pictures' brightness."""
    return float(np.corrcoef(one.mean(axis=2).ravel(), other.mean(axis=2).ravel())[0, 1])


@pytest.mark.slow
def test_the_same_seed_draws_the_same_bytes(sample, items):
    drawn_again = [item for item in items.values() if item.batch == "data"][::7]
    for item in drawn_again:
        assert file_bytes(item) == (sample / "data" / item.path).read_bytes(), item.path


def test_another_seed_draws_another_sample():
    assert not truth_table(plan(1, 45, 3)).equals(truth_table(plan(2, 45, 3)))


@pytest.mark.slow
def test_truth_names_every_file_and_no_other(sample, truth):
    for batch, rows in truth.groupby("batch"):
        root = folder(sample, batch)
        files = {p.relative_to(root).as_posix() for p in root.rglob("*.*")} - {"metadata.csv"}
        assert files == set(rows["path"])
        assert not rows["path"].duplicated().any()
    assert truth["batch"].value_counts().to_dict() == {"data": 45, "SITE_A": 3, "SITE_B": 3}


@pytest.mark.slow
def test_a_picture_lies_in_the_folder_of_its_published_label(truth):
    labelled = truth[truth["batch"] == "data"]
    assert (labelled["path"].str.split("/").str[0] == labelled["published_label"]).all()
    assert ((labelled["label"] != labelled["published_label"]) == (labelled["wrong_label"] == 1)).all()
    assert labelled["wrong_label"].sum() > 0
    assert (truth["label"] == np.where(truth["headgear"] == "helmet", "with_helmet", "without_helmet")).all()


@pytest.mark.slow
def test_metadata_tells_what_a_site_knows_and_not_the_truth(sample, truth):
    for batch, rows in truth.groupby("batch"):
        known = pd.read_csv(folder(sample, batch) / "metadata.csv", keep_default_na=False)
        both = known.merge(rows, on="path", suffixes=("", "_true"))
        assert len(both) == len(known) == len(rows)
        assert (both["photo"] == both["photo_true"]).all()
        wanted = ["path", "label", "photo", "site", "camera", "captured_at"] if batch == "data" else None
        assert list(known.columns) == (wanted or ["path", "photo", "captured_at"])
        assert pd.to_datetime(known["captured_at"]).notna().all()


@pytest.mark.slow
def test_exactly_the_two_broken_files_do_not_decode(sample, truth):
    failed = set()
    for row in truth.itertuples():
        try:
            Image.open(io.BytesIO((folder(sample, row.batch) / row.path).read_bytes())).load()
        except OSError:
            failed.add((row.path, row.kind))
    assert {kind for _, kind in failed} == {"truncated", "not_an_image"}
    assert len(failed) == 2


@pytest.mark.slow
def test_a_copy_shows_its_original(sample, truth, items):
    copies = truth[truth["copy_of"] != ""]
    assert set(copies["change"]) == {"cropped", "reencoded", "mirrored"}
    for row in copies.itertuples():
        item = items[row.path]
        published = decode((sample / "data" / row.path).read_bytes())
        original = decode((sample / "data" / row.copy_of).read_bytes())
        assert published.shape == (item.copy.size, item.copy.size, 3)
        assert likeness(published, copy_pixels(original, item.copy, item.shot)) > 0.97, row.path


def test_some_copies_go_by_another_photograph_and_groups_still_join_them():
    truth = truth_table(plan())
    copies = truth[truth["copy_of"] != ""].merge(truth, left_on="copy_of", right_on="path", suffixes=("", "_original"))
    assert (copies["group"] == copies["group_original"]).all()
    assert (copies["photo"] != copies["photo_original"]).any()
    assert (copies["photo"] == copies["photo_original"]).any()


def test_crops_keep_the_head(items):
    full = [item for item in plan() if item.copy and item.copy.change == "cropped"]
    assert len(full) >= 10
    for item in full:
        ones = np.zeros((200, 200, 3), np.uint8)
        ones[round(item.shot.y), round(item.shot.x)] = 255
        assert copy_pixels(ones, replace(item.copy, size=round(200 * (1 - item.copy.amount))), item.shot).any()


def test_the_full_plan_holds_the_truth_that_was_promised():
    truth = truth_table(plan())
    labelled = truth[truth["batch"] == "data"]
    bursts = labelled[(labelled["burst"] != "") & (labelled["copy_of"] == "")].groupby("burst")
    assert len(labelled) == 600
    assert (labelled["copy_of"] != "").sum() == 40
    assert labelled["wrong_label"].sum() == 6
    assert len(bursts) >= 12
    assert bursts.size().between(2, 6).all()
    assert bursts["photo"].nunique().eq(1).all()
    assert (bursts["label"].nunique() == 2).mean() > 0.5
    assert labelled["label"].value_counts(normalize=True).between(0.47, 0.53).all()


def test_the_committed_truth_is_the_plan_of_seed_0():
    planned = truth_table(plan()).to_csv(index=False)
    assert TRUTH.read_text(encoding="utf-8") == planned


def test_the_class_changes_the_headgear_and_nothing_around_it(items):
    bare = next(item.shot for item in items.values() if item.shot.gear.name == "hair" and 40 < item.shot.head < 80)
    covered = replace(bare, gear=replace(bare.gear, name="helmet"))
    change = np.abs(draw_shot(bare).astype(int) - draw_shot(covered).astype(int)).max(axis=2)
    rows, columns = np.nonzero(change > 8)
    assert len(rows) > 100
    far = np.hypot(rows - bare.y, columns - bare.x) > 1.6 * bare.head
    assert far.mean() < 0.05


def test_too_small_a_sample_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="too few"):
        write_sample(tmp_path, labelled=5)
    assert not list(tmp_path.iterdir())


def test_measuring_nothing_says_how_to_draw(tmp_path):
    with pytest.raises(UserError, match=r"samples\.draw"):
        load(tmp_path)
