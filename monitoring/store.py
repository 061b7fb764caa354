"""What a site has sent and what was said of it, on disk; whatever is killed when, nothing is counted twice or lost.

Layout under STATE/SITE::

    pending/0001.npz, 0001.parquet   measured and scored, waiting for their window; the .parquet is written last
    quarantine.csv                   what could not be read; looked at again when the file changes
    windows/0001/                    one judged window, renamed into place whole
        images.parquet               a row for each image of it
        result.json                  verdict, reasons, figures
    waiting.json                     what the last look found, where it was no window

An image is pending until a window holds it: a pending row whose key a window has is what a killed run did not clear.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from monitoring.collect import File
from plumbline.common.errors import UserError
from plumbline.common.files import replacing, replacing_folder, write_json, write_table

if TYPE_CHECKING:
    import pandas as pd

PENDING, WINDOWS = "pending", "windows"
ARRAYS = ("embeddings", "probabilities", "small")
NEW, AGAIN, REPEAT, COPY = "new", "delivered again", "repeat", "copy of a training image"
QUARANTINE = ("path", "listed", "stamp", "reason", "window")


@dataclass(frozen=True)
class Batch:
    """Images in order: `table` (path, stamp, id, status, ..., a row each), and by name in ARRAYS their (N, ...)."""

    table: pd.DataFrame
    arrays: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.table)

    def take(self, keep: NDArray[np.bool_]) -> Batch:
        """Return the images marked in `keep` (N,)."""
        return Batch(self.table[keep].reset_index(drop=True), {name: a[keep] for name, a in self.arrays.items()})


class Store:
    """The state of one site."""

    def __init__(self, root: Path, site: str) -> None:
        self.root = root / site
        self.site = site

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the site for one run on this machine; the kernel frees it if we are killed."""
        from filelock import FileLock, Timeout

        self.root.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.root / ".lock", timeout=0):
                yield
        except Timeout:
            raise UserError(f"{self.site} is being judged by another run already: wait for it to end.") from None

    # ------------------------------------------------------------------------------------------------ windows

    def windows(self) -> list[str]:
        """Return the names of the windows judged so far, oldest first."""
        return sorted(path.parent.name for path in (self.root / WINDOWS).glob("*/result.json"))

    def result(self, window: str) -> dict[str, Any]:
        """Return what was said of a window."""
        return dict(json.loads((self.root / WINDOWS / window / "result.json").read_text(encoding="utf-8")))

    def images(self, window: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Return the images of a window."""
        import pandas as pd

        return pd.read_parquet(self.root / WINDOWS / window / "images.parquet", columns=columns)

    def next_window(self) -> str:
        """Return the name of the window that comes next."""
        known = self.windows()
        return f"{int(known[-1]) + 1 if known else 1:04d}"

    def close_window(self, window: str, images: pd.DataFrame, result: dict[str, Any]) -> None:
        """Keep a judged window: from here on its images are counted."""
        with replacing_folder(self.root / WINDOWS / window) as folder:
            images.to_parquet(folder / "images.parquet", index=False)
            write_json(folder / "result.json", result)
        self.forget_pending()

    # ------------------------------------------------------------------------------------------------ pending

    def pending(self) -> Batch | None:
        """Return what waits for its window, None where nothing does; what a window has already is cleared away."""
        import pandas as pd

        tables, arrays = [], []
        for path in sorted((self.root / PENDING).glob("*.parquet")):
            tables.append(pd.read_parquet(path))
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
                arrays.append({name: stored[name] for name in ARRAYS})
        if not tables:
            return None
        whole = Batch(
            pd.concat(tables, ignore_index=True),
            {name: np.concatenate([one[name] for one in arrays]) for name in ARRAYS},
        )
        known = self.windows()
        if known and set(self.images(known[-1], ["key"])["key"]) & set(whole.table["key"]):
            self.forget_pending()  # a run was killed between keeping the window and clearing these
            return None
        return whole

    def add_pending(self, batch: Batch) -> None:
        """Keep measured images until their window is judged."""
        folder = self.root / PENDING
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.parquet"))) + 1
        with replacing(folder / f"{number:04d}.npz") as temporary, temporary.open("wb") as handle:
            np.savez(handle, **batch.arrays)  # type: ignore[arg-type]
        write_table(folder / f"{number:04d}.parquet", batch.table)

    def forget_pending(self) -> None:
        """Clear what waits: its window is kept, or it is to be scored again by another champion."""
        shutil.rmtree(self.root / PENDING, ignore_errors=True)

    # --------------------------------------------------------------------------------------- what was seen before

    def seen(self, champion: str) -> pd.DataFrame:
        """Return path, listed (bytes), stamp, id, pixels_sha256 and phash of every image counted so far.

        When the champion has changed, the images of the last window are not among them: they are looked at again, as
        the new one sees them, if they are still there.
        """
        import pandas as pd

        names = self.windows()
        if names and self.result(names[-1])["champion"]["digest"] != champion:
            names = names[:-1]
        columns = ["path", "listed", "stamp", "id", "pixels_sha256", "phash"]
        parts = [self.images(name, columns) for name in names]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def quarantine(self) -> pd.DataFrame:
        """Return the files that could not be read when they were last looked at."""
        import pandas as pd

        path = self.root / "quarantine.csv"
        if not path.is_file():
            return pd.DataFrame(columns=list(QUARANTINE))
        return pd.read_csv(path, dtype=dict.fromkeys(QUARANTINE, str) | {"listed": "int64"}, keep_default_na=False)

    def keep_quarantine(self, table: pd.DataFrame) -> None:
        """Replace the list of unreadable files."""
        write_table(self.root / "quarantine.csv", table[list(QUARANTINE)])

    def wait(self, result: dict[str, Any]) -> None:
        """Keep what the last look found where it was no window."""
        write_json(self.root / "waiting.json", result)

    def waiting(self) -> dict[str, Any] | None:
        """Return what the last look found, None where it made a window or nothing was looked at yet."""
        path = self.root / "waiting.json"
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None

    def unannounced(self) -> list[str]:
        """Return the windows that nobody was told of, oldest first."""
        told = self._told()
        return [name for name in self.windows() if name not in told]

    def announced(self, window: str) -> None:
        """Note that people were told of a window."""
        write_json(self.root / "announced.json", sorted({*self._told(), window}))

    def _told(self) -> set[str]:
        path = self.root / "announced.json"
        return set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()

    def wait_no_longer(self) -> None:
        """Forget it: a window was judged since."""
        (self.root / "waiting.json").unlink(missing_ok=True)


def unseen(files: list[File], *known: pd.DataFrame) -> list[File]:
    """Return the files that no table (path, listed, stamp) knows as they are now."""
    same: set[tuple[str, int, str]] = set()
    for table in known:
        same |= set(zip(table["path"], table["listed"].astype(int), table["stamp"].astype(str), strict=True))
    return [file for file in files if (file.path, file.bytes, file.stamp) not in same]
