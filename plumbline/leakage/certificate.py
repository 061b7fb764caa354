"""The certificate: from tables to build/leakage.json."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from plumbline.leakage.conflicts import LIKENESS
from plumbline.leakage.crossings import LISTED, group_sizes, kinds_of
from plumbline.leakage.price import sentence
from plumbline.leakage.records import Certificate, Pair, Price, SetAside, Side

if TYPE_CHECKING:
    import pandas as pd

ORDER = ("train", "validation", "test")
SHOWN_GROUPS, SHOWN_MEMBERS, SHOWN_PAIRS = 12, 8, 4


@dataclass(frozen=True)
class Inputs:
    """The tables from which a certificate is made.

    sides: path, label, group, split of the images in use. edges: pairs that were joined. apart: pairs compared and
    not joined. crossing: pairs on different sides (`crossing_pairs`). set_aside: path, reason. price: `measure_price`.
    """

    title: str
    sides: pd.DataFrame
    edges: pd.DataFrame
    apart: pd.DataFrame
    crossing: pd.DataFrame
    set_aside: pd.DataFrame
    price: Price | None
    features: str
    embeddings: str


@dataclass(frozen=True)
class LargeGroup:
    """A large group: its side, the kinds of edges that tie it, the paths of its first members."""

    name: str
    size: int
    split: str
    kinds: list[str]
    members: list[str]


def certificate(inputs: Inputs) -> Certificate:
    """Return build/leakage.json: counts, shares, edges, pairs across splits (0 when nothing leaks), the price."""
    sides = inputs.sides
    groups = dict(zip(sides["path"], sides["group"], strict=True))
    names = sorted(sides["split"].unique(), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER))
    price = inputs.price
    return Certificate(
        pairs_across_splits=len(inputs.crossing),
        pairs=pairs_of(inputs.crossing.head(LISTED)),
        images=len(sides),
        groups=int(sides["group"].nunique()),
        sides={
            str(side): Side(images=len(here), groups=int(here["group"].nunique()), share=len(here) / len(sides))
            for side in names
            for here in [sides[sides["split"] == side]]
        },
        set_aside=tuple(
            SetAside(path=path, reason=reason)
            for path, reason in inputs.set_aside[["path", "reason"]].itertuples(index=False)
        ),
        group_sizes=group_sizes(sides["group"]),
        kinds=kinds_of(inputs.edges[inputs.edges["path_a"].isin(groups)], groups),
        closest_apart=pairs_of(inputs.apart),
        embeddings=inputs.embeddings,
        price=None if price is None else price.model_copy(update={"features": inputs.features}),
        price_sentence=sentence(price),
    )


def pairs_of(table: pd.DataFrame) -> tuple[Pair, ...]:
    """Return the rows of a table of pairs (path_a, path_b, kind, distance, score) as records."""
    return tuple(
        Pair(a=str(a), b=str(b), kind=str(kind), distance=float(d), score=None if s != s else float(s))
        for a, b, kind, d, s in table[["path_a", "path_b", "kind", "distance", "score"]].itertuples(index=False)
    )


def largest(sides: pd.DataFrame, edges: pd.DataFrame) -> list[LargeGroup]:
    """Return the largest groups."""
    sizes = sides["group"].value_counts()
    kinds = edges[edges["verified"]].groupby("path_a")["kind"].agg(set)
    found = []
    for name, size in sizes[sizes > 1].head(SHOWN_GROUPS).items():
        members = sides[sides["group"] == name]
        why = set().union(*(kinds.get(path, set()) for path in members["path"]))
        found.append(
            LargeGroup(
                name=str(name),
                size=int(size),
                split=str(members["split"].iat[0]),
                kinds=sorted(why),
                members=members["path"].head(SHOWN_MEMBERS).tolist(),
            )
        )
    return found


def examples(edges: pd.DataFrame, known: set[str]) -> list[tuple[str, tuple[Pair, ...]]]:
    """Return the least certain pairs of each kind of likeness, the ones worth a look."""
    usable = edges[edges["verified"] & edges["path_a"].isin(known) & edges["path_b"].isin(known)]
    return [
        (kind, pairs_of(here.sort_values(["score", "distance"], ascending=[True, False]).head(SHOWN_PAIRS)))
        for kind in LIKENESS
        if len(here := usable[usable["kind"] == kind])
    ]


def why_paired(one: Pair) -> str:
    """Return in words what joins, or nearly joins, a pair."""
    if one.kind in ("same bytes", "same pixels"):
        return one.kind
    far = {"embedding": f"cosine {1 - one.distance:.2f}", "captured_at": f"{one.distance:g} s apart"}
    score = "" if one.score is None else f", alike {one.score:.2f}"
    if one.kind in far:
        return f"{one.kind}, {far[one.kind]}{score}"
    if one.kind in ("near", "mirrored", "cropped"):
        return f"{one.kind}, {one.distance:.0f} bits{score}"
    return f"same {one.kind}"


def report(result: Certificate, where: Path) -> str:
    """Return the lines that a run prints at its end."""
    sides = ", ".join(f"{name} {s.images} ({s.share:.3f})" for name, s in result.sides.items())
    pairs = result.pairs_across_splits
    lines = [
        f"{result.images} images in {result.groups} groups: {sides}",
        "no pair across the splits" if not pairs else f"LEAKS: {pairs} pairs across the splits, the first:",
        *(f"  {p.a} - {p.b} ({why_paired(p)})" for p in result.pairs[:5]),
        result.price_sentence,
        f"embeddings: {result.embeddings}",
        f"certificate: {where}",
    ]
    return "\n".join(lines)
