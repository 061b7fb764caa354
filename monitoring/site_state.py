"""What a site has sent and the verdicts on it, on disk.

A run may be killed at any point: nothing is counted twice or lost.

Layout under STATE/SITE::

    pending/0001.npz, 0001.parquet   measured and scored, waiting for their window; the .parquet comes last
    quarantine.csv                   files that could not be read; tried again when they change
    windows/0001/                    one judged window, moved into place as a whole
        images.parquet               a row for each of its images
        result.json                  verdict, reasons, figures
        looks.npz                    of the newest: what drift's eyes saw of some of them, for judging windows together
    statements/0001.json             what a person said of a window: that it is accepted, or no longer
    accepted/0001/                   of a window that was ever accepted: what joins the reference
        images.parquet, looks.npz    a row for each of its images, and what drift's eyes saw of them
    counted/0001.parquet             what is kept of images of older windows, from window 0001 on
    waiting.json                     the last result, where there were too few images

An image is pending until a window holds it; a pending row whose key is in a window is a killed run's leftover. Names
are numbers with leading zeros and, from the ten thousandth on, more than four digits; they are ordered as numbers. Of
a window that is older than `drift.keep_windows`, `counted/` keeps which images it held and their hashes, and its
result.json the verdict, every figure and the sha256 of the images.parquet that went.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from monitoring.acceptance import Statement, in_force, keep_statement, read_statements
from monitoring.collect import File
from monitoring.result import Result
from monitoring.settings import checked_site
from plumbline.common.errors import UserError
from plumbline.common.files import replacing, replacing_folder, write_json, write_table
from plumbline.common.locks import held

if TYPE_CHECKING:
    import pandas as pd

PENDING, WINDOWS, COUNTED = "pending", "windows", "counted"
STATEMENTS, JOINED = "statements", "accepted"
# What is kept of an image for ever, so that it is not counted twice and can be recognised.
LASTING = ("path", "listed", "stamp", "id", "pixels_sha256", "phash", "status")
COUNTED_ROWS = 100_000  # rows of one file in counted/, about 15 MB: retiring a window rewrites no more than that
ARRAYS = ("embeddings", "probabilities", "small")
SEEN = "seen"  # by drift's own eyes: not there where they could not look
LOOKS = "looks.npz"
NEW, AGAIN, REPEAT, COPY = "new", "delivered again", "repeat", "copy of a training image"
QUARANTINE = ("path", "listed", "stamp", "reason", "window")


@dataclass(frozen=True)
class MeasuredImages:
    """Images in order: `table` (path, stamp, id, status, ..., a row each), and by name in ARRAYS their (N, ...).

    SEEN is there, too, where drift's own eyes looked at all of them.
    """

    table: pd.DataFrame
    arrays: dict[str, NDArray[Any]]

    def __len__(self) -> int:
        return len(self.table)

    def take(self, keep: NDArray[np.bool_]) -> MeasuredImages:
        """Return the images marked in `keep` (N,)."""
        return MeasuredImages(
            self.table[keep].reset_index(drop=True), {name: a[keep] for name, a in self.arrays.items()}
        )


@dataclass(frozen=True)
class EarlierLooks:
    """Some images of an earlier window: their rows of images.parquet, what drift's eyes saw (n, E), small greys."""

    table: pd.DataFrame
    seen: NDArray[np.floating]
    small: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.table)


