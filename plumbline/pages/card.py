"""A candidate's page from plain data."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.models.anatomy import WHOLE, Layer, attention, layer_table
from plumbline.models.assemble import HEAD_WEIGHTS, MODEL, load_candidate
from plumbline.models.features import BACKBONE_WEIGHTS
from plumbline.models.fitting import targets_of
from plumbline.models.training import COST

if TYPE_CHECKING:
    import keras

from plumbline.pages.charts import Line, line_chart
from plumbline.pages.template import data_uri, render_page

MISTAKES = 12
LOOKED_AT = 6
TIMED = 20
Pictures = Callable[[list[str], int], Iterable[NDArray[np.uint8]]]


@dataclass(frozen=True)
class Picture:
    """A picture on the page: its path, what it is labelled, what was said, the probability of its label, a data URL."""

    path: str
    label: str
    predicted: str
    p_label: float
    source: str

    @classmethod
    def of(cls, row: Any, pixels: NDArray[np.uint8]) -> Picture:
        """Make it from a row of judged pictures (path, label, predicted, p_label) and pixels (S, S, 3)."""
        return cls(row.path, row.label, row.predicted, float(row.p_label), data_uri(pixels))


def curves(history: pd.DataFrame) -> list[tuple[str, Markup]]:
    """Loss and accuracy by epoch, training and validation."""
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


def render(model: dict[str, Any], **content: Any) -> str:
    """Return the page; see the template for what it shows."""
    return render_page(
        "card.html.j2",
        filters={
            "field": lambda value: "whole picture" if math.isinf(value) else f"{value:.0f} x {value:.0f}",
            "percent": lambda value: f"{100 * value:.1f}%",
        },
        model=model,
        charts=curves(content.pop("history")),
        summary=summary(content["layers"]),
        **content,
    )


def judge(predictions: pd.DataFrame, classes: list[str], split: str = "test") -> pd.DataFrame:
    """The pictures of `split` with `predicted`, `right` and `p_label`, the probability of what they are labelled.

    With several labels a picture is right where every label is, and `p_label` is the least sure of them.
    """
    inside = (predictions["split"] == split).to_numpy()
    test = predictions[inside].reset_index(drop=True)
    targets = targets_of(predictions["label"])
    p = test[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    truth = targets.values[inside]
    if targets.several_labels:
        told = p > 0.5
        predicted = [";".join(np.array(classes)[row]) or "nothing" for row in told]
        right, sure = (told == (truth > 0)).all(axis=1), np.where(truth > 0, p, 1 - p).min(axis=1)
    else:
        predicted = list(np.array(classes)[p.argmax(axis=1)])
        right, sure = p.argmax(axis=1) == truth, p[np.arange(len(p)), truth]
    return test.assign(predicted=predicted, right=right, p_label=sure)


def confusions(judged: pd.DataFrame, classes: list[str], several: bool) -> list[dict[str, Any]]:
    """One confusion matrix (rows true, columns predicted), or for several labels one of two rows for each label."""
    if not several:
        table = pd.crosstab(judged["label"], judged["predicted"]).reindex(index=classes, columns=classes, fill_value=0)
        return [{"title": "Test pictures", "classes": classes, "counts": table.to_numpy().tolist()}]
    matrices = []
    for name in classes:
        true = judged["label"].map(lambda label, name=name: name in label.split(";")).to_numpy()
        told = (judged[f"p_{name}"] > 0.5).to_numpy()
        counts = [[int((t & p).sum()) for p in (told, ~told)] for t in (true, ~true)]
        matrices.append({"title": name, "classes": [name, f"not {name}"], "counts": counts})
    return matrices


def looked_at(judged: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Hits and misses to look into: the surest hits, the same number of each label, and the worst misses."""
    hits = judged[judged["right"]].sort_values(["p_label", "path"], ascending=[False, True])
    each = max(1, LOOKED_AT // max(1, hits["label"].nunique()))
    hits = hits.groupby("label", sort=True).head(each).sort_values("label", kind="stable").head(LOOKED_AT)
    misses = judged[~judged["right"]].sort_values(["p_label", "path"]).head(LOOKED_AT)
    return hits, misses


def latency_ms(model: keras.Model, picture: NDArray[np.float32]) -> float:
    """Median milliseconds of the compiled model on one picture, after a warm-up."""
    import tensorflow as tf

    compiled = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    single = tf.constant(picture[None])
    for _ in range(3):
        compiled(single)
    seconds = []
    for _ in range(TIMED):
        start = time.perf_counter()
        np.asarray(compiled(single))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds) * 1000)


def heated(picture: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The picture (S, S, 3) with the heat (h, w) in [0, 1] over it, red where it is hottest."""
    import cv2

    size = (picture.shape[1], picture.shape[0])
    warm = cv2.resize(heat, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = cv2.cvtColor(cv2.applyColorMap((warm * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    share = 0.55 * warm[..., None]
    return np.asarray(picture * (1 - share) + colours * share, dtype=np.uint8)


def make_card(folder: Path, features: Path, pictures: Pictures) -> str:
    """The page of the candidate in `folder`, whose backbone is in `features`.

    `pictures(paths, size)` yields (size, size, 3) uint8 RGB in order.
    """
    model_json = json.loads((folder / MODEL).read_text(encoding="utf-8"))
    predictions = pd.read_parquet(folder / "predictions.parquet")
    classes, several = model_json["classes"], bool(model_json.get("several_labels"))
    judged = judge(predictions, classes)
    if judged.empty:
        raise UserError(f"{folder}/predictions.parquet has no test picture: run `dvc repro split`.")
    model = load_candidate(folder, features)
    size = int(model_json["image_size"])
    hits, misses = looked_at(judged)
    shown = pd.concat([hits, misses])
    pixels = np.stack(list(pictures(list(shown["path"]), size)))
    p = shown[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    heat = attention(model, pixels.astype(np.float32), p.argmax(axis=1))
    heats = [
        Picture.of(row, pixels[n] if heat is None else heated(pixels[n], heat[n]))
        for n, row in enumerate(shown.itertuples())
    ]
    worst = judged[~judged["right"]].sort_values(["p_label", "path"]).head(MISTAKES)
    mistakes = zip(worst.itertuples(), pictures(list(worst["path"]), 160), strict=True)
    cost_file = folder / COST
    return render(
        model_json,
        layers=layer_table(model),
        history=pd.read_csv(folder / "history.csv"),
        confusions=confusions(judged, classes, several),
        accuracy={
            split: float(judge(predictions, classes, split)["right"].mean())
            for split in ("train", "validation", "test")
        },
        mistakes=[Picture.of(row, picture) for row, picture in mistakes],
        mistakes_in_all=int((~judged["right"]).sum()),
        test_images=len(judged),
        hits=heats[: len(hits)],
        misses=heats[len(hits) :],
        has_heat=heat is not None,
        cost=json.loads(cost_file.read_text()) if cost_file.is_file() else None,
        megabytes=_megabytes(folder / HEAD_WEIGHTS, features / BACKBONE_WEIGHTS),
        latency=latency_ms(model, pixels[0].astype(np.float32)),
    )


def _megabytes(*paths: Path) -> float:
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6
