"""Stage `split`: train, validation and test; groups stay whole, classes and sites balanced, what was test stays test.

Memberships live in `memberships/seed-N.csv`, in Git: one `key,side` line per image (its bytes and its pixels) and per
value of a grouping column, each key a shortened sha256. A line is never changed or removed by the pipeline. Another
`split.seed` is another draw with a file of its own; to draw the same seed again, delete its file.
"""

from __future__ import annotations

import sys

import pandas as pd

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import write_table
from plumbline.common.params import load_section
from plumbline.common.records import read_table
from plumbline.imaging.pictures import PUBLISHED
from plumbline.leakage.published import keep_published
from plumbline.leakage.splits import MEMBERSHIPS, GroupColumns, SplitParams, read_memberships, shares, split_images


def main() -> None:
    """Write memberships, splits, and what is set aside."""
    params = load_section("split", SplitParams)
    group = load_section("group", GroupColumns)
    manifest = read_table(artefacts.MANIFEST)
    lock = MEMBERSHIPS / f"seed-{params.seed}.csv"
    others = sorted(path.name for path in MEMBERSHIPS.glob("seed-*.csv") if path != lock)
    if others and not lock.exists():
        print(
            f"first draw with seed {params.seed}: it owes nothing to {', '.join(others)}, so a model trained under "
            "another seed may have seen pictures of this test set",
            file=sys.stderr,
        )
    conflicts = artefacts.LABEL_CONFLICTS.path
    excluded = pd.read_csv(conflicts, dtype=str) if conflicts.exists() else pd.DataFrame({"path": [], "reason": []})
    groups, memberships = read_table(artefacts.GROUPS), read_memberships(lock)
    if PUBLISHED in manifest:
        memberships, excluded = keep_published(manifest, groups, memberships, excluded, params)
    result = split_images(
        manifest,
        groups,
        read_table(artefacts.EDGES),
        group.columns,
        memberships,
        excluded,
        params,
        group.blank_words,
    )
    write_table(lock, result.memberships)
    write_table(artefacts.SET_ASIDE, result.set_aside)
    write_table(artefacts.SPLITS, result.splits)
    print(shares(result.splits, manifest, params).to_string())
    if len(result.set_aside):
        print(f"{len(result.set_aside)} image(s) set aside, named in {artefacts.SET_ASIDE}; the first:")
        print("\n".join(f"  {r.path}: {r.reason}" for r in result.set_aside.head(5).itertuples()))


if __name__ == "__main__":
    run(main)
