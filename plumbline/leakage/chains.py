"""The guard against chains: unrelated pictures that likeness links one by one into a single large group."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.leakage.copies import CERTAIN, Edge

SMALL_GROUP = 10  # images; a smaller group never stops a run, whatever its share
WEAKEST = 3


def refuse_chain(
    paths: Sequence[str],
    component: NDArray[np.int64],
    alike: Sequence[Edge],
    given: Sequence[Edge],
    max_share: float,
    remedy: Callable[[], str] = lambda: "lower group.join_radius or group.candidate_radius",
) -> None:
    """Raise UserError where likeness made a group larger than `max_share` of the images, naming its weakest links.

    A group that the user's own columns (`given`) make that large is accepted. Many copies of one picture are no chain,
    and the message says so.

    Args:
        remedy: returns what to do ("lower ..."); only called when a group is refused.
    """
    sizes = np.bincount(component)
    for number in np.argsort(-sizes):
        size = int(sizes[number])
        if size <= max(SMALL_GROUP, max_share * len(paths)):
            return
        links = [e for e in alike if e.verified and component[e.a] == number]
        if not links or size == _largest_given(component == number, given):
            continue
        same = _largest_part([e for e in alike if e.kind in CERTAIN and component[e.a] == number])
        if len(same) > max_share * len(paths):
            first = " and ".join(paths[row] for row in sorted(same)[:2])
            raise UserError(
                f"{len(same)} of {len(paths)} images ({len(same) / len(paths):.0%}, more than group.max_share "
                f"{max_share:.0%}) are one and the same picture, such as {first}: keep one of them in data/, or raise "
                "group.max_share in params.yaml."
            )
        weakest = ", ".join(f"{paths[e.a]} - {paths[e.b]} ({_why_joined(e)})" for e in weakest_links(links)[:WEAKEST])
        raise UserError(
            f"one group holds {size} of {len(paths)} images ({size / len(paths):.0%}, more than group.max_share "
            f"{max_share:.0%}); its weakest links are {weakest}: look at them, then {remedy()}, or raise "
            "group.max_share, in params.yaml."
        )


def weakest_links(links: Sequence[Edge]) -> list[Edge]:
    """Return the edges, bridges (whose loss would part the group) before the others, each by rising score."""
    import networkx as nx

    graph = nx.Graph((e.a, e.b) for e in links)
    bridges = {tuple(sorted(bridge)) for bridge in nx.bridges(graph)}
    return sorted(links, key=lambda e: ((e.a, e.b) not in bridges, e.score, -e.distance))


def _largest_given(inside: NDArray[np.bool_], given: Sequence[Edge]) -> int:
    """Size of the largest part of the group that the user's columns alone hold together."""
    return len(_largest_part([e for e in given if inside[e.a]]))


def _largest_part(edges: Sequence[Edge]) -> set[int]:
    import networkx as nx

    return max(nx.connected_components(nx.Graph((e.a, e.b) for e in edges)), key=len, default=set())


def _why_joined(edge: Edge) -> str:
    unit = f"cosine {1 - edge.distance:.2f}" if edge.kind == "embedding" else f"{edge.distance:.0f} bits"
    return f"{edge.kind}, {unit}, score {edge.score:.2f}"
