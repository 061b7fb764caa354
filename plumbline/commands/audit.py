"""Audit somebody else's split: the same certificate, made directly from folders."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plumbline.common import artefacts
from plumbline.common.errors import UserError, run
from plumbline.common.files import write_table, write_text
from plumbline.common.params import PARAMS, load_section
from plumbline.common.records import write_record

if TYPE_CHECKING:
    import pandas as pd

    from plumbline.imaging.settings import DataParams
    from plumbline.leakage.records import Certificate

CLEAN, LEAKS, BAD_INPUT = 0, 1, 2


@dataclass(frozen=True)
class Side:
    """One folder: its name, how to read it, and what ingest found; manifest paths carry the name in front."""

    name: str
    data: DataParams
    manifest: pd.DataFrame
    fingerprints: NDArray[np.uint64]
    thumbnails: NDArray[np.uint8]


def audit(arguments: Sequence[str]) -> int:
    """Compare the folders, print and write the certificate. Returns 0 (clean), 1 (leaks) or 2 (bad input)."""
    parser = argparse.ArgumentParser(
        prog="plumbline audit", description="Does one picture, or its copy, stand in two of these folders?"
    )
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="two or more: train, (validation,) test"
    )
    parser.add_argument("--page", type=Path, default=artefacts.AUDIT_PAGE.path, help="where to write the certificate")
    parser.add_argument("--json", type=Path, help="where to write its figures; default: beside the page")
    parser.add_argument(
        "--pairs",
        type=Path,
        help="where to write every pair, and what to drop of it, as CSV or Parquet; default: beside the page",
    )
    parser.add_argument(
        "--no-embeddings", action="store_true", help="leave out embedding neighbours even where weights are at hand"
    )
    parser.add_argument(
        "--layout", choices=("auto", "folders", "arrays", "yolo"), default="auto", help="as data.layout (default: auto)"
    )
    options = parser.parse_args(arguments)  # ends with exit code 2 by itself
    try:
        pairs = options.pairs or options.page.with_name(options.page.stem + "_pairs.csv")
        if pairs.suffix not in (".csv", ".parquet"):
            raise UserError(f"--pairs {pairs} names no table: end it in .csv or .parquet.")
        result = _audit(options.folders, options.page, options.json, pairs, not options.no_embeddings, options.layout)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    return LEAKS if result.pairs_across_splits else CLEAN


def _audit(
    folders: list[Path], page_path: Path, json_path: Path | None, pairs_path: Path, embed: bool, layout: str
) -> Certificate:
    import pandas as pd

    from plumbline.imaging.reading import load_rgb
    from plumbline.leakage.certificate import Inputs, certificate, report
    from plumbline.leakage.crossings import recorded_crossings, removals
    from plumbline.leakage.groups import GroupParams, describe_pictures, group_images
    from plumbline.leakage.price import LeakageParams, measure_price
    from plumbline.pages.certificate import page

    params = load_section("group", GroupParams) if PARAMS.exists() else GroupParams()
    sides = [read_side(name, folder, layout) for name, folder in zip(name_sides(folders), folders, strict=True)]
    table = pd.concat([side.manifest.assign(split=side.name) for side in sides], ignore_index=True)
    where = {side.name: side.data for side in sides}

    def picture(path: str) -> NDArray[np.uint8]:
        name, _, inner = path.partition("/")
        return load_rgb(where[name], inner)

    vectors, source = embeddings(table, picture) if embed else (None, "left out (--no-embeddings)")
    pictures = describe_pictures(
        table,
        np.concatenate([side.fingerprints for side in sides]),
        np.concatenate([side.thumbnails for side in sides]),
        lambda row: _grey(picture(str(table["path"].iat[row]))),
        vectors,
    )
    # Chains of likeness in others' data are reported, not refused: the guard is for runs.
    unguarded = params.model_copy(update={"max_share": 1.0})
    grouped = group_images(table, pictures, unguarded, pd.factorize(table["split"])[0].astype(np.int64))
    here = table.merge(grouped.groups, on="path", validate="one_to_one")
    crossing = recorded_crossings(here, grouped.edges, params.columns, params.blank_words)
    to_drop = removals(crossing, here, list(where))

    def tiny(rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.stack([_tiny(picture(path)) for path in here["path"].iloc[rows]])

    inputs = Inputs(
        title="Audit of " + ", ".join(str(folder) for folder in folders),
        sides=here,
        edges=grouped.edges,
        apart=grouped.apart,
        crossing=crossing,
        set_aside=pd.DataFrame({"path": [], "reason": []}, dtype=object),
        price=measure_price(tiny if vectors is None else vectors, here, LeakageParams())
        if here["label"].nunique() > 1
        else None,
        features=source if vectors is not None else "raw 16x16 pixels",
        embeddings=source,
    )
    drops = to_drop.drop_duplicates("drop")["drop_from"].value_counts()
    counts = {str(name): int(n) for name, n in drops.items()}
    result = certificate(inputs).model_copy(update={"pairs_table": str(pairs_path), "to_drop": counts})
    write_text(page_path, page(inputs, result, picture))
    write_table(pairs_path, to_drop)
    write_record(json_path or page_path.with_suffix(".json"), result)
    print(report(result, page_path))
    if counts:
        words = ", ".join(f"{n} pictures of {name}" for name, n in counts.items())
        print(f"every pair, and what to drop so that none is left ({words}): {pairs_path}")
    return result


def name_sides(folders: Sequence[Path]) -> list[str]:
    """Return a short, unique name for each folder; UserError where there are not two different folders."""
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: name the folders of the split, such as train/ and test/.")
    whole = [folder.resolve() for folder in folders]
    if len(set(whole)) < 2 or len(set(whole)) < len(whole):
        raise UserError(f"{folders[-1]}: an audit compares two or more different folders, each named once.")
    for inner in whole:
        outer = next((o for o in whole if o != inner and inner.is_relative_to(o)), None)
        if outer:
            raise UserError(f"{inner} lies inside {outer}: every picture of it would be compared with itself.")
    last = [folder.name for folder in whole]
    return [name if last.count(name) == 1 else f"{name}-{i + 1}" for i, name in enumerate(last)]


def read_side(name: str, folder: Path, layout: str = "auto") -> Side:
    """Read one folder: class folders, arrays, YOLO, or, where there are no labels, any pictures in it.

    `layout` as data.layout in params.yaml: with `auto` what lies there decides.
    """
    from plumbline.imaging.manifest import IngestParams, ingest
    from plumbline.imaging.settings import DataParams

    if not any(folder.iterdir()):
        raise UserError(f"{folder} holds no picture: name a folder with JPEG, PNG, BMP or WebP files.")
    data = DataParams.model_validate({"root": folder, "layout": layout})
    found = ingest(data, IngestParams.model_validate({}))
    if len(found.manifest):
        side = Side(name, data, found.manifest, found.fingerprints, found.thumbnails)
    else:
        side = read_unlabelled(name, data)
    return replace(side, manifest=_named(name, side.manifest, data))


def _named(name: str, manifest: pd.DataFrame, data: DataParams) -> pd.DataFrame:
    """The manifest with the side's name in front of paths, and of photographs called after their files.

    Many sets number the files of each part anew: 0001.jpg of two parts need not be one photograph.
    """
    from plumbline.imaging.layouts.published import photograph
    from plumbline.imaging.metadata import read_table
    from plumbline.imaging.pictures import RESERVED, source_of

    named = manifest.assign(path=name + "/" + manifest["path"])
    if "photo" in manifest:
        table = read_table(data.root, data.metadata, RESERVED)
        said = {values.get("photo") for values in table.rows.values()} if table else set()
        after_file = manifest["photo"] == manifest["path"].map(source_of).map(photograph)
        own = after_file & ~manifest["photo"].isin(said)
        named["photo"] = manifest["photo"].mask(own, name + "/" + manifest["photo"])
    return named


def read_unlabelled(name: str, data: DataParams) -> Side:
    """Read every picture under a folder that has no classes; files that can't be read are named and skipped."""
    import pandas as pd

    from plumbline.common.parallel import in_order
    from plumbline.imaging.decode import DecodeError
    from plumbline.imaging.files import pictures_below
    from plumbline.imaging.manifest import IngestParams, measure
    from plumbline.imaging.pictures import Refused
    from plumbline.imaging.reading import read_source

    def read(path: str) -> Any:
        one = next(read_source(data, path, [path]))
        try:
            return one if isinstance(one, Refused) else measure(one, IngestParams().min_side)
        except DecodeError as error:
            return Refused(path, error.reason, "unreadable")

    measured = []
    for one in in_order(read, pictures_below(data.root)):
        if isinstance(one, Refused):
            print(f"passed over: {data.root / one.path} {one.reason}", file=sys.stderr)
        else:
            measured.append(one)
    if not measured:
        raise UserError(
            f"{data.root} holds no picture that can be read: name a folder with JPEG, PNG, BMP or WebP files."
        )
    manifest = pd.DataFrame([one.row for one in measured]).assign(label="").astype({"phash": "uint64"})
    return Side(
        name, data, manifest, np.stack([m.fingerprint for m in measured]), np.stack([m.thumbnail for m in measured])
    )


