"""A candidate's page from plain data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import read_record, read_table
from plumbline.evidence.calibration import fit_temperature
from plumbline.evidence.candidates import sample_of
from plumbline.evidence.conformal import conformal_sets
from plumbline.evidence.intervals import draw_weights
from plumbline.models.anatomy import WHOLE, Layer, attention, layer_table
from plumbline.models.assemble import load_candidate, read_cost
from plumbline.models.records import ModelRecord
from plumbline.pages.charts import Line, line_chart
from plumbline.pages.template import data_uri, render_page
from plumbline.tasks.known import task_of
from plumbline.tasks.labels import label_texts, truth_table
from plumbline.tasks.records import Confusion
from plumbline.tasks.task import Task

MISTAKES = 12
LOOKED_AT = 6
REDRAWN = 1000
"""Redrawings of the test groups."""
Pictures = Callable[[list[str], int], Iterable[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Picture:
    """A picture on the page: path, label, prediction, its label's probability, its pixels as a data address."""

    path: str
    label: str
    predicted: str
    p_label: float
    source: str

    @classmethod
    def of(cls, row: Any, pixels: NDArray[np.uint8]) -> Picture:
        """Make it from a row of judged pictures (path, label, predicted, p_label) and pixels (S, S, 3)."""
        return cls(row.path, row.label, row.predicted, float(row.p_label), data_uri(pixels))


def about_training(model: ModelRecord) -> list[str]:
    """Which epoch was the best, and what went wrong."""
    best = f"Epoch {model.best_epoch} of {model.epochs_run} had the least validation loss."
    return [*([] if model.best_epoch is None else [best]), *model.trouble]


def about_sets(predictions: pd.DataFrame, classes: list[str], task: Task) -> list[str]:
    """A sentence on each conformal set: how often it holds a test picture's right class, or why that can't be said."""
    validation, test = (sample_of(predictions, classes, split, task) for split in ("validation", "test"))
    temperature = fit_temperature(*validation.decisions)
    draws = draw_weights(test.codes, REDRAWN, 0)
    found = conformal_sets(validation.scaled(temperature), test.scaled(temperature), draws, None, 0)
    return [one.note for one in found]


def curves(history: pd.DataFrame) -> list[tuple[str, Markup]]:
    """Loss and accuracy by epoch, training and validation; epochs whose loss is not a number are left out."""
    history = history.dropna(subset=["loss", "val_loss"])
    if history.empty:
        return []
    pairs = (("Loss", "loss", "val_loss", None), ("Accuracy", "accuracy", "val_accuracy", (0.0, 1.0)))
    epochs = history["epoch"].tolist()
    charts = []
    for title, train, validation, limits in pairs:
        lines = [
            Line("training", epochs, history[train].tolist(), "s1"),
            Line("validation", epochs, history[validation].tolist(), "s2"),
        ]
        last = history.iloc[-1]
        description = (
            f"{title} by epoch; at the end {last[train]:.3f} in training, {last[validation]:.3f} in validation"
        )
        charts.append((title, line_chart(lines, "epoch", title.lower(), description, y_range=limits)))
    return charts


def summary(layers: list[Layer]) -> dict[str, str]:
    """A few figures over all layers."""
    deepest = max((layer.receptive_field for layer in layers if layer.receptive_field != WHOLE), default=1.0)
    return {
        "layers": f"{len(layers):,}",
        "activations": f"{sum(layer.activation for layer in layers):,}",
        "receptive_field": f"{deepest:,.0f} x {deepest:,.0f}",
    }


def render(model: ModelRecord, **content: Any) -> str:
    """Return the page; see the template for what it shows."""
    return render_page(
        "card.html.j2",
        filters={
            "field": lambda value: "whole picture" if math.isinf(value) else f"{value:.0f} x {value:.0f}",
            "percent": lambda value: f"{100 * value:.1f}%",
        },
        model=model,
        charts=curves(content.pop("history")),
        about_training=about_training(model),
        summary=summary(content["layers"]),
        **content,
    )


