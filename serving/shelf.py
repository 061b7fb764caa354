"""The versions that this machine can serve, on its own disk: what a restart needs when the registry is down.

Layout under `serving.state`::

    versions/DIGEST/           what serving needs of a version, each file checked against the version's manifest
    versions/DIGEST/limits.json    how far from the reference its own pictures lie
    roles.json                 which of them is champion, which challenger
"""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.common.files import file_digest, replacing_folder, text_digest, write_json
from plumbline.common.records import Record
from plumbline.common.served import NEIGHBOUR
from plumbline.registry import bundle

SERVING, REFERENCE = f"{bundle.HOME}/serving.json", f"{bundle.HOME}/reference"
EMBEDDINGS, GROUPS = f"{REFERENCE}/embeddings.npy", f"{REFERENCE}/groups.npy"
IMAGES = f"{REFERENCE}/images.parquet"  # of versions that are older than GROUPS
NEEDED = (bundle.ONNX, SERVING, EMBEDDINGS)
LIMITS = "limits.json"
QUANTILES = 1000


class Role(Record):
    """A version that has a part to play."""

    version: int
    digest: str


class Roles(Record):
    """Which versions are served."""

    champion: Role | None = None
    challenger: Role | None = None


class Shelf:
    """The folder `serving.state`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, digest: str) -> Path:
        """Where a version lies, or would."""
        return self.root / "versions" / digest

    @property
    def roles_file(self) -> Path:
        """Which versions are served."""
        return self.root / "roles.json"

    def roles(self) -> Roles:
        """Return the roles as they were last written, none where nothing was; UserError where that can't be read."""
        try:
            return Roles.model_validate_json(self.roles_file.read_bytes())
        except FileNotFoundError:
            return Roles()
        except (OSError, ValueError):
            raise UserError(
                f"{self.roles_file} is damaged, so the last good champion is not known: remove it; it is written anew "
                "from the registry."
            ) from None

    def write_roles(self, roles: Roles) -> None:
        """Replace the roles in one step."""
        write_json(self.roles_file, roles.model_dump())

    def holds(self, digest: str) -> bool:
        """Whether a version lies here whole."""
        try:
            check(self.folder(digest), digest)
        except UserError:
            return False
        return True

    def put(self, source: Path, digest: str) -> None:
        """Copy what serving needs of a version's folder; UserError where any of it is missing or altered."""
        with replacing_folder(self.folder(digest)) as folder:
            groups = GROUPS if (source / GROUPS).is_file() else IMAGES
            for name in (bundle.MANIFEST, *NEEDED, groups):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                try:
                    shutil.copyfile(source / name, folder / name)
                except FileNotFoundError:
                    raise UserError(f"{source / name} is missing: roll back to a version that is whole.") from None
            check(folder, digest)
            write_json(folder / LIMITS, reference_limits(folder))

    def prune(self, keep: set[str], most: int) -> None:
        """Remove all but the versions in `keep` and the newest others, `most` in all."""
        found = sorted(self.root.glob("versions/*"), key=lambda path: -path.stat().st_mtime)
        for path in [path for path in found if path.name not in keep][max(0, most - len(keep)) :]:
            shutil.rmtree(path, ignore_errors=True)

    def touch(self, digest: str) -> None:
        """Note that a version was wanted just now."""
        with suppress(OSError):
            self.folder(digest).touch()


def check(folder: Path, digest: str) -> None:
    """Check what serving needs of a version against its manifest, and that against `digest`; UserError names a file."""
    try:
        text = (folder / bundle.MANIFEST).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        text = ""
    if text_digest(text) != digest:
        raise UserError(f"{folder / bundle.MANIFEST} is missing or was altered: roll back to another version.")
    try:
        listed = {str(name): str(entry["sha256"]) for name, entry in json.loads(text)["files"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        raise UserError(f"{folder / bundle.MANIFEST} lists no files: roll back to another version.") from None
    groups = GROUPS if GROUPS in listed else IMAGES
    for name in (*NEEDED, groups):
        path = folder / name
        if name not in listed:
            raise UserError(f"{folder / bundle.MANIFEST} does not list {name}: roll back to another version.")
        if not path.is_file() or file_digest(path) != listed[name]:
            raise UserError(f"{path} is missing or was altered since it was registered: roll back to another version.")


def reference_limits(folder: Path) -> dict[str, Any]:
    """Return how far reference pictures lie from those of other groups: the quantiles 0 to 1 of that distance."""
    embeddings = unit(np.load(folder / EMBEDDINGS, allow_pickle=False))
    groups = _groups(folder)
    apart = 1 - embeddings @ embeddings.T
    apart[groups[:, None] == groups[None, :]] = np.inf
    nearest = np.sort(apart, axis=1)[:, :NEIGHBOUR]
    known = nearest[:, -1][np.isfinite(nearest[:, -1])]
    steps = np.linspace(0, 1, QUANTILES + 1)
    return {"images": len(known), "quantiles": np.quantile(known, steps).tolist() if len(known) else []}


def _groups(folder: Path) -> NDArray[np.int64]:
    if (folder / GROUPS).is_file():
        return np.asarray(np.load(folder / GROUPS, allow_pickle=False), np.int64)
    try:
        import pyarrow.parquet
    except ImportError:
        raise UserError("This version is older than what is served here: promote its model again.") from None
    names = pyarrow.parquet.read_table(folder / IMAGES, columns=["group"])["group"].to_pylist()
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1].astype(np.int64)


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Return vectors (N, D) brought to length 1; those of length 0 stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