class SiteState:
    """The state of one site."""

    def __init__(self, root: Path, site: str) -> None:
        """Raises UserError where `site` can't be a site's name."""
        self.site = checked_site(site)
        self.root = root / self.site

    @contextmanager
    def locked(self, timeout: float) -> Iterator[None]:
        """Hold the site for one run on this machine; UserError where another holds it for `timeout` seconds more."""
        with held(self.root / ".lock", timeout, f"{self.site} is being judged"):
            yield

    # ------------------------------------------------------------------------------------------------ windows

    def windows(self) -> list[str]:
        """Return the names of the windows judged so far, oldest first."""
        return in_number_order(path.parent.name for path in (self.root / WINDOWS).glob("*/result.json"))

    def whole_windows(self) -> list[str]:
        """Return the names of the windows whose images are still kept with all findings."""
        return in_number_order(path.parent.name for path in (self.root / WINDOWS).glob("*/images.parquet"))

    def result(self, window: str) -> Result:
        """Return a window's result."""
        content = json.loads((self.root / WINDOWS / window / "result.json").read_text(encoding="utf-8"))
        return cast(Result, dict(content))

    def images(self, window: str, columns: list[str] | None = None) -> pd.DataFrame:
        """Return the images of a whole window; UserError where they are gone."""
        import pandas as pd

        try:
            return pd.read_parquet(self._images(window), columns=columns)
        except FileNotFoundError:
            raise UserError(
                f"{self._images(window)} is missing: restore it, or remove the folder around it, and its images are "
                "judged again."
            ) from None

    def _images(self, window: str) -> Path:
        return self.root / WINDOWS / window / "images.parquet"

    def next_window(self) -> str:
        """Return the name of the next window, which no folder has, judged or not."""
        known = in_number_order(path.name for path in (self.root / WINDOWS).glob("*"))
        return f"{int(known[-1]) + 1 if known else 1:04d}"

    def close_window(
        self, window: str, images: pd.DataFrame, result: Result, looks: dict[str, NDArray[Any]] | None = None
    ) -> None:
        """Keep a judged window; from here on its images count.

        `looks` are rows of `images` (`rows`, (n,)) with what drift's eyes saw of them (`seen`, `small`).
        """
        if (self.root / WINDOWS / window).exists():
            raise UserError(f"{self.root / WINDOWS / window} is there already: no window is written over another.")
        with replacing_folder(self.root / WINDOWS / window) as folder:
            images.to_parquet(folder / "images.parquet", index=False)
            write_json(folder / "result.json", result)
            if looks is not None:
                np.savez(folder / LOOKS, **looks)  # type: ignore[arg-type]
        self.forget_pending()

    def looks_before(self, champion: str) -> Iterator[EarlierLooks]:
        """Yield looks of earlier windows, newest first, back to the last that was DRIFT or another champion judged.

        Accepted windows are passed over: they are part of the reference, and no evidence against it.
        """
        accepted = self.accepted()
        for window in reversed(self.whole_windows()):
            result = self.result(window)
            if result["verdict"] == "DRIFT" or result["champion"].get("digest") != champion:
                return
            if window in accepted:
                continue
            if not (self.root / WINDOWS / window / LOOKS).is_file():
                return
            yield self._looks(window)

    def has_looks(self, window: str) -> bool:
        """Whether what drift's eyes saw of a window is kept, in it or since it was accepted before."""
        return any((self.root / place / window / LOOKS).is_file() for place in (JOINED, WINDOWS))

    def _looks(self, window: str) -> EarlierLooks:
        with np.load(self.root / WINDOWS / window / LOOKS, allow_pickle=False) as stored:
            rows, seen, small = (stored[name] for name in ("rows", "seen", "small"))
        return EarlierLooks(self.images(window).iloc[rows].reset_index(drop=True), seen, small)

    def forget_looks(self, keep: int) -> None:
        """Remove what drift's eyes saw of all windows but the newest `keep`, accepted ones among them not counted."""
        known = in_number_order(path.parent.name for path in (self.root / WINDOWS).glob(f"*/{LOOKS}"))
        accepted = self.accepted()
        evidence = [window for window in known if window not in accepted]
        for window in known[: known.index(evidence[-keep])] if len(evidence) > keep else []:
            (self.root / WINDOWS / window / LOOKS).unlink(missing_ok=True)

    # --------------------------------------------------------------------------------------------- accepted windows

    def accepted(self) -> dict[str, Statement]:
        """Return the windows that are accepted, each with what was said of it, the earliest accepted first."""
        return in_force(read_statements(self.root / STATEMENTS))

    def say(self, statement: Statement) -> None:
        """Keep what a person said of a window, after all that was said before."""
        keep_statement(self.root / STATEMENTS, statement)

    def keep_accepted(self, window: str) -> int:
        """Keep what drift's eyes saw of a window apart from it, so that it outlasts it; return how many images.

        What is there is left: a window never changes. Until a statement names the window nothing joins anything.
        """
        if not (self.root / JOINED / window).is_dir():
            looks = self._looks(window)
            with replacing_folder(self.root / JOINED / window) as folder:
                looks.table.to_parquet(folder / "images.parquet", index=False)
                np.savez(folder / LOOKS, seen=looks.seen, small=looks.small)
        return len(self.accepted_looks(window))

    def accepted_looks(self, window: str) -> EarlierLooks:
        """Return what joins the reference of a window that was accepted; UserError where it is gone."""
        import pandas as pd

        home = self.root / JOINED / window
        try:
            with np.load(home / LOOKS, allow_pickle=False) as stored:
                return EarlierLooks(pd.read_parquet(home / "images.parquet"), stored["seen"], stored["small"])
        except FileNotFoundError as error:
            raise UserError(
                f"{error.filename} is missing, of an accepted window: restore it, or run `plumbline drift accept "
                f"--revoke {self.site} {window}`."
            ) from None

    # -------------------------------------------------------------------------------------------------- old windows

    def retire(self, keep: int | None) -> list[str]:
        """Reduce all windows but the newest `keep` (None: all) to what must last; return their names.

        A run may be killed at any step, so what must last is written before anything is removed.
        """
        if keep is None:
            return []
        old = self.whole_windows()[:-keep]
        self._count(old)
        for window in old:
            content = self._images(window).read_bytes()
            result = self.result(window)
            for shown in result.get("furthest") or []:
                shown["picture"] = shown["nearest_picture"] = None
            result["retired"] = {
                "images": len(self.images(window, ["id"])),
                "images.parquet": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)},
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            write_json(self.root / WINDOWS / window / "result.json", result)
            self._images(window).unlink()
        return old

    def _count(self, windows: list[str]) -> None:
        """Add the images of windows to the newest file in counted/, or begin the next; earlier rows stay."""
        import pandas as pd

        files = self._counted_files()
        known = {window for path in files for window in pd.read_parquet(path, columns=["window"])["window"]}
        path, parts, rows = None, [], COUNTED_ROWS
        if files:
            path, parts = files[-1], [pd.read_parquet(files[-1])]
            rows = len(parts[0])
        for window in (name for name in windows if name not in known):
            if rows >= COUNTED_ROWS:
                if path is not None:
                    write_table(path, pd.concat(parts, ignore_index=True))
                path, parts, rows = self.root / COUNTED / f"{window}.parquet", [], 0
            table = self.images(window)
            parts.append(table[[name for name in LASTING if name in table]].assign(window=window))
            rows += len(table)
        if path is not None and not known.issuperset(windows):
            write_table(path, pd.concat(parts, ignore_index=True))

    def _counted_files(self) -> list[Path]:
        folder = self.root / COUNTED
        return [folder / f"{name}.parquet" for name in in_number_order(path.stem for path in folder.glob("*.parquet"))]

    def _counted(self) -> Iterator[pd.DataFrame]:
        """Yield what is kept of the images of older windows, oldest first."""
        import pandas as pd

        for path in self._counted_files():
            yield pd.read_parquet(path)

    # ------------------------------------------------------------------------------------------------ pending

    def pending(self) -> MeasuredImages | None:
        """Return the images that wait for a window, None without any; those already in a window are removed."""
        import pandas as pd

        tables, arrays = [], []
        for path in self._pending_files():
            tables.append(pd.read_parquet(path))
            with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
                arrays.append({name: stored[name] for name in stored.files})
        if not tables:
            return None
        whole = MeasuredImages(pd.concat(tables, ignore_index=True), joined(arrays))
        known = self.whole_windows()
        if known and set(self.images(known[-1], ["key"])["key"]) & set(whole.table["key"]):
            self.forget_pending()  # a run was killed between keeping the window and clearing these
            return None
        return whole

    def add_pending(self, images: MeasuredImages) -> None:
        """Keep measured images until their window is judged."""
        folder = self.root / PENDING
        folder.mkdir(parents=True, exist_ok=True)
        known = self._pending_files()
        number = int(known[-1].stem) + 1 if known else 1
        with replacing(folder / f"{number:04d}.npz") as temporary, temporary.open("wb") as handle:
            np.savez(handle, **images.arrays)  # type: ignore[arg-type]
        write_table(folder / f"{number:04d}.parquet", images.table)

    def _pending_files(self) -> list[Path]:
        folder = self.root / PENDING
        return [folder / f"{name}.parquet" for name in in_number_order(path.stem for path in folder.glob("*.parquet"))]

    def forget_pending(self) -> None:
        """Remove pending images: their window is kept, or another champion must score them again."""
        shutil.rmtree(self.root / PENDING, ignore_errors=True)

    # --------------------------------------------------------------------------------------- what was seen before

    def seen(self, champion: str) -> pd.DataFrame:
        """Return path, listed (bytes), stamp, id, pixels_sha256 and phash of every image counted so far.

        When the champion has changed, the images of the last window are not among them: the new champion judges them
        again, if they are still there.
        """
        import pandas as pd

        names = self.windows()
        if names and self.result(names[-1])["champion"]["digest"] != champion:
            names = names[:-1]
        columns = ["path", "listed", "stamp", "id", "pixels_sha256", "phash"]
        whole, counted = set(self.whole_windows()), list(self._counted())
        kept = {window for table in counted for window in table["window"]}
        parts = [table.loc[~table["window"].isin(whole), columns] for table in counted]
        parts += [self.images(name, columns) for name in names if name in whole or name not in kept]
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

    def wait(self, result: Result) -> None:
        """Keep the last result where there were too few images for a window."""
        write_json(self.root / "waiting.json", result)

    def waiting(self) -> Result | None:
        """Return the last result, None where it made a window or there is none yet."""
        path = self.root / "waiting.json"
        return cast(Result, dict(json.loads(path.read_text(encoding="utf-8")))) if path.is_file() else None

    def unannounced(self) -> list[str]:
        """Return the windows that were not announced yet, oldest first."""
        path = self.root / "announced.json"
        known = set(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else set()
        return [name for name in self.windows() if name not in known]

    def announced(self, windows: list[str]) -> None:
        """Note that these windows, too, were announced."""
        path = self.root / "announced.json"
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        write_json(path, in_number_order({*known, *windows}))

    def wait_no_longer(self) -> None:
        """Forget that result: a window was judged since."""
        (self.root / "waiting.json").unlink(missing_ok=True)


def joined(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return arrays that every part has, each from all parts; at least one part."""
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in shared}


def in_number_order(names: Iterable[str]) -> list[str]:
    """Return the names that are numbers, smallest first; as text 10000 would come before 9999."""
    return sorted((name for name in names if name.isascii() and name.isdigit()), key=lambda name: (int(name), name))


def unseen(files: list[File], *known: pd.DataFrame) -> list[File]:
    """Return the files that are in no table (path, listed, stamp) in their present state."""
    same: set[tuple[str, int, str]] = set()
    for table in known:
        same |= set(zip(table["path"], table["listed"].astype(int), table["stamp"].astype(str), strict=True))
    return [file for file in files if (file.path, file.bytes, file.stamp) not in same]
