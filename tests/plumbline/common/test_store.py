"""A store: whole objects or none, damage noticed anywhere, and one sentence where it can't be used."""

import sys

import numpy as np
import pytest

from plumbline.common.errors import UserError
from plumbline.common.store import DamagedError, Store, open_store


def test_a_store_without_its_package_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setenv("PLUMBLINE_STORE", "s3://bucket/plumbline")
    with pytest.raises(UserError, match=r"PLUMBLINE_STORE is s3://bucket/plumbline, .*Install s3fs"):
        open_store()


def test_a_relative_folder_is_the_same_for_workers_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLUMBLINE_STORE", "shared")
    store = open_store()
    monkeypatch.chdir("/")
    store.write("a", {"x": np.arange(3)})
    np.testing.assert_array_equal(np.load(tmp_path / "shared" / "a")["x"], np.arange(3))


@pytest.mark.parametrize("url", ["memory://store", "file://{folder}"])
def test_an_object_damaged_anywhere_is_never_taken_for_whole(tmp_path, url):
    store = Store(url.format(folder=tmp_path))
    arrays = {"x": np.arange(40, dtype=np.uint8).reshape(4, 10), "y": np.float16([0.5, -1])}
    store.write("one", arrays)
    data = store.read_bytes("one")
    assert store.read("two") is None
    for place in range(0, len(data), 3):
        damaged = bytearray(data)
        damaged[place] ^= 4
        store.write_bytes("one", bytes(damaged))
        try:
            read = store.read("one")
        except DamagedError:
            continue
        # Some bytes of a ZIP, its dates for instance, say nothing of the content.
        assert {key: value.tolist() for key, value in read.items()} == {k: v.tolist() for k, v in arrays.items()}
        assert [value.dtype for value in read.values()] == [value.dtype for value in arrays.values()]
    for size in range(0, len(data), 7):
        store.write_bytes("one", data[:size])
        with pytest.raises(DamagedError):
            store.read("one")


def test_no_object_is_ever_unpickled(tmp_path):
    np.savez(tmp_path / "evil.npz", x=np.array([{}], dtype=object))
    with pytest.raises(DamagedError, match="allow_pickle"):
        Store(tmp_path.as_uri()).read("evil.npz")