def embeddings(table: pd.DataFrame, picture: Any) -> tuple[NDArray[np.float32] | None, str]:
    """Return MobileNetV2 embeddings (N, 1280) where its ImageNet weights are on this machine, else None and why."""
    from plumbline.models.weights import resolve_weights

    os.environ.setdefault("PLUMBLINE_OFFLINE", "1")  # an audit does not download
    weights = resolve_weights("mobilenet_v2", "mobilenet_v2", "auto")
    if weights.origin == "random":
        return (
            None,
            "SKIPPED: no ImageNet weights at hand (PLUMBLINE_WEIGHTS), so no embedding neighbours were looked at",
        )
    from plumbline.imaging.decode import resize
    from plumbline.models.networks import build_backbone, find_network, scale_pixels

    network = build_backbone("mobilenet_v2", 224, str(weights.path), 0)
    scaling = find_network("mobilenet_v2").scaling
    rows = []
    for start in range(0, len(table), 32):
        batch = [resize(picture(path), (224, 224)) for path in table["path"].iloc[start : start + 32]]
        pixels = scale_pixels(np.stack(batch).astype(np.float32), scaling)
        rows.append(np.asarray(network.predict_on_batch(pixels)).mean(axis=(1, 2)))
    return np.concatenate(rows), f"mobilenet_v2, {weights.origin} weights"


def _grey(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    import cv2

    from plumbline.leakage.alignment import shrink

    return shrink(np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), np.uint8))


def _tiny(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    from plumbline.imaging.decode import resize

    return resize(rgb, (16, 16)).reshape(-1).astype(np.float32) / np.float32(255)


def main() -> None:
    """Audit the folders of the command line; exit code 0 clean, 1 leaks, 2 bad input or any other error."""
    run(lambda: sys.exit(audit(sys.argv[1:])), failed=BAD_INPUT)


if __name__ == "__main__":
    main()
