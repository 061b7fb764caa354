"""A picture gives the same row as a part of the data set and as a new one of a site, by the same rules."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monitoring.collect import Measured, Source, Unreadable, measure_all
from plumbline.imaging.collection import DataParams
from plumbline.imaging.manifest import IngestParams, ingest


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for name, size in (("a", (40, 30)), ("b", (30, 40)), ("small", (9, 30))):
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        (tmp_path / "data" / name[0]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "data" / name[0] / f"{name}.jpg", quality=90)
    return tmp_path / "data"


@pytest.mark.parametrize(("min_side", "left_out"), [(8, set()), (16, {"s/small.jpg"})])
def test_ingest_and_monitoring_measure_alike(folder, min_side, left_out):
    data = DataParams(root=folder)
    ours = ingest(data, IngestParams(min_side=min_side))
    source = Source(str(folder))
    theirs = list(measure_all(source, source.list(), 32, data, min_side))
    refused = {one.file.path: one.reason for one in theirs if isinstance(one, Unreadable)}
    assert refused == dict(zip(ours.quarantine["path"], ours.quarantine["reason"], strict=True))
    assert set(refused) == left_out
    assert all(f"fewer than ingest.min_side {min_side}" in reason for reason in refused.values())
    table = pd.DataFrame([one.row for one in theirs if isinstance(one, Measured)]).set_index("path")
    manifest = ours.manifest.set_index("path")
    shared = [column for column in manifest if column in table]
    assert {"id", "pixels_sha256", "width", "bytes", "format", "phash", "brightness", "sharpness"} <= set(shared)
    pd.testing.assert_frame_equal(table.loc[manifest.index, shared], manifest[shared], check_dtype=False)
