"""Draw train, validation and test: groups stay whole, classes and sites are balanced, what was once test stays test.

Memberships live in `memberships/seed-N.csv`, in Git: one `key,side` line per image (its bytes and its pixels) and per
value of a grouping column, each key a shortened sha256. A line is never changed or removed by the pipeline. Another
`split.seed` is another draw with a file of its own; to draw the same seed again, delete its file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.params import Section
from plumbline.imaging.labels import label_classes
from plumbline.imaging.metadata import BLANK_WORDS, grouping_values
from plumbline.imaging.pictures import BOX_COUNT

MEMBERSHIPS = Path("memberships")
SIDES = ("train", "validation", "test")  # where two sides claim a picture, the one listed first here gives way
NEW = -1
KEY_LENGTH = 16  # hex digits: 64 bits, so that a million keys collide with a chance of 1 in 30 million


class Fractions(Section):
    """Share of the images on each side."""

    train: float = Field(default=0.70, gt=0, lt=1)
    validation: float = Field(default=0.15, gt=0, lt=1)
    test: float = Field(default=0.15, gt=0, lt=1)

    @model_validator(mode="after")
    def _sum_to_one(self) -> Fractions:
        if abs(self.train + self.validation + self.test - 1) > 1e-6:
            raise ValueError("train, validation and test must sum to 1")
        return self


class SplitParams(Section):
    """params.yaml, section `split`: how groups are drawn."""

    fractions: Fractions = Fractions()
    seed: int = Field(default=0, ge=0)
    stratify: tuple[str, ...] = ("label", "site")


class GroupColumns(Section):
    """The part of params.yaml's `group` section that the split needs."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    columns: tuple[str, ...] = ("photo", "video", "person")
    blank_words: tuple[str, ...] = BLANK_WORDS


@dataclass(frozen=True)
class Split:
    """splits: path, id, label, group, split. set_aside: path, id, label, group, reason. memberships: key, side."""

    splits: pd.DataFrame
    set_aside: pd.DataFrame
    memberships: pd.DataFrame


def split_images(
    manifest: pd.DataFrame,
    groups: pd.DataFrame,
    edges: pd.DataFrame,
    columns: Sequence[str],
    memberships: pd.DataFrame,
    excluded: pd.DataFrame,
    params: SplitParams,
    blank_words: Sequence[str] = BLANK_WORDS,
) -> Split:
    """Assign every image of `manifest` to a side, or set it aside.

    Args:
        manifest: path, id, pixels_sha256, label and metadata columns.
        groups: path, group.
        edges: path_a, path_b: pairs that must not be parted (those of grouping columns may be left out).
        columns: grouping columns; those that `manifest` lacks are ignored.
        memberships: key, side of earlier runs.
        excluded: path, reason: images that must not be used (label conflicts).
        params: fractions, seed, strata.
        blank_words: values of grouping columns that say nothing.

    Raises UserError where nothing is left of the images or of a class, or a class has too few groups to be on every
    side.
    """
    keys = _keys(manifest, columns, blank_words)
    graph = _Graph(manifest, edges, keys, memberships)
    aside = dict(zip(excluded["path"], excluded["reason"], strict=True))
    keep = ~manifest["path"].isin(list(aside)).to_numpy()
    for row, reason in graph.ties(keep).items():
        aside[manifest["path"].iat[row]] = reason
        keep[row] = False
    _refuse_nothing_left(manifest, keep, aside)
    part, locked = graph.parts(keep)
    kept = manifest[keep].reset_index(drop=True)
    names = _part_names(kept, part, groups)
    side = draw(kept, part, locked, params)
    splits = kept[["path", "id", "label"]].assign(group=names, split=np.array(SIDES)[side])
    out = manifest[~keep].merge(groups, on="path", how="left")
    set_aside = out[["path", "id", "label", "group"]].assign(reason=[aside[p] for p in out["path"]])
    return Split(splits, set_aside, _extended(memberships, keys[keys["row"].isin(np.flatnonzero(keep))], splits, keep))


