"""Stage `leakage`: the certificate that nothing leaks, and what a random split would have claimed.

Reads what ingest, group and split wrote and the features of one backbone; writes build/leakage.json (`gate` refuses
when its `pairs_across_splits` is not 0) and reports/leakage.html.
"""

from __future__ import annotations

from plumbline.common import artefacts
from plumbline.common.errors import run
from plumbline.common.files import write_text
from plumbline.common.params import load_section
from plumbline.common.records import read_array, read_record, read_table, write_record
from plumbline.leakage.certificate import Inputs, certificate, report
from plumbline.leakage.crossings import crossing_pairs
from plumbline.leakage.groups import GroupParams, describe_pictures, grey_reader
from plumbline.leakage.price import LeakageParams, measure_price, price_features
from plumbline.leakage.records import Grouping
from plumbline.pages.certificate import page


def main() -> None:
    """Write build/leakage.json and reports/leakage.html."""
    import pandas as pd

    from plumbline.imaging.reading import load_rgb
    from plumbline.imaging.settings import DataParams

    params = load_section("leakage", LeakageParams)
    group = load_section("group", GroupParams)
    data = load_section("data", DataParams)
    manifest = read_table(artefacts.MANIFEST)
    splits = read_table(artefacts.SPLITS)
    edges = read_table(artefacts.EDGES)
    sides = splits.merge(manifest.drop(columns=["id", "label"]), on="path", validate="one_to_one")
    pictures = describe_pictures(
        manifest,
        read_array(artefacts.FINGERPRINTS),
        read_array(artefacts.THUMBNAILS, mapped=True),
        grey_reader(data, manifest["path"].to_numpy()),
        None,
    )
    features, source = price_features(artefacts.FEATURES / params.features, manifest, data)
    rows = pd.Index(manifest["path"]).get_indexer(pd.Index(sides["path"]))
    inputs = Inputs(
        title="Leakage certificate",
        sides=sides,
        edges=edges,
        apart=read_table(artefacts.APART),
        crossing=crossing_pairs(sides, edges, pictures, group.columns, group, group.blank_words),
        set_aside=pd.read_csv(artefacts.SET_ASIDE, dtype=str),
        price=measure_price(features[rows], sides, params),
        features=source,
        embeddings=read_record(artefacts.GROUPING, Grouping).embeddings,
    )
    result = certificate(inputs)
    write_text(artefacts.CERTIFICATE_PAGE, page(inputs, result, lambda path: load_rgb(data, path)))
    write_record(artefacts.CERTIFICATE, result)
    print(report(result, artefacts.CERTIFICATE_PAGE.path))


if __name__ == "__main__":
    run(main)
