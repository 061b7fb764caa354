"""Compare the champion with a challenger, on pictures that neither was trained on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from plumbline.common.errors import UserError
from plumbline.models.export import OnnxModel
from plumbline.registry import bundle
from plumbline.registry.chosen import Chosen, Pictures, Promotable, fitted, with_pixels
from plumbline.registry.versions import Version


@dataclass(frozen=True)
class Pair:
    """The same `images` (path, id, label, group, a row each) as the champion (`old`) and its challenger answer them."""

    images: pd.DataFrame
    old: pd.DataFrame
    new: pd.DataFrame


LEARNT_FROM = ("train", "validation")
"""Validation counts as seen: it stopped the training and chose the threshold and the candidate."""


def unseen_pictures(chosen: Promotable, champion: Version) -> pd.DataFrame:
    """Return the challenger's test images (path, id, label, group) that the champion did not learn from either.

    A whole group is left out if the champion learnt from one of its images (the same bytes or pixels), because the
    others are near-duplicates.
    """
    theirs = pd.read_parquet(champion.folder / bundle.HOME / "splits.parquet")
    theirs = theirs[theirs["split"].isin(LEARNT_FROM)]
    ours = with_pixels(chosen.splits, chosen.manifest)
    known = ours["id"].isin(theirs["id"])
    if "pixels_sha256" in theirs and "pixels_sha256" in ours:
        known |= ours["pixels_sha256"].isin(theirs["pixels_sha256"].dropna())
    learnt = set(ours.loc[known, "group"])
    test = ours[(ours["split"] == "test") & ~ours["group"].isin(learnt)]
    return test[["path", "id", "label", "group"]].sort_values("path", ignore_index=True)


def champion_predictions(champion: Version, images: pd.DataFrame, pictures: Pictures, batch_size: int) -> pd.DataFrame:
    """Return `images` (path, ..., one row each) with the champion's p_CLASS, scored as it is served: ONNX on pixels."""
    serving = champion.read("serving.json")
    return scored(champion.onnx, images, serving["classes"], pictures, batch_size)


def scored(onnx: Any, images: pd.DataFrame, classes: list[str], pictures: Pictures, batch_size: int) -> pd.DataFrame:
    """Return `images` with columns p_CLASS as the ONNX file `onnx` scores them."""
    model = OnnxModel(onnx)
    probabilities, _ = model.score(fitted(pictures, model.fit)(list(images["path"]), model.image_size), batch_size)
    return images.assign(**{f"p_{label}": probabilities[:, place] for place, label in enumerate(classes)})


def paired_predictions(chosen: Chosen, folder: Path, champion: Version, pictures: Pictures, batch_size: int) -> Pair:
    """Return champion's and challenger's scores of the same unseen images; the challenger's version lies in `folder`.

    Raises UserError if the two know different classes, or if no image is unseen by both.
    """
    images = comparable(chosen, champion)
    old = champion_predictions(champion, images, pictures, batch_size)
    return Pair(images, old, scored(folder / bundle.ONNX, images, chosen.classes, pictures, batch_size))


def comparable(chosen: Promotable, champion: Version) -> pd.DataFrame:
    """Return the images on which the two can be compared; UserError where they can't be."""
    classes = champion.read("serving.json")["classes"]
    if classes != chosen.classes:
        raise UserError(
            f"{chosen.name} tells {', '.join(chosen.classes)} apart, champion version {champion.version} "
            f"{', '.join(classes)}: they can't be compared; promote with --force --reason TEXT."
        )
    images = unseen_pictures(chosen, champion)
    if images.empty:
        raise UserError(
            f"Champion version {champion.version} learnt from every group of the present test set: add labelled images "
            "that it never saw, or promote with --force --reason TEXT."
        )
    return images