def _refuse_nothing_left(manifest: pd.DataFrame, keep: NDArray[np.bool_], aside: dict[str, str]) -> None:
    """Raise UserError where no picture, or none of some class, is left."""
    if manifest.empty:
        raise UserError(f"{artefacts.MANIFEST} names no picture: put photographs into data/ and run ingest again.")
    if BOX_COUNT in manifest:  # photographs without a box are of no class
        manifest, keep = manifest[manifest[BOX_COUNT] > 0], keep[manifest[BOX_COUNT].to_numpy() > 0]
    classes = manifest["label"].map(label_classes).map(frozenset)  # helmet;vest belongs to both
    for label in (None, *sorted(frozenset().union(*classes))):
        here = np.array([label is None or label in names for names in classes])
        if not keep[here].any():
            first = str(manifest["path"][here].iat[0])
            raise UserError(
                f"all {int(here.sum())} pictures{'' if label is None else f' of class {label!r}'} are set aside, so "
                f"there is nothing to split (the first: {first}, {aside[first]}): look at "
                f"{artefacts.CONFLICTS_PAGE}, correct the labels in data/ and run again."
            )


def draw(
    images: pd.DataFrame, part: NDArray[np.int64], locked: NDArray[np.int64], params: SplitParams
) -> NDArray[np.int64]:
    """Return the side (0, 1, 2) of each image; `part` numbers its group, `locked` gives each group's side or NEW.

    Groups are assigned largest first, those of equal size in random order, each to the side that is furthest behind its
    share of images, of each class and of each stratum (Sainte-Laguë's rule for seats, on vectors). Groups with a side
    keep it, and new ones are drawn to balance them.
    """
    profile = _profiles(images, params.stratify)
    size = int(part.max()) + 1 if len(part) else 0
    need = np.zeros((size, profile.shape[1]))
    np.add.at(need, part, profile)
    fractions = np.array([params.fractions.train, params.fractions.validation, params.fractions.test])
    target = np.maximum(fractions[:, None] * need.sum(axis=0), 1e-9)
    weight = 1 / target
    have = np.stack([need[locked == side].sum(axis=0) for side in range(len(SIDES))])
    side_of = locked.copy()
    shuffled = np.random.default_rng(params.seed).permutation(size)
    order = shuffled[np.argsort(-need[shuffled, 0], kind="stable")]
    for g in order[locked[order] == NEW]:
        cost = (weight * need[g] * (2 * (have - target) + need[g])).sum(axis=1)
        side_of[g] = int(np.argmin(cost))
        have[side_of[g]] += need[g]
    needed = images[BOX_COUNT].to_numpy() > 0 if BOX_COUNT in images else np.ones(len(images), bool)
    _fill_gaps(images["label"].to_numpy(), part, side_of, locked == NEW, needed)
    return side_of[part]


def _profiles(images: pd.DataFrame, stratify: Sequence[str]) -> NDArray[np.float64]:
    """One row per image: 1 for being an image, then one-hot its label, then one-hot its stratum."""
    blocks = [np.ones((len(images), 1))]
    columns = [c for c in stratify if c in images]
    strata = images[columns].fillna("").astype(str).agg("\x1f".join, axis=1) if columns else images["label"]
    for values in (images["label"], strata):
        codes, uniques = pd.factorize(values)
        blocks.append(np.eye(len(uniques))[codes])
    return np.hstack(blocks)


def _fill_gaps(
    labels: NDArray[np.object_],
    part: NDArray[np.int64],
    side_of: NDArray[np.int64],
    free: NDArray[np.bool_],
    needed: NDArray[np.bool_],
) -> None:
    """Give every side at least one group of every class: the smallest new group moves from the side with the most.

    Pictures that are not `needed`, photographs without a box, may be missing from a side.
    """
    sizes = np.bincount(part, minlength=len(side_of))
    labels, part = labels[needed], part[needed]
    classes = pd.Series(labels).map(label_classes).map(frozenset)  # helmet;vest belongs to both
    for label in sorted(frozenset().union(*classes)):
        members = np.unique(part[classes.map(lambda names, label=label: label in names).to_numpy()])
        for side in range(len(SIDES)):
            if (side_of[members] == side).any():
                continue
            counts = np.bincount(side_of[members], minlength=len(SIDES))
            movable = [g for g in members if free[g] and counts[side_of[g]] > 1]
            if not movable:
                raise UserError(
                    f"class '{label}' has {len(members)} group(s) in data/, too few to be in {', '.join(SIDES)} "
                    f"without parting one: add photographs of it, or check group.columns in params.yaml."
                )
            g = max(movable, key=lambda g: (counts[side_of[g]], -sizes[g], -g))
            side_of[g] = side


