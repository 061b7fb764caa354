"""Partitions: by two Dask workers, and through a store, `ingest` and `featurize` write the bytes they always do."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from distributed import LocalCluster
from PIL import Image

import plumbline.models.extraction
from plumbline.common.errors import UserError
from plumbline.imaging import manifest as measuring
from plumbline.imaging.pictures import Refused
from plumbline.imaging.settings import DataParams
from plumbline.models.backbones import Backbone
from plumbline.models.extraction import featurize, read_pictures
from plumbline.models.weights import Weights
from stages import ingest, weights

pytestmark = pytest.mark.slow

TOP = Path(__file__).parents[2]
RANDOM = Weights("mobilenet", "random", "random", None, None, None)
ENTRY = Backbone(image_size=32, weights="random", pooling="average", views=1, batch_size=4)
OUTPUTS = ("manifest.parquet", "quarantine.csv", "fingerprints.npy", "thumbnails.npy")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A scheduler and two worker processes that can import the stages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TOP))
        with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
            yield cluster


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Ten pictures, two of which can't be read, in a folder of its own; three partitions of them."""
    random = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "data" / "cat" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data" / "cat" / "2a.png").write_bytes((tmp_path / "data" / "cat" / "2.png").read_bytes()[:-300])
    (tmp_path / "data" / "cat" / "5a.jpg").write_bytes(b"")
    backbones = {"mobilenet": ENTRY.model_dump(mode="json")}
    params = {"data": {"root": str(tmp_path / "data")}, "ingest": {"min_side": 8}, "backbones": backbones}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "PARTITION", 5)
    monkeypatch.setattr(plumbline.models.extraction, "BATCHES_A_PARTITION", 1)
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    monkeypatch.delenv("PLUMBLINE_STORE", raising=False)
    return tmp_path


def ingested(project) -> dict[str, bytes]:
    """Run the stage; the bytes of its outputs, which are then removed."""
    ingest.main()
    return {name: [(path := project / "build" / name).read_bytes(), path.unlink()][0] for name in OUTPUTS}


def extracted(project, out) -> dict[str, bytes]:
    manifest = pd.read_parquet(project / "build" / "manifest.parquet", columns=["path", "id"])
    images = functools.partial(read_pictures, DataParams(root=project / "data"))
    featurize(manifest, images, "mobilenet", ENTRY, [RANDOM], project / out)
    return bytes_in(project / out)


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def command(project, *arguments) -> str:
    """Run a stage as dvc.yaml does; what it says."""
    environment = {**os.environ, "PYTHONPATH": str(TOP)}
    ended = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=project, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def never(*_):
    raise AssertionError("this process may not do the work itself")


