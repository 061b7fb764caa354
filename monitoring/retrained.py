"""Before and after: what an earlier champion and the present one make of the same pictures of a site.

Labels of a site's pictures come back by `plumbline intake` and are trained on. What tells whether that helped are those
of them that the new champion did not train on: they are on its validation or test side, so they are part of the
reference that travels with it, and the earlier champion saw them without any label.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from monitoring.reference import Reference
from monitoring.result import Retrained
from monitoring.site_state import NEW, SiteState
from monitoring.trend import MOST

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Judged:
    """What the champion `version` said of a window's new images: `predicted` by image id."""

    version: int
    predicted: pd.Series[str]


def judged_by_others(state: SiteState, digest: str) -> Iterable[Judged]:
    """Yield the newest windows, oldest first, that another champion than the one of `digest` judged."""
    for window in state.whole_windows()[-MOST:]:
        champion = state.result(window)["champion"]
        if champion.get("digest") == digest:
            continue
        images = state.images(window, ["id", "status", "predicted"])
        images = images[images["status"] == NEW].drop_duplicates("id", keep="last")
        yield Judged(int(champion["version"]), images.set_index("id")["predicted"])


def before_and_after(earlier: Iterable[Judged], reference: Reference) -> Retrained | None:
    """Compare the champion with those before it on images that both judged and that it did not train on.

    None where there is no such image, or with several labels, of which none is right or wrong as a whole. The p-value
    is that of a sign test (exact, two-sided) over groups of which one champion was right more often than the other.
    """
    import pandas as pd

    if not reference.task.exclusive:
        return None
    parts = [one.predicted.to_frame("predicted").assign(version=one.version) for one in earlier]
    if not parts:
        return None
    before = pd.concat(parts)
    before = before[~before.index.duplicated(keep="last")]
    now = pd.DataFrame(
        {
            "label": np.array(reference.classes)[reference.labels],
            "after": reference.right,
            "group": reference.observations.groups,
        },
        index=reference.ids,
    )
    both = now[~now.index.duplicated()].join(before, how="inner")
    if both.empty:
        return None
    was_right = (both["predicted"] == both["label"]).to_numpy(bool)
    after = both["after"].to_numpy(bool)
    found: Retrained = {
        "images": len(both),
        "groups": int(both["group"].nunique()),
        "versions": sorted({int(one) for one in both["version"]}),
        "before": int(was_right.sum()),
        "after": int(after.sum()),
        "p": sign_test(was_right, after, both["group"].to_numpy(np.int64)),
        "said": "",
    }
    return {**found, "said": in_words(found, reference.champion["version"])}


def sign_test(before: NDArray[np.bool_], after: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    """Return the exact two-sided p-value that as many groups got better as got worse; 1 where none did either."""
    from scipy.stats import binomtest

    _, numbers = np.unique(groups, return_inverse=True)
    change = np.bincount(numbers, after.astype(float) - before.astype(float))
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    return float(binomtest(better, better + worse).pvalue) if better + worse else 1.0


def in_words(found: Retrained, version: int) -> str:
    """Return it as a sentence."""
    names = [str(one) for one in found["versions"]]
    earlier = f"version {names[0]}" if len(names) == 1 else f"versions {' and '.join(names)}"
    chance = "which chance may explain" if found["p"] > 0.05 else "which chance hardly explains"
    return (
        f"Before and after: of {found['images']} pictures of these windows ({found['groups']} independent) that are "
        f"labelled by now and that version {version} did not train on, {earlier} had been right on {found['before']}, "
        f"version {version} is right on {found['after']} (p {found['p']:.2g} over photographs and videos, {chance})."
    )
