"""Stage `leakage`: the certificate that nothing leaks, and the price of a split that did not care.

Reads what ingest, group and split wrote and the features of one backbone; writes build/leakage.json (`gate` refuses
when its `pairs_across_splits` is not 0) and reports/leakage.html.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from plumbline.common.errors import run
from plumbline.common.files import write_json, write_text
from plumbline.common.params import load_section
from plumbline.leakage.certificate import Inputs, certificate, report
from plumbline.leakage.crossings import crossing_pairs
from plumbline.leakage.groups import GroupParams, describe_pictures, grey_reader
from plumbline.leakage.price import LeakageParams, measure_price, price_features
from plumbline.pages.certificate import page

BUILD = Path("build")
PAGE = Path("reports/leakage.html")
RAW_SIDE = 16  # pixels: what stands in for features where no pretrained backbone is at hand


def main() -> None:
    import pandas as pd

    from plumbline.imaging.collection import DataParams, load_rgb

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
        crossing=crossing_pairs(sides, edges, pictures, group.columns, group),
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
