"""The drawn photographs: what is planted, boxes around what is seen, the same every time."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plumbline.common.errors import UserError
from plumbline.imaging.layouts.yolo import parse_box
from samples.camera import decode
from samples.scenes import (
    CLASSES,
    HEIGHT,
    WIDTH,
    Copy,
    Label,
    as_darknet,
    draw_scene,
    metadata_table,
    picture_of,
    plan,
    published,
    truth_table,
    write_scenes,
)

TRUTH = Path("samples/scenes.csv")
PLANNED = ["path", "kind", "group", "video", "copy_of", "change", "site"]


@pytest.fixture(scope="module")
def items():
    return plan()


def test_the_plan_holds_what_was_promised(items):
    assert len(items) == len({item.path for item in items}) == 120
    truth = truth_table(items, [[] for _ in items])
    assert Counter(truth["kind"])["copy"] == 10
    assert Counter(truth["kind"])["empty"] == 6
    assert Counter(truth["kind"])["broken"] == 1
    assert Counter(truth["kind"])["sequence"] >= 9
    assert (truth.groupby("video")["group"].nunique() == 1)["V01"]
    copies = truth[truth["copy_of"] != ""].merge(truth, left_on="copy_of", right_on="path", suffixes=("", "_original"))
    assert (copies["group"] == copies["group_original"]).all()
    assert set(copies["change"]) == {"cropped", "mirrored", "reencoded"}
    assert sum(len(item.scene.figures) > 1 for item in items) > 80


def test_metadata_tells_what_a_site_knows_and_not_the_truth(items):
    assert list(metadata_table(items)) == ["path", "video", "site", "camera", "captured_at"]


def test_the_committed_truth_is_the_plan_of_seed_0(items):
    committed = pd.read_csv(TRUTH, keep_default_na=False)
    assert committed[PLANNED].equals(truth_table(items, [[] for _ in items])[PLANNED])
    assert committed.loc[committed["kind"] == "empty", list(CLASSES)].to_numpy().sum() == 0
    assert committed[list(CLASSES)].to_numpy().sum() > 250


@pytest.mark.slow
def test_a_box_is_where_the_head_is_and_the_same_seed_draws_the_same_bytes(items):
    item = min((one for one in items if len(one.scene.figures) == 2 and not one.copy), key=_nearest)
    content, labels = picture_of(item)
    assert decode(content).shape == (HEIGHT, WIDTH, 3)
    assert picture_of(item) == (content, labels)
    assert len(labels) == 2
    for figure, label in zip(item.scene.figures, labels, strict=True):
        left, top, right, bottom = label.edges
        assert left * WIDTH < figure.x < right * WIDTH
        assert top * HEIGHT < figure.y < bottom * HEIGHT
        assert 0.7 * figure.head < (bottom - top) * HEIGHT < 1.6 * figure.head
        assert label.name == ("helmet" if figure.gear.name == "helmet" else "head")


def _nearest(item):
    return max(figure.head for figure in item.scene.figures)


@pytest.mark.slow
def test_a_head_that_a_nearer_worker_covers_has_no_box(items):
    item = min((one for one in items if len(one.scene.figures) == 1 and not one.copy), key=_nearest)
    (far,) = item.scene.figures
    near = replace(far, head=far.head * 3, y=far.y - 2.5 * far.head)
    _, labels = draw_scene(replace(item.scene, figures=(far, near)))
    assert len(labels) <= 1


@pytest.mark.parametrize("change", ["mirrored", "cropped", "reencoded"])
def test_boxes_go_with_a_republished_photograph(change):
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[20:40, 30:60] = 255
    kept = (0.1, 0.1, 0.9, 0.95) if change == "cropped" else (0.0, 0.0, 1.0, 1.0)
    labels = [Label("helmet", (0.15, 0.2, 0.3, 0.4)), Label("head", (0.0, 0.5, 0.11, 0.6))]
    copied, found = published(pixels, labels, Copy(change, kept, 100 if change == "reencoded" else 200, 80))
    left, top, right, bottom = found[0].edges
    high, wide = copied.shape[:2]
    rows, columns = np.nonzero(copied[..., 0] > 127)
    seen = (columns.min() / wide, rows.min() / high, (columns.max() + 1) / wide, (rows.max() + 1) / high)
    assert (left, top, right, bottom) == pytest.approx(seen, abs=0.006)
    assert [one.name for one in found] == (["helmet"] if change == "cropped" else ["helmet", "head"])


def test_boxes_are_written_as_they_are_read():
    lines = as_darknet([Label("head", (0.1, 0.2, 0.3, 0.6))]).splitlines()
    assert parse_box(lines[0]) == (1, pytest.approx((0.2, 0.4, 0.2, 0.4)))


def test_too_small_a_sample_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="too few"):
        write_scenes(tmp_path, count=5)
    assert not list(tmp_path.iterdir())
