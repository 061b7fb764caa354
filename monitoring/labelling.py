"""The images of a window to label first, in a folder that a person fills in and flows/intake.py takes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monitoring.collect import TO_LABEL, FetchError, Source
from monitoring.observations import Floats
from monitoring.result import ChampionOf
from plumbline.common.files import replacing_folder, write_json, write_table, write_text

if TYPE_CHECKING:
    import pandas as pd

LABELS = "labels.csv"
TASKS = "label_studio.json"
CONFIG = "label_studio.xml"
# Any other column would come back with the labelled image and be taken for metadata.
CARRIED = ("photo", "video", "person", "camera", "captured_at")


def drawn_evenly(groups: NDArray[np.int64], most: int, seed: Sequence[int]) -> NDArray[np.intp]:
    """Return rows drawn at random, in random order: `most`, or as many as half the groups (N,) where that is less.

    Each image is as likely as any other. A systematic sample of images laid out group by group in random order (Madow
    1949): a group has no second image drawn while it is smaller than the step. Half the groups, because the others
    are for `choose`.
    """
    random = np.random.default_rng(seed)
    names, codes = np.unique(groups, return_inverse=True)
    count = min(most, len(names) // 2)
    if not count:
        return np.array([], np.intp)
    laid_out = np.lexsort((random.permutation(len(groups)), random.permutation(len(names))[codes]))
    step = len(groups) / count
    places = (random.uniform(0, step) + step * np.arange(count)).astype(np.intp)
    return np.asarray(random.permutation(laid_out[np.minimum(places, len(groups) - 1)]))


def choose(
    confidence: Floats,
    distance: Floats,
    embeddings: Floats,
    groups: NDArray[np.int64],
    most: int,
    taken: Sequence[int] = (),
) -> NDArray[np.intp]:
    """Return the rows to label first: uncertain, far from the reference, unlike each other, one a group.

    Groups that have a row in `taken` are passed over. An image's worth is the mean of its ranks by low `confidence`
    (N,) and by `distance` (N,); each choice is the image with the greatest worth times its cosine distance to the
    nearest one chosen before (Sener and Savarese 2018, "Active learning for convolutional neural networks: a core-set
    approach", weighted).
    """
    worth = (_ranks(-confidence) + _ranks(distance)) / 2
    vectors = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    apart = np.ones(len(worth))
    free = ~np.isin(groups, groups[np.asarray(taken, np.intp)])
    chosen: list[int] = []
    while free.any() and len(chosen) < most:
        best = int(np.where(free, worth * apart, -1.0).argmax())
        chosen.append(best)
        free &= groups != groups[best]
        apart = np.minimum(apart, np.maximum(1 - vectors @ vectors[best], 1e-6))
    return np.array(chosen, np.intp)


def _ranks(values: Floats) -> Floats:
    return (np.argsort(np.argsort(values, kind="stable")) + 1) / len(values)


def write_to_label(
    source: Source, site: str, window: str, images: pd.DataFrame, classes: list[str], champion: ChampionOf
) -> Path | None:
    """Write TO_LABEL/WINDOW with the pictures `images` (path, predicted, confidence, ...), in their order.

    `labels.csv` (path, label to fill in, and what is known of the picture) makes the folder a batch for
    `plumbline intake`; `label_studio.json` and `.xml` are for Label Studio, with the champion's guess, and its
    export comes back the same way. Returns the folder, None where the pictures are gone. A folder that is there already
    is left alone: somebody may have begun to fill it.
    """
    import pandas as pd

    home = Path(source.root) if source.is_local else Path("incoming") / site
    home = home.relative_to(Path.cwd()) if home.is_relative_to(Path.cwd()) else home
    folder = home / TO_LABEL / window
    if folder.exists():
        return folder
    rows, tasks = [], []
    with replacing_folder(folder) as temporary:
        for _, image in images.iterrows():
            try:
                content = source.read(str(image["path"]))
            except FetchError:
                continue
            name = _name(str(image["path"]), str(image["id"]))
            (temporary / name).write_bytes(content)
            known = {column: image[column] for column in CARRIED if isinstance(image.get(column), str)}
            rows.append({"path": name, "label": "", **known, "site": site})
            tasks.append(_task(name, known | {"site": site}, image, champion))
        if rows:
            write_table(temporary / LABELS, pd.DataFrame(rows))
            write_json(temporary / TASKS, tasks)
            write_text(temporary / CONFIG, _config(classes))
    if not rows:
        folder.rmdir()
        return None
    return folder


def _name(path: str, digest: str) -> str:
    """A unique name without folders."""
    pure = PurePosixPath(path)
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", "_".join(pure.with_suffix("").parts)).strip("._") or "picture"
    return f"{stem[-60:]}-{digest[:8]}{pure.suffix.lower()}"


def _task(name: str, known: dict[str, str], image: Any, champion: ChampionOf) -> dict[str, object]:
    choice = {"choices": [str(image["predicted"])]}
    result = {"from_name": "label", "to_name": "image", "type": "choices", "value": choice}
    guess = {
        "model_version": f"plumbline {champion['version']}",
        "score": round(float(image["confidence"]), 4),
        "result": [result],
    }
    return {"data": {"image": f"/data/local-files/?d={name}", **known}, "predictions": [guess]}


def _config(classes: list[str]) -> str:
    from xml.sax.saxutils import quoteattr

    choices = "".join(f"\n    <Choice value={quoteattr(name)}/>" for name in classes)
    return (
        f'<View>\n  <Image name="image" value="$image"/>\n  <Choices name="label" toName="image" choice="single">'
        f"{choices}\n  </Choices>\n</View>\n"
    )
