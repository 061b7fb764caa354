"""The reference: the validation images that are part of the champion's version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitoring.accuracy import calibrated
from monitoring.observations import Observations
from monitoring.result import ChampionOf
from plumbline.common.errors import UserError
from plumbline.imaging.labels import label_classes
from plumbline.registry import bundle
from plumbline.registry.versions import DIGEST_TAG, Version
from plumbline.tasks.known import task_of
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

PLAIN = ("brightness", "contrast", "sharpness", "colourfulness", "warmth", "noise", "blockiness")
SAME_FORMAT = 0.9  # share of JPEGs on both sides above which their bytes can be compared


@dataclass(frozen=True)
class Reference:
    """A version's validation images, and how its scores are read.

    labels: (N,) class numbers; formats: those of the files; thumbnails: small JPEGs, empty where the version has none.
    """

    observations: Observations
    labels: NDArray[np.int64]
    paths: list[str]
    formats: list[str]
    thumbnails: list[bytes]
    classes: list[str]
    violation: str | None
    threshold: float | None
    temperature: float
    task: Task
    champion: ChampionOf

    @property
    def right(self) -> NDArray[np.bool_]:
        """(N,) whether the champion was right."""
        return np.asarray(self.observations.predicted == self.labels)


def load_reference(version: Version) -> Reference:
    """Read the reference of a registered version; UserError where it has none that can be used."""
    import pandas as pd

    home = version.folder / bundle.HOME / "reference"
    images = pd.read_parquet(home / "images.parquet")
    serving = version.read("serving.json")
    classes = [str(name) for name in serving["classes"]]
    stored = images[[f"p_{name}" for name in classes]].to_numpy(np.float64)
    task = task_of(serving)
    known = {name: number for number, name in enumerate(classes)}
    # Of several labels the first counts; shares and accuracy are not estimated for such a champion.
    labels = images["label"].map(lambda label: known.get(label_classes(label)[0], -1)).to_numpy(np.int64)
    if (labels < 0).any():
        raise UserError(f"Version {version.version} has reference images of other classes than its own: promote anew.")
    pictures = home / "thumbnails.parquet"
    return Reference(
        observations=Observations(
            measures_of(images, not any("#" in str(path) for path in images["path"])),
            calibrated(stored, serving["temperature"]) if task.exclusive else stored,
            np.load(home / "embeddings.npy", allow_pickle=False),
            pd.factorize(images["group"])[0].astype(np.int64),
        ),
        labels=labels,
        paths=[str(path) for path in images["path"]],
        formats=[str(name) for name in images["format"]] if "format" in images else [],
        thumbnails=list(pd.read_parquet(pictures)["jpeg"]) if pictures.is_file() else [],
        classes=classes,
        violation=serving["violation_class"],
        threshold=serving["threshold"],
        temperature=float(serving["temperature"] or 1.0),
        task=task,
        champion={
            "version": version.version,
            "candidate": serving["candidate"],
            "digest": version.tags[DIGEST_TAG],
            "weights": serving["weights"],
        },
    )


def measures_of(table: pd.DataFrame, files: bool = True) -> pd.DataFrame:
    """Return the descriptors that are compared, a column each, from manifest columns; those it lacks are left out.

    `aspect` is width / height, `size` the side in pixels of a square of the same area, `bits_per_pixel` how strongly
    the file is compressed (where each picture is a file of its own).
    """
    import pandas as pd

    found = {name: table[name].to_numpy(np.float64) for name in PLAIN if name in table}
    if {"width", "height"} <= set(table.columns):
        width, height = table["width"].to_numpy(np.float64), table["height"].to_numpy(np.float64)
        found |= {"aspect": width / height, "size": np.sqrt(width * height)}
        if files and "bytes" in table:
            found["bits_per_pixel"] = 8 * table["bytes"].to_numpy(np.float64) / (width * height)
    return pd.DataFrame(found)


def comparable(reference: Reference, window: pd.DataFrame, formats: list[str]) -> list[str]:
    """Return the descriptors that both sides have and that mean the same on both."""
    names = [str(name) for name in reference.observations.measures if name in window]
    if not all(
        given and np.mean([one == "JPEG" for one in given]) >= SAME_FORMAT for given in (reference.formats, formats)
    ):
        names = [name for name in names if name != "bits_per_pixel"]
    return names
