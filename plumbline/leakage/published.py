"""Keep a published split (`data.published_split: keep`): its sides, without the pictures that leak."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from plumbline.common.errors import UserError
from plumbline.imaging.pictures import PUBLISHED
from plumbline.leakage.splits import KEY_LENGTH, SIDES, SplitParams


def keep_published(
    manifest: pd.DataFrame,
    groups: pd.DataFrame,
    memberships: pd.DataFrame,
    excluded: pd.DataFrame,
    params: SplitParams,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the memberships (key, side) that put every picture on its published side, and the excluded (path, reason).

    With these `split_images` keeps the test side as it is and sets aside training pictures that belong to groups in
    test. A picture that is on two sides itself is excluded from the earlier one here. Where validation was not
    published, whole groups of the training side are drawn for it.

    Args:
        manifest: path, id, pixels_sha256, label, and the column published_split (train, validation, test or None).
        groups: path, group.
        memberships, excluded: the existing ones.

    Raises UserError where no test side was published, or earlier memberships say otherwise.
    """
    given = manifest[manifest[PUBLISHED].notna() & ~manifest["path"].isin(set(excluded["path"]))]
    if not (given[PUBLISHED] == "test").any():
        raise UserError(
            "data.published_split is keep, but no folder of the published split is its test side: set it to merge, and "
            "`split` draws one."
        )
    twins = _on_two_sides(given)
    given = given[~given["path"].isin(twins)]
    side = given[PUBLISHED].copy()
    if not (side == "validation").any():
        train = given[side == "train"]
        drawn = _drawn_for_validation(train, groups, memberships, params)
        side[train.index[drawn]] = "validation"
    keys = pd.concat(
        [
            pd.DataFrame({"key": given[column].str[:KEY_LENGTH], "side": side, "path": given["path"]})
            for column in ("id", "pixels_sha256")
        ]
    ).drop_duplicates("key")
    both = keys.merge(memberships, on="key", suffixes=("", "_before"))
    moved = both[both["side"] != both["side_before"]]
    if len(moved):
        first = moved.iloc[0]
        raise UserError(
            f"{first['path']} is {first['side']} in the published split, but an earlier draw made it "
            f"{first['side_before']}: delete memberships/seed-{params.seed}.csv to keep the published split."
        )
    out = pd.DataFrame({"path": list(twins), "reason": list(twins.values())}, dtype=object)
    kept = pd.concat([memberships, keys[~keys["key"].isin(memberships["key"])][["key", "side"]]], ignore_index=True)
    return kept, pd.concat([excluded[["path", "reason"]], out], ignore_index=True)


def _on_two_sides(given: pd.DataFrame) -> dict[str, str]:
    """Pictures whose bytes or pixels are on a later side too: path to reason."""
    rank = given[PUBLISHED].map(SIDES.index)
    found: dict[str, str] = {}
    for column in ("id", "pixels_sha256"):
        order = given.assign(rank=rank).sort_values(["rank", "path"])
        latest = order.drop_duplicates(column, keep="last").set_index(column)
        own = order[column].map(latest["rank"])
        for row in order[own > order["rank"]].itertuples():
            other = latest.loc[getattr(row, column)]
            reason = f"is the same picture as {other['path']} ({other[PUBLISHED]} in the published split)"
            found.setdefault(str(row.path), reason)
    return found


def _drawn_for_validation(
    train: pd.DataFrame, groups: pd.DataFrame, memberships: pd.DataFrame, params: SplitParams
) -> NDArray[np.bool_]:
    """Which rows of the published training side become validation: those drawn earlier, else one fold of groups."""
    from sklearn.model_selection import StratifiedGroupKFold

    earlier = train["id"].str[:KEY_LENGTH].map(memberships.set_index("key")["side"])
    if earlier.notna().any():
        return np.asarray(earlier == "validation", bool)
    share = params.fractions.validation / (params.fractions.train + params.fractions.validation)
    group = train[["path"]].merge(groups, on="path", how="left", validate="one_to_one")["group"]
    folds = StratifiedGroupKFold(max(2, round(1 / share)), shuffle=True, random_state=params.seed)
    try:
        _, chosen = next(folds.split(train, train["label"], group))
    except ValueError as error:
        raise UserError(f"no validation side can be drawn from the published training side ({error}).") from None
    return np.isin(np.arange(len(train)), chosen)