class _Graph:
    """A graph of images and values of grouping columns; what must stay together is connected."""

    def __init__(
        self, manifest: pd.DataFrame, edges: pd.DataFrame, keys: pd.DataFrame, memberships: pd.DataFrame
    ) -> None:
        self.images = len(manifest)
        self.paths = manifest["path"].to_numpy()
        row = pd.Series(np.arange(self.images), index=manifest["path"])
        values = keys[keys["kind"] == "value"]
        codes, uniques = pd.factorize(values["key"])
        self.size = self.images + len(uniques)
        self.first = np.concatenate([row[edges["path_a"]].to_numpy(np.int64), values["row"].to_numpy(np.int64)])
        self.second = np.concatenate([row[edges["path_b"]].to_numpy(np.int64), self.images + codes.astype(np.int64)])
        side = dict(zip(memberships["key"], (SIDES.index(s) for s in memberships["side"]), strict=True))
        self.locked = np.full(self.size, NEW)
        for kind in ("pixels", "bytes"):  # bytes before pixels: the stronger proof of identity first
            known = keys[(keys["kind"] == kind) & keys["key"].isin(list(side))]
            self.locked[known["row"]] = [side[k] for k in known["key"]]
        # A value's side counts only where none of its images has one: new crops of a photograph whose old crops are
        # gone.
        spoken_for = np.zeros(self.size, bool)
        np.logical_or.at(spoken_for, self.second, (self.locked[self.first] != NEW) & (self.second >= self.images))
        remembered = np.array([side.get(key, NEW) for key in uniques], int)
        self.locked[self.images :] = np.where(spoken_for[self.images :], NEW, remembered)

    def ties(self, keep: NDArray[np.bool_]) -> dict[int, str]:
        """Rows to set aside so that no path in the graph joins two sides, with the reasons."""
        present = np.concatenate([keep, np.ones(self.size - self.images, bool)])
        found: dict[int, str] = {}
        for rule in (self._new_between_sides, self._known_against_known):
            for row, reason in rule(present).items():
                found[row] = reason
                present[row] = False
        return found

    def _blobs(self, open_nodes: NDArray[np.bool_], present: NDArray[np.bool_]) -> dict[int, tuple[set[int], set[int]]]:
        """Connected sets of open nodes that touch two sides or more: {set: (its nodes, the known nodes beside it)}."""
        live = present[self.first] & present[self.second]
        inside = live & open_nodes[self.first] & open_nodes[self.second]
        blob = _components(self.size, self.first[inside], self.second[inside])
        beside: dict[int, set[int]] = {}
        for a, b in ((self.first, self.second), (self.second, self.first)):
            border = live & open_nodes[a] & ~open_nodes[b]
            for node, known in zip(blob[a[border]], b[border], strict=True):
                beside.setdefault(int(node), set()).add(int(known))
        torn = {k: known for k, known in beside.items() if len({self.locked[n] for n in known}) > 1}
        nodes = {k: set(np.flatnonzero((blob == k) & open_nodes & present).tolist()) for k in torn}
        return {k: (nodes[k], known) for k, known in torn.items()}

    def _new_between_sides(self, present: NDArray[np.bool_]) -> dict[int, str]:
        found = {}
        for nodes, known in self._blobs(self.locked == NEW, present).values():
            for row in sorted(n for n in nodes if n < self.images):
                found[row] = f"new, and ties {self._named(known)} together"
        return found

    def _known_against_known(self, present: NDArray[np.bool_]) -> dict[int, str]:
        """Images of earlier runs that turn out to belong together: those on the side listed first are set aside."""
        found = {}
        clashes = [known for _, known in self._blobs(self.locked == NEW, present).values()]
        live = present[self.first] & present[self.second]
        both = live & (self.locked[self.first] != NEW) & (self.locked[self.second] != NEW)
        apart = both & (self.locked[self.first] != self.locked[self.second])
        clashes += [{int(a), int(b)} for a, b in zip(self.first[apart], self.second[apart], strict=True)]
        for known in clashes:
            highest = max(self.locked[n] for n in known)
            for node in known:
                if self.locked[node] < highest and node < self.images:
                    found[node] = f"belongs together with {self._named({n for n in known if n != node})}"
        return found

    def _named(self, nodes: set[int]) -> str:
        named = [
            f"{self.paths[n] if n < self.images else 'an earlier image of its group'} ({SIDES[self.locked[n]]})"
            for n in sorted(nodes, key=lambda n: (-self.locked[n], n))
        ]
        shown: list[str] = []
        for side in SIDES[::-1]:  # one image of each side is enough
            shown += [name for name in named if name.endswith(f"({side})")][:1]
        return " and ".join(shown)

    def parts(self, keep: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Number the groups of the kept images: the group of each, and the side of each group (or NEW)."""
        present = np.concatenate([keep, np.ones(self.size - self.images, bool)])
        live = present[self.first] & present[self.second]
        whole = _components(self.size, self.first[live], self.second[live])
        uniques, part = np.unique(whole[: self.images][keep], return_inverse=True)
        locked = np.full(len(uniques), NEW)
        place = {int(c): k for k, c in enumerate(uniques)}
        for node in np.flatnonzero((self.locked != NEW) & present):
            if int(whole[node]) in place:
                locked[place[int(whole[node])]] = self.locked[node]
        return part.astype(np.int64), locked


def _components(size: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _keys(manifest: pd.DataFrame, columns: Sequence[str], blank_words: Sequence[str]) -> pd.DataFrame:
    """Return row, kind (bytes, pixels, value) and key by which an image is remembered."""
    rows = np.arange(len(manifest))
    parts = [
        pd.DataFrame({"row": rows, "kind": kind, "key": manifest[column].str[:KEY_LENGTH]})
        for kind, column in (("bytes", "id"), ("pixels", "pixels_sha256"))
    ]
    for column in (c for c in columns if c in manifest):
        text = grouping_values(manifest, column, blank_words)
        given = (text != "").to_numpy()
        # Values may be people's names, so only their digest goes into Git.
        key = [hashlib.sha256(f"{column}={v}".encode()).hexdigest()[:KEY_LENGTH] for v in text[given]]
        parts.append(pd.DataFrame({"row": rows[given], "kind": "value", "key": key}))
    return pd.concat(parts, ignore_index=True)


def _part_names(kept: pd.DataFrame, part: NDArray[np.int64], groups: pd.DataFrame) -> list[str]:
    """The names of groups.parquet; the parts of a group that fell apart when images were set aside get new names."""
    named = kept[["path", "id"]].merge(groups, on="path", how="left", validate="one_to_one").assign(part=part)
    torn = named.groupby("group")["part"].nunique()
    own = "g" + named.groupby("part")["id"].transform("min").str[:KEY_LENGTH]
    return named["group"].where(~named["group"].isin(torn.index[torn > 1]), own).tolist()


def _extended(
    memberships: pd.DataFrame, keys: pd.DataFrame, splits: pd.DataFrame, keep: NDArray[np.bool_]
) -> pd.DataFrame:
    """The memberships with a line for every new key; existing lines stay."""
    side = np.full(len(keep), "", dtype=object)
    side[keep] = splits["split"]
    fresh = pd.DataFrame({"key": keys["key"], "side": side[keys["row"]]})
    every = pd.concat([memberships, fresh[~fresh["key"].isin(memberships["key"])]])
    return every.drop_duplicates("key").sort_values("key", ignore_index=True)


def read_memberships(path: Path) -> pd.DataFrame:
    """Return key, side from a memberships file; an empty table where there is no file."""
    if not path.exists():
        return pd.DataFrame({"key": [], "side": []}, dtype=object)
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if list(table.columns) != ["key", "side"] or not table["side"].isin(SIDES).all() or table["key"].duplicated().any():
        raise UserError(f"{path} is not a list of key,side with unique keys: restore it with 'git checkout {path}'.")
    return table


def shares(splits: pd.DataFrame, manifest: pd.DataFrame, params: SplitParams) -> pd.DataFrame:
    """Return the achieved shares: one row per side, columns images, groups, share, and the share of each stratum."""
    strata = [c for c in params.stratify if c in manifest]
    table = splits[["path", "group", "split"]].merge(manifest[["path", *strata]], on="path")
    rows = {}
    for side in SIDES:
        here = table[table["split"] == side]
        row: dict[str, object] = {"images": len(here), "groups": here["group"].nunique()}
        row["share"] = f"{len(here) / len(table):.3f}"
        for column in strata:
            for value, count in table[column].fillna("").astype(str).value_counts().sort_index().items():
                if value:
                    row[str(value)] = f"{(here[column].astype(str) == value).sum() / count:.3f}"
        rows[side] = row
    return pd.DataFrame(rows).T
