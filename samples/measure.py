"""Measure the sample: is it worth learning from, and can nothing but the headgear tell the class?

`python -m samples.measure SAMPLE [--folds N] [--models]` prints, on folds that keep photographs and planted copies
together: logistic regression on 16x16 RGB pixels and on what is not the picture's content (file size, brightness,
contrast, head size, sharpness), the planted truth against a 64-bit pHash, and disk use; with --models also a small CNN
at 96x96 and HelmNet's simple CNN at 200x200 as the study ran it. Accuracies are against the published labels (of which
a few are planted wrong) and, second, against the true ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plumbline.common.errors import UserError, run
from plumbline.common.progress import progress
from samples.camera import Pixels, decode
from samples.solids import Floats

if TYPE_CHECKING:
    import pandas as pd

Labels = NDArray[np.int64]
Predict = Callable[[Floats, Labels, Floats], Labels]
BROKEN = ("truncated", "not_an_image")


@dataclass(frozen=True)
class Sample:
    """Every readable labelled picture (N, 200, 200, 3), published and true labels (N,), and the truth's rows."""

    pictures: Pixels
    published: Labels
    true: Labels
    truth: pd.DataFrame


def load(root: Path) -> Sample:
    """Read the labelled pictures of a drawn sample; UserError where there is none."""
    import pandas as pd

    if not (root / "truth.csv").is_file():
        raise UserError(f"{root}/truth.csv is missing: draw a sample there with 'python -m samples.draw {root}'.")
    truth = pd.read_csv(root / "truth.csv", keep_default_na=False)
    truth = truth[(truth["batch"] == "data") & ~truth["kind"].isin(BROKEN)].reset_index(drop=True)
    files = [root / "data" / path for path in truth["path"]]
    pixels = [Image.fromarray(decode(file.read_bytes())).resize((200, 200)) for file in files]
    truth["bytes"] = [file.stat().st_size for file in files]
    published = (truth["published_label"] == "with_helmet").to_numpy().astype(np.int64)
    true = (truth["label"] == "with_helmet").to_numpy().astype(np.int64)
    return Sample(np.stack([np.asarray(image) for image in pixels]), published, true, truth)


def shrunk(pictures: Pixels, side: int) -> Floats:
    """Return pictures (N, side, side, 3) in 0..1."""
    small = [np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BOX)) for picture in pictures]
    return np.stack(small).astype(np.float32) / 255


def circumstances(sample: Sample) -> Floats:
    """Return what is not content (N, 5): file size, brightness, contrast, head size, sharpness."""
    grey = sample.pictures.astype(np.float32).mean(axis=3)
    sharp = np.abs(np.diff(grey, axis=1)).mean(axis=(1, 2))
    columns = [sample.truth["bytes"], grey.mean(axis=(1, 2)), grey.std(axis=(1, 2)), sample.truth["head_px"], sharp]
    return np.stack([np.asarray(column, dtype=float) for column in columns], axis=1)


def cross_validated(x: Floats, sample: Sample, predict: Predict, folds: int) -> tuple[float, float, float]:
    """Return accuracy against published and true labels and seconds a fold, on the first `folds` of five."""
    from sklearn.model_selection import GroupKFold

    splitter = GroupKFold(n_splits=5, shuffle=True, random_state=0)
    parts = list(splitter.split(x, sample.published, sample.truth["group"]))[:folds]
    started, right, right_true, tested = time.perf_counter(), 0, 0, 0
    for train, test in parts:
        predicted = predict(x[train], sample.published[train], x[test])
        right += int((predicted == sample.published[test]).sum())
        right_true += int((predicted == sample.true[test]).sum())
        tested += len(test)
    return right / tested, right_true / tested, (time.perf_counter() - started) / len(parts)


