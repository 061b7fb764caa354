"""A partition is computed once, found in the store afterwards, and never taken over where code or data differ."""

import os

import numpy as np
import pytest

from plumbline.common import cluster
from plumbline.common.cluster import Stored, carry_out, digest, is_wanted, on_workers, spread, versions
from plumbline.common.errors import UserError
from plumbline.common.store import Store


class Squares:
    """Squares a number; remembers what it was asked to compute."""

    kind, alone, loaded = "squares", False, "code 1"

    def __init__(self, code="code 1", keys=lambda task: digest(task)):
        self.code, self.keys, self.computed = code, keys, []

    def key(self, task):
        return self.keys(task)

    def compute(self, task):
        self.computed.append(task)
        return {"square": np.array([task * task])}


def locally(function, tasks):
    return map(function, tasks)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    monkeypatch.setenv("PLUMBLINE_STORE", str(tmp_path / "store"))
    return Store(str(tmp_path / "store"))


def test_partitions_are_wanted_where_the_environment_names_a_scheduler_or_a_store(monkeypatch):
    monkeypatch.delenv("DASK_SCHEDULER_ADDRESS", raising=False)
    monkeypatch.delenv("PLUMBLINE_STORE", raising=False)
    assert not is_wanted()
    monkeypatch.setenv("PLUMBLINE_STORE", "memory://here")
    assert is_wanted()


def test_results_come_in_the_order_of_the_tasks_and_are_computed_once(store, capsys):
    first, second = Squares(), Squares()
    assert [found["square"][0] for found in spread(first, [3, 1, 2], locally)] == [9, 1, 4]
    assert [found["square"][0] for found in spread(second, [3, 1, 2], locally)] == [9, 1, 4]
    assert (first.computed, second.computed) == ([3, 1, 2], [])
    assert "squares: 3 partitions computed, 0 found in" in capsys.readouterr().err.splitlines()[0]


def test_a_damaged_object_is_named_and_computed_again(store, tmp_path, capsys):
    list(spread(Squares(), [3], locally))
    (path,) = (tmp_path / "store").rglob("*.npz")
    path.write_bytes(path.read_bytes()[:40])
    again = Squares()
    assert [found["square"][0] for found in spread(again, [3], locally)] == [9]
    assert again.computed == [3]
    assert f"{path.relative_to(tmp_path / 'store')} is damaged" in capsys.readouterr().err


def test_an_object_that_vanishes_is_a_sentence(store, monkeypatch):
    monkeypatch.setattr(cluster, "carry_out", lambda work, store, task: Stored("squares/ab/cd.npz", False, None))
    with pytest.raises(UserError, match=r"squares/ab/cd\.npz was there and is gone"):
        list(spread(Squares(), [3], locally))


def test_a_worker_with_other_code_computes_nothing(store):
    other = Squares(code="code 2")
    with pytest.raises(UserError, match="has other code loaded than this run"):
        carry_out(other, store, 3)
    assert other.computed == []


def test_a_worker_leaves_out_the_lines_of_tensorflow(monkeypatch):
    for name in ("TF_CPP_MIN_LOG_LEVEL", "PLUMBLINE_VERBOSE"):
        monkeypatch.delenv(name, raising=False)
    carry_out(Squares(), None, 3)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "2"


def test_data_that_changes_while_it_is_read_is_not_stored(store, tmp_path):
    keys = iter(["a" * 64, "b" * 64])
    with pytest.raises(UserError, match="the data changed on"):
        carry_out(Squares(keys=lambda task: next(keys)), store, 3)
    assert not list((tmp_path / "store").rglob("*.npz"))


def test_an_address_that_is_none_is_a_sentence():
    with pytest.raises(UserError, match=r"DASK_SCHEDULER_ADDRESS is carrier-pigeon://nowhere, where no scheduler"):
        list(on_workers("carrier-pigeon://nowhere", len, ["a"]))


def test_a_digest_depends_on_values_and_not_on_the_order_of_keys():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len({digest(1, 2), digest(2, 1), digest([1, 2])}) == 3


def test_versions_are_those_installed_and_none_for_what_is_not():
    assert versions("numpy", "no-such-package") == {"numpy": np.__version__, "no-such-package": None}
