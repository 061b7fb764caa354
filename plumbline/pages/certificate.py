"""The leakage certificate as a page, and the page of copies whose labels differ."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from plumbline.leakage.certificate import Inputs, examples, largest, why_paired
from plumbline.leakage.price import points, why_negative
from plumbline.leakage.records import Certificate, Pair, Price
from plumbline.pages.template import data_uri, render_page

SHOWN_APART = 12
SHOWN_CONFLICTS = 200  # pairs on the page; label_conflicts.csv names all
Picture = Callable[[str], NDArray[np.uint8]]


def page(inputs: Inputs, result: Certificate, picture: Picture) -> str:
    """Return the certificate as one HTML file; `picture` gives a path's pixels (H, W, 3)."""
    uris: dict[str, str] = {}

    def shown(path: str) -> dict[str, str]:
        if path not in uris:
            uris[path] = data_uri(picture(path))
        return {"path": path, "image": uris[path], **about.get(path, {"label": "", "split": "set aside"})}

    about = {
        p: {"label": str(lab), "split": str(s)}
        for p, lab, s in inputs.sides[["path", "label", "split"]].itertuples(index=False)
    }

    def pair(one: Pair) -> dict[str, object]:
        return {"a": shown(one.a), "b": shown(one.b), "evidence": why_paired(one)}

    return render_page(
        "leakage.html.j2",
        "certificate.css",
        title=inputs.title,
        result=result,
        crossing=[pair(one) for one in result.pairs[:SHOWN_APART]],
        groups=[
            {**vars(group), "members": [shown(p) for p in group.members]}
            for group in largest(inputs.sides, inputs.edges)
        ],
        examples=[(kind, [pair(one) for one in pairs]) for kind, pairs in examples(inputs.edges, set(about))],
        apart=[pair(one) for one in result.closest_apart[:SHOWN_APART]],
        bars=price_bars(result.price),
        points=points,
    )


def price_bars(found: Price | None) -> list[dict[str, object]]:
    """Place the price on a scale: for each classifier its two accuracies as shares of the scale's width."""
    if not found:
        return []
    values = [value for scores in found.classifiers.values() for value in (scores.naive, scores.grouped)]
    start = max(0.0, np.floor((min(values) - 0.02) * 20) / 20)
    return [
        {
            "name": name.replace("_", " "),
            **scores.content(),
            "says": f"{points(scores.points)} points{'' if (why := why_negative(scores)) else ' too much'}",
            "why": why,
            "start": start,
            "naive_at": (scores.naive - start) / (1 - start),
            "grouped_at": (scores.grouped - start) / (1 - start),
        }
        for name, scores in found.classifiers.items()
    ]


def conflicts_page(pairs: list[tuple[str, str]], label: dict[str, str], picture: Picture) -> str:
    """Return the page of label conflicts: each pair side by side, with what each is labelled."""

    def shown(path: str) -> dict[str, str]:
        return {"path": path, "label": label[path], "image": data_uri(picture(path))}

    return render_page(
        "label_conflicts.html.j2",
        "certificate.css",
        total=len(pairs),
        pairs=[(shown(a), shown(b)) for a, b in pairs[:SHOWN_CONFLICTS]],
    )
