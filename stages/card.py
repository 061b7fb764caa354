"""Stage `card@CANDIDATE`: all that is known about one candidate, as one page that needs no other file.

Reads build/candidates/NAME, its features' backbone and the pictures, writes reports/candidates/NAME.html.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.errors import UserError, run
from common.files import write_text
from common.params import load_section
from imaging.labels import SEVERAL, label_classes
from models.anatomy import attention, layer_table
from models.assemble import HEAD_WEIGHTS, MODEL, load_candidate
from models.features import BACKBONE_WEIGHTS
from models.training import targets_of
from stages.cards.render import Picture, render
from stages.train import COST

if TYPE_CHECKING:
    import keras

CANDIDATES = Path("build/candidates")
FEATURES = Path("build/features")
REPORTS = Path("reports/candidates")
MISTAKES = 12
LOOKED_AT = 6
TIMED = 20
Pictures = Callable[[list[str], int], Iterable[NDArray[np.uint8]]]


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
        predicted = [SEVERAL.join(np.array(classes)[row]) or "nothing" for row in told]
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
        true = judged["label"].map(lambda label, name=name: name in label_classes(label)).to_numpy()
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


def main() -> None:
    """Write reports/candidates/NAME.html."""
    from imaging.collection import DataParams, iter_rgb

    name = sys.argv[1]
    data = load_section("data", DataParams)
    model = json.loads((CANDIDATES / name / MODEL).read_text(encoding="utf-8"))
    page = make_card(
        CANDIDATES / name,
        FEATURES / model["backbone"],
        lambda paths, size: iter_rgb(data, paths, (size, size)),
    )
    write_text(REPORTS / f"{name}.html", page)


if __name__ == "__main__":
    run(main)
