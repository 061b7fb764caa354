"""The price of a random split for detectors: copies are worth much to one that memorises; without them it is 0."""

import numpy as np
import pandas as pd
import pytest

from plumbline.evidence import detection_price
from plumbline.evidence.detection_price import PriceParams, Seen, folds, measure, rows
from plumbline.models.records import WeightsRecord
from plumbline.models.scene_maps import MapsRecord, StoredMaps
from plumbline.models.scene_views import Jitter
from stages import price as stage

PARAMS = PriceParams(repeats=2, resamples=100)
WEIGHTS = WeightsRecord(backbone="pixels", requested="random", origin="none", file=None, sha256=None)


def scenes(copies, count=48, seed=0):
    """Photographs in groups of `copies` that look the same but for noise, with a box each, and their maps of pixels."""
    random = np.random.default_rng(seed)
    groups = count // copies
    looks, places = random.integers(0, 256, (groups, 32, 32, 3)), random.uniform(0, 0.7, (groups, 2))
    group = np.repeat(np.arange(groups), copies)
    noise = random.integers(-3, 4, (count, 1, 32, 32, 3))
    values = np.clip(looks[group][:, None] + noise, 0, 255).astype(np.uint8)
    paths = [f"{number:02}.jpg" for number in range(count)]
    affines = np.tile([1.0, 0.0, 1.0, 0.0], (count, 1, 1))
    record = MapsRecord(
        name="pixels_32", network="pixels", kept=None, strides=(8,), image_size=32, views=0, jitter=Jitter(),
        weights=WEIGHTS, seed=0, code="", shape=(32, 32, 3),
    )  # fmt: skip
    maps = StoredMaps(values, affines, pd.DataFrame({"path": paths}), record, None)
    photographs = pd.DataFrame({"path": paths, "width": 320, "height": 320, "group": [f"g{one}" for one in group]})
    left, top = places[group].T
    boxes = pd.DataFrame({"path": paths, "label": np.array(["head", "helmet"])[group % 2], "left": left, "top": top})
    return maps, photographs, boxes.assign(right=boxes["left"] + 0.2, bottom=boxes["top"] + 0.2)


def test_copies_on_both_sides_are_worth_much_to_who_memorises():
    found = measure(*scenes(copies=4), PARAMS)
    price = rows(found)["nearest photograph"]
    assert price.naive > 0.8
    assert price.grouped < 0.3
    assert 30 < price.low <= price.points <= price.high
    assert found.sentence.startswith("In mAP50: A random split would have claimed")


def test_without_copies_there_is_no_price():
    price = rows(measure(*scenes(copies=1), PARAMS))["nearest photograph"]
    assert price.points == pytest.approx(0, abs=15)
    assert price.low <= 0 <= price.high


def test_too_few_groups_are_said():
    maps, photographs, boxes = scenes(copies=1)
    few = boxes[(boxes["label"] == "helmet") | (boxes.index < 6)]
    found = measure(maps, photographs, few, PARAMS)
    assert found.price is None
    assert "in at least 5 groups" in found.sentence


def test_folds_part_no_unit_and_are_of_one_size():
    units = np.repeat(np.arange(20), 3)
    fold = folds(units, 0)
    assert all(len(set(fold[units == unit])) == 1 for unit in range(20))
    assert np.bincount(fold).tolist() == [12] * 5
    assert (folds(units, 1) != fold).any()


def test_the_linear_detector_finds_what_a_channel_shows():
    """Of an 8 x 8 grid one channel shows where a box's middle lies, another how wide it is."""
    random, grid = np.random.default_rng(0), 8
    places, boxes = np.zeros((30, grid * grid, 3), np.float32), []
    for number in range(30):
        x, y = random.integers(1, grid - 1, 2)
        wide = random.uniform(0.1, 0.3)
        places[number, y * grid + x, :2] = 1, np.log(wide)
        middle = (np.array([x, y]) + 0.5) / grid
        boxes.append(np.array([[*(middle - wide / 2), *(middle + wide / 2)]]))
    places[:, :, 2] = 1
    labels = [np.zeros(1, dtype=np.int64)] * 30
    whole = np.tile([1.0, 0.0, 1.0, 0.0], (30, 1))
    seen = Seen(np.eye(30), places, boxes, labels, whole)
    fold = folds(np.arange(30), 0)
    sums = detection_price._Sums(seen, fold, 1)
    for held in range(5):
        test = np.flatnonzero(fold == held)
        for row, found in zip(test, sums.detect(held, test), strict=True):
            assert found.boxes[0] == pytest.approx(boxes[row][0], abs=0.02)
            assert found.scores[0] > 0.5


def test_the_stage_needs_the_maps(tmp_path, monkeypatch):
    from plumbline.common.errors import UserError

    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("price: {}\n")
    with pytest.raises(UserError, match="maps@mobilenet_v2"):
        stage.main()
