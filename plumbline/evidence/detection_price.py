"""The price of a careless split for detectors, in points of mAP50: what cheap ones score with copies on both sides.

As leakage.price does for classifiers, by repeated 5-fold cross-validation with folds drawn by photograph and by group.
Two detectors cost next to nothing on maps that are kept already. `nearest_photograph` gives a photograph the boxes of
the one most like it: what memorising copies is worth. `linear_detector` tells in closed form (ridge regression) from a
place's map whether an object's middle lies there, and where its sides are: what little can be learnt of copies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from plumbline.common.params import Section
from plumbline.common.records import Record
from plumbline.evidence.detection_scores import average_precision, match, scenes_of
from plumbline.evidence.intervals import draw_groups, group_codes
from plumbline.leakage.price import FOLDS, sample, sentence
from plumbline.leakage.records import ClassifierPrice, Price
from plumbline.models.detecting import Found, detections_table, reported
from plumbline.models.detector import Suppression
from plumbline.models.scene_maps import StoredMaps, cut_at
from plumbline.models.scene_views import to_canvas
from plumbline.tasks.scores import Floats, Ints

if TYPE_CHECKING:
    import pandas as pd

AT_50: Floats = np.array([0.5])
SIDES = ["left", "top", "right", "bottom"]
SUPPRESSION = Suppression(least_score=0.02, most=50)
RIDGE = 1e-2
"""Of the mean of the diagonal."""
POSITIVE_WEIGHT = 10.0
MIDDLE = 0.75
"""How far from a box's middle, in strides, a place may lie and still answer for it."""
RAW_SIDE = 16  # pixels: what stands in for maps where canvases themselves are kept
BATCH = 16


class PriceParams(Section):
    """Section `price` of detection/params.yaml.

    `maps` is an entry of section `maps`, of which the linear detector takes those of `stride`, brought to `channels`
    by a random projection. Folds are drawn `repeats` times; of a larger set, whole groups up to `most_photographs`.
    """

    maps: str = "mobilenet_v2"
    stride: Annotated[int, Field(ge=4, le=32)] = 16
    channels: Annotated[int, Field(ge=8, le=1024)] = 192
    repeats: Annotated[int, Field(ge=1, le=100)] = 3
    most_photographs: Annotated[int, Field(ge=50)] = 400
    resamples: Annotated[int, Field(ge=100)] = 500
    seed: Annotated[int, Field(ge=0)] = 0


class DetectionPrice(Record):
    """build/price.json: the price, None where there are too few groups to measure it, and what it says."""

    price: Price | None
    sentence: str


@dataclass(frozen=True)
class Seen:
    """N photographs as the cheap detectors see them.

    Attributes:
        vectors: one of each, of length 1 (N, D).
        places: maps of a stride, a place's last channel is 1 (N, G * G, C); None where canvases are of pixels.
        boxes: of each, in shares of the photograph (M, 4); classes: their numbers (M,).
        affines: where each lies on its canvas (N, 4).
    """

    vectors: Floats
    places: NDArray[np.float32] | None
    boxes: Sequence[Floats]
    classes: Sequence[Ints]
    affines: Floats


def measure(maps: StoredMaps, photographs: pd.DataFrame, boxes: pd.DataFrame, params: PriceParams) -> DetectionPrice:
    """Return the price on `photographs` (path, width, height, group) with `boxes` (path, label, sides in shares)."""
    random = np.random.default_rng(params.seed)
    rows = sample(group_codes(photographs["group"]).astype(np.int64), params.most_photographs, random)
    photographs = photographs.iloc[rows].reset_index(drop=True)
    codes = group_codes(photographs["group"])
    boxes = boxes[boxes["path"].isin(photographs["path"])]
    classes = sorted(boxes["label"].unique())
    of_group = boxes.merge(photographs[["path", "group"]], on="path").groupby("label")["group"].nunique()
    if not len(of_group) or of_group.min() < FOLDS:
        return DetectionPrice(
            price=None,
            sentence=f"The price can't be told: it takes boxes of each class in at least {FOLDS} groups.",
        )
    seen = look(maps, list(photographs["path"]), boxes, classes, params)
    draws = draw_groups(int(codes.max()) + 1, params.resamples, params.seed)[:, codes]
    seeds = random.integers(2**31, size=params.repeats)
    names = ["nearest_photograph", *([] if seen.places is None else ["linear_detector"])]
    found = {}
    for name in names:
        naive, grouped = (
            _map50(name, seen, photographs, boxes, classes, units, seeds, draws)
            for units in (np.arange(len(codes)), codes)
        )
        apart = naive - grouped
        low, high = np.quantile(apart[1:], [0.025, 0.975])
        found[name] = ClassifierPrice(
            naive=float(naive[0]),
            grouped=float(grouped[0]),
            points=100 * float(apart[0]),
            low=100 * float(low),
            high=100 * float(high),
        )
    price = Price(features=maps.record.name, images=len(codes), repeats=params.repeats, folds=FOLDS, classifiers=found)
    return DetectionPrice(price=price, sentence=f"In mAP50: {sentence(price)}")


