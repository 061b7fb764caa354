"""The known pictures that are most like another: `plumbline similar IMAGE [--by NAME] [--count N]`, or `--verify`."""

from __future__ import annotations

import argparse
from pathlib import Path

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_table
from plumbline.common.params import load_section
from plumbline.common.records import read_table
from plumbline.imaging.settings import DataParams
from plumbline.models.similar import Space, most_similar, open_space, picture_features, verify


def main() -> None:
    """Print the most similar pictures, or how well likeness tells pictures of one group from others."""
    parser = argparse.ArgumentParser(prog="plumbline similar", description="Find pictures like one.")
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("--by", help="a backbone, or a candidate of architecture triplet (default: group.embedding)")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--verify", action="store_true", help="judge pairs of test pictures: of one group, or not?")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error("--count: 1 or more")
    if (arguments.image is None) != arguments.verify:
        parser.error("name a picture, or --verify")
    space = open_space(arguments.by or default_space())
    if arguments.verify:
        show_verification(space, arguments.by or default_space())
    else:
        show_similar(space, arguments.image, arguments.count)


def default_space() -> str:
    """Return the backbone that group.embedding names; UserError where it names no network."""
    from plumbline.leakage.groups import GroupParams

    named = load_section("group", GroupParams).embedding
    if not named or named == "pixels":
        raise UserError("params.yaml: group.embedding names no network: say --by BACKBONE.")
    return named


def show_similar(space: Space, image: Path, count: int) -> None:
    """Print cosine, label, group and path of the pictures most like `image`, most alike first."""
    data = load_section("data", DataParams)
    vector = space.of_features(picture_features(image, space.features, data.max_pixels))[0]
    splits = read_table(artefacts.SPLITS).set_index("path")
    for path, cosine in most_similar(space, vector, count):
        row = splits.loc[path] if path in splits.index else None
        label, group = (row["label"], row["group"]) if row is not None else ("set aside", "")
        print(f"{cosine:.4f}  {label:20} {group!s:12} {data.root / path}")


def show_verification(space: Space, name: str) -> None:
    """Print the area under the ROC on pairs of test pictures, and write its curve."""
    splits = read_table(artefacts.SPLITS)
    test = splits[splits["split"] == "test"]
    rows = space.features.rows_of(list(test["path"]))
    found = verify(space.vectors[rows], test["group"].to_numpy())
    file = artefacts.VERIFICATION / f"{name}.csv"
    write_table(file, found.curve)
    print(
        f"{name}: pairs of test pictures of one group ({found.same}) against others ({found.different}): "
        f"ROC area {found.area:.4f}; at cosine {found.threshold:.3f} both errors are {found.error:.4f}; curve in {file}"
    )


if __name__ == "__main__":
    run(main)
