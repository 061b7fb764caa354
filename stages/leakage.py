"""Stage `leakage`: the certificate that nothing leaks, and the price of a split that did not care.

Reads what ingest, group and split wrote and the features of one backbone; writes build/leakage.json (`gate` refuses
when its `pairs_across_splits` is not 0) and reports/leakage.html.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from common.errors import run
from common.files import write_json, write_text
from common.params import Section, load_section
from stages.certificate.build import Inputs, certificate, page, report
from stages.certificate.evidence import crossing_pairs
from stages.certificate.price import price
from stages.group import GroupParams, describe_pictures, grey_reader, read_embeddings

if TYPE_CHECKING:
    import pandas as pd

    from imaging.collection import DataParams

BUILD = Path("build")
PAGE = Path("reports/leakage.html")
RAW_SIDE = 16  # pixels: what stands in for features where no pretrained backbone is at hand


class LeakageParams(Section):
    """params.yaml, section `leakage`: how the price is measured."""

    features: str = "mobilenet_v2"
    repeats: int = Field(default=10, ge=2, le=1000)
    most_images: int = Field(default=2000, ge=50)
    seed: int = Field(default=0, ge=0)


def raw_pixels(data: DataParams, paths: list[str]) -> NDArray[np.float32]:
    """Return (N, 768): each picture at 16 x 16, RGB between 0 and 1."""
    from imaging.collection import iter_rgb

    rows = [rgb.reshape(-1) for rgb in iter_rgb(data, paths, (RAW_SIDE, RAW_SIDE))]
    return np.asarray(rows, np.float32) / np.float32(255)


def price_features(folder: Path, manifest: pd.DataFrame, data: DataParams) -> tuple[NDArray[np.floating[Any]], str]:
    """Return features (N, D) in manifest order to measure the price on, and what they are."""
    vectors, source = read_embeddings(folder, manifest)
    if vectors is not None:
        return vectors, source
    return raw_pixels(data, manifest["path"].tolist()), f"raw {RAW_SIDE}x{RAW_SIDE} pixels, no pretrained weights"


def measure_price(
    features: NDArray[np.floating[Any]], sides: pd.DataFrame, params: LeakageParams
) -> dict[str, Any] | None:
    """Return the price on the images in use; `features` rows are those of `sides`."""
    import pandas as pd

    labels, groups = (pd.factorize(sides[column], sort=True)[0].astype(np.int64) for column in ("label", "group"))
    return price(features, labels, groups, params.repeats, params.most_images, params.seed)


def main() -> None:
    import pandas as pd

    from imaging.collection import DataParams, load_rgb

    params = load_section("leakage", LeakageParams)
    group = load_section("group", GroupParams)
    data = load_section("data", DataParams)
    manifest = pd.read_parquet(BUILD / "manifest.parquet")
    splits = pd.read_parquet(BUILD / "splits.parquet")
    edges = pd.read_parquet(BUILD / "edges.parquet")
    sides = splits.merge(manifest.drop(columns=["id", "label"]), on="path", validate="one_to_one")
    pictures = describe_pictures(
        manifest,
        np.load(BUILD / "fingerprints.npy", allow_pickle=False),
        np.load(BUILD / "thumbnails.npy", mmap_mode="r", allow_pickle=False),
        grey_reader(data, manifest["path"].to_numpy()),
        None,
    )
    features, source = price_features(BUILD / "features" / params.features, manifest, data)
    rows = pd.Index(manifest["path"]).get_indexer(pd.Index(sides["path"]))
    inputs = Inputs(
        title="Leakage certificate",
        sides=sides,
        edges=edges,
        apart=pd.read_parquet(BUILD / "apart.parquet"),
        crossing=crossing_pairs(sides, edges, pictures, group.columns, group, group.blank_words),
        set_aside=pd.read_csv(BUILD / "set_aside.csv", dtype=str),
        price=measure_price(features[rows], sides, params),
        features=source,
        embeddings=json.loads((BUILD / "group.json").read_text(encoding="utf-8"))["embeddings"],
    )
    result = certificate(inputs)
    write_text(PAGE, page(inputs, result, lambda path: load_rgb(data, path)))
    write_json(BUILD / "leakage.json", result)
    print(report(result, PAGE))


if __name__ == "__main__":
    run(main)
