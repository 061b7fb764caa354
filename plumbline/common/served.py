"""What was answered at a site and what people said of it: one SQLite file, written by `serving`, read by monitoring.

Tables: `answers` (a row for each answer and role), `seen` (of pictures whose descriptors may be kept: what monitoring
measures, embedding, small grey), `labels` (in the order they came). The view `last_labels` is the one rule for answers
that were labelled more than once: the last label counts, in the place of the first.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from plumbline.common.params import Section
from plumbline.common.wilson import wilson

RECORD = "record.sqlite"
SCHEMA = """
create table if not exists answers (
    id text not null, role text not null, version integer not null, digest text not null, at real not null,
    client text not null, pixels text not null, probabilities text not null, label text not null,
    confidence real not null, unsure integer not null, primary key (id, role)
) without rowid;
create index if not exists answers_at on answers (at);
create table if not exists seen (id text primary key, measured text not null, embedding blob not null,
    small blob not null, collected integer not null default 0) without rowid;
create table if not exists labels (
    number integer primary key autoincrement, id text not null, label text not null, at real not null, by text not null
);
create index if not exists labels_id on labels (id);
create view if not exists last_labels as
    select id, label, (select min(number) from labels where id = l.id) as first from labels l
    where number = (select max(number) from labels where id = l.id);
"""
PATIENCE = 10.0
CHAMPION, CHALLENGER = "champion", "challenger"
# A picture is as far away as the third nearest of the reference: one odd picture there vouches for nobody. It is near
# where this share of the reference's own pictures is.
NEIGHBOUR, KNOWN_SHARE = 3, 0.99
SMALL_SHAPE = (18, 24)


class ServedAs(Section):
    """What others read of the section `serving`: where the record is, and as which site it is judged."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: Path = Path("served")
    site: str = "served"

    @property
    def record(self) -> Path:
        """The record's file."""
        return self.state / RECORD


def open_record(path: Path) -> sqlite3.Connection:
    """Open the record, making it where there is none. A commit is on the disk when it returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    database = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
    database.execute("pragma journal_mode = wal")
    database.execute("pragma synchronous = full")
    database.executescript(SCHEMA)
    return database


@dataclass(frozen=True)
class Seen:
    """Pictures that were answered and not collected yet: their rows, and what belongs to each, in the same order."""

    ids: list[str]
    rows: list[dict[str, Any]]
    digests: list[str]
    probabilities: NDArray[np.float32]
    embeddings: list[NDArray[np.float32]]
    small: NDArray[np.uint8]


def uncollected(path: Path, most: int) -> Seen:
    """Return up to `most` pictures that monitoring has not taken yet, in the order they were answered."""
    question = """
        select s.id, s.measured, s.embedding, s.small, a.digest, a.probabilities from seen s
        join answers a on a.id = s.id and a.role = ? where s.collected = 0 order by a.at, s.id limit ?
    """
    with closing(open_record(path)) as database:
        found = database.execute(question, (CHAMPION, most)).fetchall()
    return Seen(
        ids=[row[0] for row in found],
        rows=[json.loads(row[1]) for row in found],
        digests=[row[4] for row in found],
        probabilities=np.array([list(json.loads(row[5]).values()) for row in found], np.float32),
        embeddings=[np.frombuffer(row[2], "<f4") for row in found],
        small=np.array([np.frombuffer(row[3], np.uint8).reshape(SMALL_SHAPE) for row in found], np.uint8),
    )


def mark_collected(path: Path, ids: list[str]) -> None:
    """Note that monitoring has these pictures."""
    with closing(open_record(path)) as database:
        database.execute("begin immediate")
        database.executemany("update seen set collected = 1 where id = ?", [(one,) for one in ids])
        database.execute("commit")


@dataclass(frozen=True)
class Day:
    """A day's labelled answers of one version: how many, how many were right, and the share's 95% interval."""

    day: str
    version: int
    labelled: int
    right: int
    accuracy: float
    low: float
    high: float


def accuracy_by_day(path: Path) -> list[Day]:
    """Return how often the champion was right, by the day of the answer.

    It is the accuracy on what was labelled: where only doubtful pictures are, it says nothing of the others.
    """
    question = """
        select date(a.at, 'unixepoch'), a.version, count(*), sum(a.label = l.label) from answers a
        join last_labels l on l.id = a.id
        where a.role = ? group by 1, 2 order by 1, 2
    """
    if not path.is_file():
        return []
    with closing(open_record(path)) as database:
        found = database.execute(question, (CHAMPION,)).fetchall()
    return [Day(day, version, n, right, right / n, *wilson(right / n, n)) for day, version, n, right in found]


@dataclass(frozen=True)
class Labelled:
    """A labelled answer: which role gave it, and whether it was right."""

    number: int
    id: str
    role: str
    right: bool


def labelled(path: Path, champion: int, challenger: int) -> list[Labelled]:
    """Return the labelled answers of two versions in the order in which they were first labelled.

    A corrected label keeps its place. An anytime-valid test promises nothing where labels were changed because of what
    it said.
    """
    question = """
        select l.first, a.id, a.role, a.label = l.label from last_labels l
        join answers a on a.id = l.id
        where (a.role = 'champion' and a.version = ?) or (a.role = 'challenger' and a.version = ?)
        order by l.first, a.role
    """
    if not path.is_file():
        return []
    with closing(open_record(path)) as database:
        found = database.execute(question, (champion, challenger)).fetchall()
    return [Labelled(number, identity, role, bool(right)) for number, identity, role, right in found]