def objects(store: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of every object: one that is written again has others."""
    found = {path.relative_to(store).as_posix(): path.stat() for path in store.rglob("*") if path.is_file()}
    return {name: (status.st_ino, status.st_mtime_ns) for name, status in found.items()}


def test_ingest_by_two_workers_gives_the_same_bytes(project, cluster, monkeypatch):
    alone = ingested(project)
    assert alone["quarantine.csv"].count(b"cat/") == 2
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
    monkeypatch.setattr(measuring, "_measure_all", never)
    assert ingested(project) == alone


def test_ingest_through_a_store_repeats_nothing_and_notices_damage(project, cluster, monkeypatch, capsys):
    alone = ingested(project)
    store = project / "store"
    monkeypatch.setenv("PLUMBLINE_STORE", store.as_uri())
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_measure_all", never)
        patch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
        assert ingested(project) == alone
        first = objects(store)
        assert len(first) == 3
        assert "3 partitions computed, 0 found" in capsys.readouterr().err
    # Another machine, without workers: all is there.
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_measure_all", never)
        assert ingested(project) == alone
        assert objects(store) == first
        assert "0 partitions computed, 3 found" in capsys.readouterr().err
    cut, flipped = [store / name for name in sorted(first)[:2]]
    cut.write_bytes(cut.read_bytes()[:-100])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
    assert ingested(project) == alone
    said = capsys.readouterr().err
    assert said.count("is damaged") == 2
    assert cut.name in said
    assert flipped.name in said
    assert "2 partitions computed, 1 found" in said
    after = objects(store)
    assert [after[name] == first[name] for name in sorted(first)] == [False, False, True]
    # Other bytes under an old name are another partition, and one file more is in one.
    Image.new("RGB", (48, 40), "red").save(project / "data" / "cat" / "7.png")
    Image.new("RGB", (48, 40), "blue").save(project / "data" / "cat" / "00.png")
    assert ingested(project)["manifest.parquet"] != alone["manifest.parquet"]
    assert "2 partitions computed, 1 found" in capsys.readouterr().err


def test_features_by_workers_are_the_same_bytes_and_the_store_repeats_none(project, cluster, monkeypatch, capsys):
    ingest.main()
    alone = extracted(project, "alone")
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
    # As `python -m` does in dvc.yaml: a stage is `__main__`, whose classes workers can't import.
    weights.main()
    command(project, "stages.featurize", "mobilenet")
    assert bytes_in(project / "build" / "features" / "mobilenet") == alone
    monkeypatch.setattr(plumbline.models.extraction, "compute_rows", never)
    store = project / "store"
    monkeypatch.setenv("PLUMBLINE_STORE", store.as_uri())
    assert extracted(project, "stored") == alone
    assert len(cluster.scheduler.workers) == 2
    first = objects(store)
    assert sorted({name.partition("/")[0] for name in first}) == ["features", "weights"]
    assert "4 partitions computed, 0 found" in capsys.readouterr().err
    (store / next(name for name in first if name.startswith("features"))).unlink()  # as if killed before the last
    assert extracted(project, "again") == alone
    assert "1 partitions computed, 3 found" in capsys.readouterr().err


def test_the_command_of_ingest_finds_workers_too(project, cluster, monkeypatch):
    alone = ingested(project)
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
    monkeypatch.setenv("PLUMBLINE_STORE", "store")
    assert "1 partitions computed, 0 found" in command(project, "stages.ingest")
    assert {name: (project / "build" / name).read_bytes() for name in OUTPUTS} == alone


def test_a_worker_that_sees_other_data_is_refused(project, cluster, monkeypatch):
    """Ingest lists one folder, and by the time that a worker looks the file has another size, or other bytes."""
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "_size", lambda data, source: 1)
        with pytest.raises(UserError, match=r"cat/0\.png in .*data/ on .* is not the file that this run listed"):
            ingest.main()
    images = functools.partial(read_pictures, DataParams(root=project / "data"))
    manifest = pd.DataFrame({"path": ["cat/0.png"], "id": ["0" * 64]})
    with pytest.raises(UserError, match=r"cat/0\.png holds other bytes: it has changed since ingest"):
        featurize(manifest, images, "mobilenet", ENTRY, [RANDOM], project / "f")


def test_a_worker_with_other_code_is_refused(project, cluster, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", cluster.scheduler_address)
    monkeypatch.setattr(measuring.Measuring, "loaded", "what this process has after an edit")
    with pytest.raises(UserError, match=r"the Dask worker on .* has other code loaded than this run"):
        ingest.main()


def test_a_scheduler_that_does_not_answer_is_named(project, monkeypatch):
    monkeypatch.setenv("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:9")
    with pytest.raises(UserError, match=r"tcp://127\.0\.0\.1:9, where no scheduler answers"):
        ingest.main()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://me:secret@127.0.0.1:9/store", "refused"),
        ("nonsense://bucket/store", "nonsense"),
        ("file:///proc/store", "can't be written"),
    ],
)
def test_a_store_that_cannot_be_used_is_one_sentence(project, monkeypatch, url, words):
    monkeypatch.setenv("PLUMBLINE_STORE", url)
    with pytest.raises(UserError, match=re.escape(url.replace("me:secret@", ""))) as error:
        ingest.main()
    assert words in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert not (project / "build").exists()


def test_measurements_survive_packing():
    row = {"path": "a#1", "phash": np.uint64(2**64 - 1), "brightness": 0.123457}
    whole = measuring._Measured(row, np.full((2, 37), 2**64 - 1, np.uint64), np.zeros((81, 96), np.uint8))
    refused = Refused("b\udcff", "is a line\nbreak", "unreadable", "cat")
    first, second = measuring.unpacked(measuring.packed([refused, whole]))
    assert first.row == row
    np.testing.assert_array_equal(first.fingerprint, whole.fingerprint)
    assert second == refused
    assert measuring.unpacked(measuring.packed([])) == []