def look(
    maps: StoredMaps, paths: Sequence[str], boxes: pd.DataFrame, classes: Sequence[str], params: PriceParams
) -> Seen:
    """Return the photographs `paths` as the detectors see them, by the letterbox's maps."""
    numbers = {label: number for number, label in enumerate(classes)}
    of, none = dict(list(boxes.groupby("path"))), boxes.iloc[:0]
    tables = [of.get(path, none) for path in paths]
    rows = maps.rows_of(list(paths))
    kept = (maps.values[row, 0] for row in rows)
    if maps.record.reads_pixels:
        vectors, places = np.stack([_small(one) for one in kept]), None
    else:
        vectors, places = _through_upper(maps, kept, params)
    return Seen(
        vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12),
        places,
        [table[SIDES].to_numpy(np.float64) for table in tables],
        [table["label"].map(numbers).to_numpy(np.int64) for table in tables],
        maps.affines[rows, 0],
    )


def _small(canvas: NDArray[np.uint8]) -> Floats:
    side = canvas.shape[0] // RAW_SIDE * RAW_SIDE
    blocks = canvas[:side, :side].reshape(RAW_SIDE, side // RAW_SIDE, RAW_SIDE, side // RAW_SIDE, 3)
    return np.asarray(blocks.mean(axis=(1, 3)).ravel() / 255 - 0.5, dtype=np.float64)


def _through_upper(
    maps: StoredMaps, kept: Iterator[NDArray[np.float16]], params: PriceParams
) -> tuple[Floats, NDArray[np.float32]]:
    """Each photograph's coarsest maps averaged (N, D), its maps of the stride projected (N, G * G, channels + 1)."""
    from plumbline.common import artefacts

    upper = cut_at(maps.record, maps.folder / artefacts.BACKBONE_WEIGHTS).upper
    assert upper is not None
    level = sorted(maps.record.strides).index(min(maps.record.strides, key=lambda one: abs(one - params.stride)))
    random = np.random.default_rng(params.seed)
    project: NDArray[np.float32] | None = None
    vectors, places = [], []
    for batch in _batches(kept):
        levels = [np.asarray(one) for one in upper.predict_on_batch(batch)]
        vectors.append(levels[-1].mean(axis=(1, 2)))
        own = levels[level].reshape(len(batch), -1, levels[level].shape[-1])
        if project is None:
            project = (random.normal(size=(own.shape[-1], params.channels)) / np.sqrt(own.shape[-1])).astype(np.float32)
        flat = own @ project
        places.append(np.concatenate([flat, np.ones((*flat.shape[:2], 1), np.float32)], axis=-1))
    return np.concatenate(vectors).astype(np.float64), np.concatenate(places)


def _batches(kept: Iterator[NDArray[np.float16]]) -> Iterator[NDArray[np.float32]]:
    waiting: list[NDArray[np.float16]] = []
    for one in kept:
        waiting.append(one)
        if len(waiting) == BATCH:
            yield np.stack(waiting).astype(np.float32)
            waiting = []
    if waiting:
        yield np.stack(waiting).astype(np.float32)


def folds(units: Ints, seed: int) -> Ints:
    """Return a fold number for each photograph (N,): whole units, drawn at random, each to the fold with the fewest."""
    sizes = np.bincount(units)
    of_unit, filled = np.zeros(len(sizes), dtype=np.int64), np.zeros(FOLDS)
    for unit in np.random.default_rng(seed).permutation(len(sizes)):
        of_unit[unit] = filled.argmin()
        filled[of_unit[unit]] += sizes[unit]
    return of_unit[units]


def _map50(
    name: str,
    seen: Seen,
    photographs: pd.DataFrame,
    boxes: pd.DataFrame,
    classes: Sequence[str],
    units: Ints,
    seeds: Ints,
    draws: Floats,
) -> Floats:
    """mAP50 (1 + R,) over all photographs, each found by a detector that learnt from other folds, and of redrawn sets.

    The mean over repeats.
    """
    values = []
    for seed in seeds.tolist():
        fold = folds(units, seed)
        found: list[Found | None] = [None] * len(fold)
        sums = _Sums(seen, fold, len(classes)) if name == "linear_detector" else None
        for held in range(FOLDS):
            test, train = np.flatnonzero(fold == held), np.flatnonzero(fold != held)
            if not len(test):
                continue
            made = _nearest(seen, train, test) if sums is None else sums.detect(held, test)
            for row, one in zip(test, made, strict=True):
                found[row] = one
        complete = [one for one in found if one is not None]
        table = detections_table(list(photographs["path"]), complete, _own_frame(name, seen), classes)
        values.append(_of_draws(photographs, boxes, table, classes, draws))
    return np.asarray(np.mean(values, axis=0))


def _own_frame(name: str, seen: Seen) -> Floats:
    """Boxes of the nearest photograph are in shares of the photograph already."""
    return seen.affines if name == "linear_detector" else np.tile([1.0, 0.0, 1.0, 0.0], (len(seen.affines), 1))


def _of_draws(
    photographs: pd.DataFrame, boxes: pd.DataFrame, table: pd.DataFrame, classes: Sequence[str], draws: Floats
) -> Floats:
    of_class = []
    for label in classes:
        matches = match(list(scenes_of(photographs, boxes, table, label)), AT_50)
        of_class.append([average_precision(matches, times)[0] for times in (None, *draws)])
    return np.asarray(np.nanmean(of_class, axis=0))


def _nearest(seen: Seen, train: Ints, test: Ints) -> Iterator[Found]:
    likeness = seen.vectors[test] @ seen.vectors[train].T
    for row in likeness:
        twin = train[row.argmax()]
        count = len(seen.boxes[twin])
        yield Found(seen.boxes[twin], seen.classes[twin], np.full(count, float(row.max())))


class _Sums:
    """The normal equations of a linear detector, a part for each fold: a fit takes those of all folds but one."""

    def __init__(self, seen: Seen, fold: Ints, classes: int) -> None:
        assert seen.places is not None
        self._seen, self._places = seen, seen.places
        self._grid = round(np.sqrt(seen.places.shape[1]))
        width = seen.places.shape[2]
        across = (np.arange(self._grid) + 0.5) / self._grid
        y, x = np.meshgrid(across, across, indexing="ij")
        self._centres = np.stack([x.ravel(), y.ravel()], axis=1)
        self._all = np.zeros((FOLDS, width, width))
        self._wanted = np.zeros((FOLDS, width, classes))
        self._inside = np.zeros((FOLDS, width, width))
        self._sides = np.zeros((FOLDS, width, 4))
        for row, held in enumerate(fold):
            self._add(row, int(held), classes)

    def _add(self, row: int, held: int, classes: int) -> None:
        values = self._places[row].astype(np.float64)
        boxes = to_canvas(self._seen.boxes[row], self._seen.affines[row])
        wanted, weight = np.zeros((len(values), classes)), np.ones(len(values))
        for box, label in zip(boxes, self._seen.classes[row], strict=True):
            away = np.abs(self._centres - (box[:2] + box[2:]) / 2).max(axis=1) * self._grid
            mine = away <= max(MIDDLE, away.min())
            wanted[mine, label], weight[mine] = 1, POSITIVE_WEIGHT
            self._inside[held] += values[mine].T @ values[mine]
            self._sides[held] += values[mine].T @ self._encoded(np.tile(box, (int(mine.sum()), 1)), mine)
        self._all[held] += (values * weight[:, None]).T @ values
        self._wanted[held] += (values * weight[:, None]).T @ wanted

    def _encoded(self, boxes: Floats, places: NDArray[np.bool_]) -> Floats:
        middle, size = (boxes[:, :2] + boxes[:, 2:]) / 2, np.maximum(boxes[:, 2:] - boxes[:, :2], 1e-3)
        return np.concatenate([(middle - self._centres[places]) * self._grid, np.log(size)], axis=1)

    def detect(self, held: int, test: Ints) -> Iterator[Found]:
        """Yield what a detector that learnt from all folds but `held` reports of the photographs `test`."""
        others = np.arange(FOLDS) != held
        score = _solved(self._all[others].sum(axis=0), self._wanted[others].sum(axis=0))
        sides = _solved(self._inside[others].sum(axis=0), self._sides[others].sum(axis=0))
        for row in test:
            values = self._places[row].astype(np.float64)
            offset = values @ sides
            middle = self._centres + offset[:, :2] / self._grid
            half = np.exp(np.clip(offset[:, 2:], -6, 0.5)) / 2
            boxes = np.concatenate([middle - half, middle + half], axis=1)
            yield reported(boxes, np.clip(values @ score, 0, 1), SUPPRESSION)


def _solved(left: Floats, right: Floats) -> Floats:
    ridge = RIDGE * np.trace(left) / len(left)
    return np.asarray(np.linalg.solve(left + max(ridge, 1e-9) * np.eye(len(left)), right))


def rows(found: DetectionPrice) -> Mapping[str, ClassifierPrice]:
    """Return the price by detector, in words."""
    kinds = {} if found.price is None else found.price.classifiers
    return {name.replace("_", " "): one for name, one in kinds.items()}