def graded(predictions: pd.DataFrame, classes: list[str], task: Task, split: str = "test") -> pd.DataFrame:
    """The pictures of `split` with `predicted`, `right` and `p_label`, the probability of their label.

    With several labels a picture is right where every label is, and `p_label` is the lowest of their probabilities.
    """
    part = predictions[predictions["split"] == split].reset_index(drop=True)
    p, truth = probabilities_in(part, classes), truth_table(part["label"], classes)
    predicted = task.predicted(p)
    return part.assign(
        predicted=label_texts(predicted, classes),
        right=(predicted == truth).all(axis=1),
        p_label=task.sure_of_label(truth, p),
    )


def confusions(judged: pd.DataFrame, classes: list[str], task: Task) -> list[Confusion]:
    """The task's confusion matrices of judged pictures."""
    predicted = task.predicted(probabilities_in(judged, classes))
    return task.confusions(truth_table(judged["label"], classes), predicted, classes)


def probabilities_in(table: pd.DataFrame, classes: list[str]) -> NDArray[np.float64]:
    """The p_CLASS columns of a table of predictions, (N, C)."""
    return table[[f"p_{name}" for name in classes]].to_numpy(np.float64)


def looked_at(judged: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hits and misses to look into: the surest hits, the same number of each label, and the worst misses."""
    hits = judged[judged["right"]].sort_values(["p_label", "path"], ascending=[False, True])
    each = max(1, LOOKED_AT // max(1, hits["label"].nunique()))
    hits = hits.groupby("label", sort=True).head(each).sort_values("label", kind="stable").head(LOOKED_AT)
    misses = judged[~judged["right"]].sort_values(["p_label", "path"]).head(LOOKED_AT)
    return hits, misses


def heated(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture (S, S, 3) with the heat (h, w) in [0, 1] over it, red where it is hottest."""
    import cv2

    size = (picture.shape[1], picture.shape[0])
    warm = cv2.resize(heat, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((warm * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    share = 0.55 * warm[..., None]
    return np.asarray(picture * (1 - share) + colours * share, dtype=np.uint8)


def make_card(folder: Path, features: Path, pictures: Pictures, no_heat: str | None = None) -> str:
    """The page of the candidate in `folder`, whose backbone is in `features`.

    `pictures(paths, size)` yields (size, size, 3) uint8 RGB in order. `no_heat` says why Grad-CAM is left out.
    """
    record = read_record(folder / artefacts.MODEL, ModelRecord)
    predictions = read_table(folder / artefacts.PREDICTIONS, stage=f"train@{folder.name}")
    classes, task = list(record.classes), task_of(record)
    judged = graded(predictions, classes, task)
    if judged.empty:
        raise UserError(f"{folder}/predictions.parquet has no test picture: run `dvc repro split`.")
    model = load_candidate(folder, features)
    size = record.image_size
    hits, misses = looked_at(judged)
    shown = pd.concat([hits, misses])
    pixels = np.stack(list(pictures(list(shown["path"]), size)))
    surest = probabilities_in(shown, classes).argmax(axis=1)
    heat = None if no_heat else attention(model, pixels.astype(np.float32), surest)
    heats = [
        Picture.of(row, pixels[n] if heat is None else heated(pixels[n], heat[n]))
        for n, row in enumerate(shown.itertuples())
    ]
    worst = judged[~judged["right"]].sort_values(["p_label", "path"]).head(MISTAKES)
    mistakes = zip(worst.itertuples(), pictures(list(worst["path"]), 160), strict=True)
    return render(
        record,
        layers=layer_table(model),
        history=pd.read_csv(folder / artefacts.HISTORY),
        confusions=confusions(judged, classes, task),
        accuracy={
            split: float(graded(predictions, classes, task, split)["right"].mean())
            for split in ("train", "validation", "test")
        },
        mistakes=[Picture.of(row, picture) for row, picture in mistakes],
        mistakes_in_all=int((~judged["right"]).sum()),
        test_images=len(judged),
        hits=heats[: len(hits)],
        misses=heats[len(hits) :],
        has_heat=heat is not None,
        no_heat=no_heat,
        sets=about_sets(predictions, classes, task),
        cost=read_cost(folder),
        megabytes=_megabytes(folder / artefacts.HEAD_WEIGHTS, features / artefacts.BACKBONE_WEIGHTS),
    )


def _megabytes(*paths: Path) -> float:
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