def regression(x: Floats, y: Labels, unseen: Floats) -> Labels:
    """Standardised logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    flat = x.reshape(len(x), -1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, C=0.01 if flat.shape[1] > 20 else 1.0))
    predicted: Labels = model.fit(flat, y).predict(unseen.reshape(len(unseen), -1))
    return predicted


def small_cnn(x: Floats, y: Labels, unseen: Floats) -> Labels:
    """Four blocks of convolution, batch-norm and ReLU at 96x96, mean and max pooled; mirrored half of the time."""
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((96, 96, 3))
    flow = keras.layers.RandomFlip("horizontal")(inputs)
    for filters in (32, 64, 128, 128):
        flow = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(flow)
        # Pooled first: a quarter of the values to normalise.
        flow = keras.layers.BatchNormalization(momentum=0.9)(keras.layers.MaxPooling2D()(flow))
        flow = keras.layers.ReLU()(flow)
    pooled = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling2D()(flow), keras.layers.GlobalMaxPooling2D()(flow)]
    )
    output = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Dropout(0.5)(pooled))
    model = keras.Model(inputs, output)
    epochs, batch = 30, 32
    rate = keras.optimizers.schedules.CosineDecay(1e-3, epochs * -(-len(x) // batch))
    return _fitted(model, keras.optimizers.AdamW(rate, weight_decay=1e-3), x, y, unseen, epochs, batch)


def simple_cnn(x: Floats, y: Labels, unseen: Floats) -> Labels:
    """HelmNet's first model (SYSTEMS.md A1): 413,257 parameters, Adam 1e-3, 20 epochs, batches of 128."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((200, 200, 3)),
            layers.Conv2D(32, 3, activation="relu", padding="same"), layers.MaxPooling2D(4, padding="same"),
            layers.Conv2D(64, 3, activation="relu", padding="same"), layers.MaxPooling2D(2, padding="same"),
            layers.Conv2D(128, 3, activation="relu", padding="same"),
            layers.Flatten(), layers.Dense(4, activation="relu"), layers.Dense(1, activation="sigmoid"),
        ]
    )  # fmt: skip
    return _fitted(model, keras.optimizers.Adam(1e-3), x, y, unseen, 20, 128)


def _fitted(model: Any, optimizer: Any, x: Floats, y: Labels, unseen: Floats, epochs: int, batch: int) -> Labels:
    model.compile(optimizer, "binary_crossentropy")
    model.fit(x, y, epochs=epochs, batch_size=batch, verbose=0)
    predicted: Labels = (model.predict(unseen, verbose=0)[:, 0] > 0.5).astype(np.int64)
    return predicted


def phash_pairs(sample: Sample, radius: int = 10) -> tuple[int, int, int, int]:
    """Return, at pHash distance `radius`: planted copies found and in all, pairs within and between groups."""
    import imagehash

    bits = np.stack([imagehash.phash(Image.fromarray(picture)).hash.ravel() for picture in sample.pictures])
    near = (bits[:, None] != bits[None]).sum(axis=2) <= radius
    row = {path: k for k, path in enumerate(sample.truth["path"])}
    copies = [(k, row[of]) for k, of in enumerate(sample.truth["copy_of"]) if of]
    group = sample.truth["group"].to_numpy()
    upper = np.triu(near, 1)
    within = upper & (group[:, None] == group[None])
    return sum(bool(near[a, b]) for a, b in copies), len(copies), int(within.sum()), int(upper.sum() - within.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("sample", type=Path, help="folder that samples.draw filled")
    parser.add_argument("--folds", type=int, default=5, choices=range(1, 6))
    parser.add_argument("--models", action="store_true", help="train the two networks as well")
    arguments = parser.parse_args()
    sample = load(arguments.sample)
    size = sum(file.stat().st_size for file in arguments.sample.rglob("*") if file.is_file())
    counts = sample.truth["published_label"].value_counts().to_dict()
    print(f"{len(sample.true)} readable labelled pictures {counts}, {sample.truth['group'].nunique()} groups")
    print(f"{(sample.published != sample.true).sum()} wrong labels; {size / 1e6:.2f} MB in all")
    found, planted, within, between = phash_pairs(sample)
    print(f"pHash at 10: {found} of {planted} copies; {within} pairs within groups, {between} between")
    judged: list[tuple[str, Callable[[], Floats], Predict]] = [
        ("logistic regression, file size, light, sharpness, head size", lambda: circumstances(sample), regression),
        ("logistic regression, 16x16 pixels", lambda: shrunk(sample.pictures, 16), regression),
    ]
    if arguments.models:
        judged += [
            ("small CNN, 96x96", lambda: shrunk(sample.pictures, 96), small_cnn),
            ("HelmNet simple_cnn, 200x200", lambda: shrunk(sample.pictures, 200), simple_cnn),
        ]
    for name, features, predict in progress(judged, "measuring", unit="model"):
        published, true, seconds = cross_validated(features(), sample, predict, arguments.folds)
        print(f"{name}: {published:.3f} (true labels {true:.3f}), {seconds:.1f} s a fold", flush=True)


if __name__ == "__main__":
    run(main)
