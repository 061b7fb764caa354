"""The reference: the images that are part of the champion's version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitoring.accuracy import calibrated
from monitoring.looks import Known, Looks
from monitoring.observations import Observations
from monitoring.result import ChampionOf
from plumbline.common.errors import UserError
from plumbline.imaging.labels import label_classes
from plumbline.registry import bundle
from plumbline.registry.eyes import EyesRecord, read_eyes
from plumbline.registry.versions import DIGEST_TAG, Version
from plumbline.tasks.known import task_of
from plumbline.tasks.task import Task

if TYPE_CHECKING:
    import pandas as pd

PLAIN = ("brightness", "contrast", "sharpness", "colourfulness", "warmth", "noise", "blockiness")
SAME_FORMAT = 0.9  # share of JPEGs on both sides above which their bytes can be compared


@dataclass(frozen=True)
class Reference:
    """A version's images that the champion did not train on, and how its scores are read.

    through_eyes: these and images that it did train on, as drift's own eyes see them; None in a version without eyes.
    labels: (N,) class numbers; ids: of the pixels, as in the manifest; formats: those of the files; thumbnails: small
    JPEGs, empty where the version has none.
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
    through_eyes: Known | None = None
    eyes: EyesRecord | None = None
    ids: tuple[str, ...] = ()

    @property
    def eyes_network(self) -> str:
        """The network that drift's own eyes are."""
        return self.eyes.network if self.eyes else ""

    @property
    def through_champion(self) -> Known:
        """What the images that the champion did not train on look like to the champion's own network."""
        known = self.observations
        return Known(Looks(known.measures, known.embeddings, None, known.groups), self.labels)

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
    labels = label_numbers(images, classes)
    if (labels < 0).any():
        raise UserError(f"Version {version.version} has reference images of other classes than its own: promote anew.")
    pictures = home / "thumbnails.parquet"
    return Reference(
        observations=Observations(
            _measures(images),
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
        through_eyes=_through_eyes(home, classes),
        eyes=read_eyes(home),
        ids=tuple(str(one) for one in images["id"]),
    )


def _through_eyes(home: Path, classes: list[str]) -> Known | None:
    import pandas as pd

    if not (home / "pool_seen.npy").is_file():
        return None
    images = pd.read_parquet(home / "pool.parquet")
    seen, small = (np.load(home / f"pool_{name}.npy", allow_pickle=False) for name in ("seen", "small"))
    groups = pd.factorize(images["group"])[0].astype(np.int64)
    return Known(Looks(_measures(images), seen, small, groups), label_numbers(images, classes))


def eyes_called(eyes: EyesRecord) -> str:
    """Return what drift's eyes are, so that two versions whose eyes see the same call them the same.

    The same network with the same weights sees the same whether a version brings it or the champion is it.
    """
    seen_by = f"sha256 {eyes.sha256}" if eyes.sha256 else eyes.through
    return f"{eyes.network}, {eyes.origin} weights, {eyes.image_size} pixels, {seen_by}"


def with_accepted(reference: Reference, accepted: Sequence[Looks], different: Sequence[bool]) -> Reference:
    """Return `reference` with what accepted windows look like beside the data set's pictures.

    Args:
        different: of each window whether it was DRIFT, and so is of a kind of its own.

    The champion's scores are not joined: they are compared with pictures of known class that it did not train on.
    """
    import pandas as pd

    known = reference.through_eyes
    if known is None or not accepted:
        return reference
    every = [known.looks, *accepted]
    shifts = np.cumsum([0, *(int(one.groups.max()) + 1 for one in every[:-1])])
    small = [one.small for one in every if one.small is not None]
    looks = Looks(
        pd.concat([one.measures for one in every], join="inner", ignore_index=True),
        np.concatenate([one.seen for one in every]),
        np.concatenate(small) if len(small) == len(every) else None,
        np.concatenate([one.groups + shift for one, shift in zip(every, shifts, strict=True)]),
    )
    numbers = np.where(different, np.cumsum(different), -1)
    parts = [np.full(len(one), number, np.int64) for one, number in zip(accepted, numbers, strict=True)]
    return replace(
        reference,
        through_eyes=Known(
            looks,
            np.concatenate([known.labels, np.full(len(looks) - len(known.looks), -1, np.int64)]),
            np.concatenate([np.zeros(len(known.looks), np.int64), *parts]) if any(different) else None,
        ),
    )


def label_numbers(images: pd.DataFrame, classes: list[str]) -> NDArray[np.int64]:
    """Return (N,) class numbers of the column label, -1 where it is none of `classes`.

    Of several labels the first counts; shares and accuracy are not estimated for such a champion.
    """
    known = {name: number for number, name in enumerate(classes)}
    return images["label"].map(lambda label: known.get(label_classes(label)[0], -1)).to_numpy(np.int64)


def _measures(images: pd.DataFrame) -> pd.DataFrame:
    return measures_of(images, not any("#" in str(path) for path in images["path"]))


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
    if not all(are_jpegs(given) for given in (reference.formats, formats)):
        names = [name for name in names if name != "bits_per_pixel"]
    return names


def are_jpegs(formats: Sequence[str]) -> bool:
    """Whether nearly all files are JPEGs, so that their bytes say how strongly they are compressed."""
    return bool(formats) and float(np.mean([one == "JPEG" for one in formats])) >= SAME_FORMAT
