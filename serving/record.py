"""What was answered and what people said of it, in one SQLite file of all workers (`serving.state`/record.sqlite).

Answers are written after the client has them, many at a time; a label is on disk before it is acknowledged.
"""

from __future__ import annotations

import json
import queue
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plumbline.common.served import PATIENCE, open_record
from serving import metrics

ROOM = 10_000  # rows that wait to be written


@dataclass(frozen=True)
class Row:
    """An answer to be kept, and with `seen` what was measured of its picture."""

    values: tuple[Any, ...]
    seen: tuple[Any, ...] | None = None


def new_id() -> str:
    """Return a name for an answer that nobody can guess."""
    return uuid.uuid4().hex


class Recorder:
    """Writes answers in a thread of its own, a fifth of a second's worth at a time; what finds no room is counted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: queue.Queue[Row | None] = queue.Queue(ROOM)
        self._thread = threading.Thread(target=self._run, daemon=True, name="record")
        self._thread.start()

    def keep(self, row: Row) -> None:
        """Have a row written soon."""
        try:
            self._queue.put_nowait(row)
        except queue.Full:
            metrics.LOST.inc()

    def close(self) -> None:
        """Write what waits."""
        self._queue.put(None)
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        last = False
        while not last:
            rows = [self._queue.get()]
            time.sleep(0 if rows[0] is None else 0.2)
            while not self._queue.empty():
                rows.append(self._queue.get_nowait())
            last = None in rows
            kept = [row for row in rows if row is not None]
            try:
                self._write(kept)
            except (sqlite3.Error, OSError):  # a full disk: answers go on, and the loss is counted
                metrics.LOST.inc(len(kept))

    def _write(self, rows: list[Row]) -> None:
        if not rows:
            return
        with closing(open_record(self._path)) as database:
            database.execute("begin immediate")
            database.executemany(
                f"insert or ignore into answers values ({', '.join('?' * 11)})", [row.values for row in rows]
            )
            measured = [row.seen for row in rows if row.seen is not None]
            database.executemany(
                "insert or ignore into seen (id, measured, embedding, small) values (?, ?, ?, ?)", measured
            )
            database.execute("commit")


def answer_row(
    identity: str,
    role: str,
    version: int,
    digest: str,
    client: str,
    pixels: str,
    answer: dict[str, Any],
    seen: tuple[Any, ...] | None = None,
) -> Row:
    """Return an answer as the row that is kept of it."""
    values = (
        identity,
        role,
        version,
        digest,
        time.time(),
        client,
        pixels,
        json.dumps(answer["softmax"]),
        ";".join(answer["labels"]),
        answer["confidence"],
        int(answer["unsure"]),
    )
    return Row(values, seen)


class Labels:
    """What people say of answers."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def known(self, identity: str) -> bool:
        """Whether there is an answer of this name; one just given may take a moment to be written."""
        for _ in range(10):
            with closing(open_record(self._path)) as database:
                if database.execute("select 1 from answers where id = ?", (identity,)).fetchone():
                    return True
            time.sleep(0.1)
        return False

    def add(self, identity: str, label: str, by: str) -> int:
        """Keep a label and return its number; it is on the disk when this returns. sqlite3.Error where it can't be."""
        with closing(open_record(self._path)) as database:
            done = database.execute(
                "insert into labels (id, label, at, by) values (?, ?, ?, ?)", (identity, label, time.time(), by)
            )
            return int(done.lastrowid or 0)
