"""Stage `group`: pictures that a split must keep together, as copies or by a shared value of a grouping column.

python -m stages.group                       the stage: groups, edges (why they are tied) and label conflicts
python -m stages.group audit TRAIN TEST ...  `plumbline audit`: any published split; exit 1 if it leaks, 2 for bad input
"""

from __future__ import annotations

import runpy
import sys

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_table, write_text
from plumbline.common.params import load_section
from plumbline.common.records import read_array, read_table, write_record
from plumbline.leakage.columns import sentence, tied_by_column
from plumbline.leakage.groups import GroupParams, describe_pictures, grey_reader, group_images, read_embeddings, summary


def main() -> None:
    """Run the stage, or the audit."""
    if sys.argv[1:2] == ["audit"]:
        del sys.argv[1]  # run by name, not imported, so that the stage does not depend on the audit's code
        runpy.run_module("plumbline.commands.audit", run_name="__main__")
        return

    from plumbline.imaging.reading import load_rgb
    from plumbline.imaging.settings import DataParams
    from plumbline.leakage.conflicts import conflict_table, conflicting_pairs
    from plumbline.pages.certificate import conflicts_page

    params = load_section("group", GroupParams)
    data = load_section("data", DataParams)
    manifest = read_table(artefacts.MANIFEST)
    embeddings, source = None, "none asked for (group.embedding)"
    if params.embedding:
        embeddings, source = read_embeddings(artefacts.FEATURES / params.embedding, manifest)
    print(f"embeddings: {source}", file=sys.stderr)
    pictures = describe_pictures(
        manifest,
        read_array(artefacts.FINGERPRINTS),
        read_array(artefacts.THUMBNAILS, mapped=True),
        grey_reader(data, manifest["path"].to_numpy()),
        embeddings,
    )
    found = group_images(manifest, pictures, params)
    pairs = conflicting_pairs(manifest, found.edges, lambda row: load_rgb(data, str(manifest["path"].iat[row])))
    label = dict(zip(manifest["path"], manifest["label"], strict=True))
    conflicts = conflict_table(pairs, label)
    write_text(artefacts.CONFLICTS_PAGE, conflicts_page(pairs, label, lambda path: load_rgb(data, path)))
    write_table(artefacts.LABEL_CONFLICTS, conflicts)
    if len(conflicts) and params.label_conflicts == "fail":
        first = conflicts.iloc[0]
        raise UserError(
            f"{len(conflicts)} images are copies of one another with different labels (the first: {first['path']}, "
            f"{first['reason']}): open {artefacts.CONFLICTS_PAGE} and correct them in data/, or set "
            "group.label_conflicts: set_aside."
        )
    write_table(artefacts.EDGES, found.edges)
    write_table(artefacts.APART, found.apart)
    tied = tied_by_column(manifest, params.columns, params.blank_words)
    write_record(artefacts.GROUPING, summary(found, conflicts, source, tied))
    write_table(artefacts.GROUPS, found.groups)
    sizes = found.groups["group"].value_counts()
    print(f"{len(manifest)} images in {len(sizes)} groups, the largest of {sizes.iloc[0]}")
    print("\n".join(sentence(one) for one in tied) or "no grouping column (group.columns) is in the data")
    print(", ".join(f"{n} {kind}" for kind, n in found.edges[found.edges["verified"]]["kind"].value_counts().items()))


if __name__ == "__main__":
    run(main)
