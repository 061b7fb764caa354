"""A full disk, a file that is refused, a user without a name: one sentence, non-zero, and nothing half done."""

from __future__ import annotations

import os
import pickle
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plumbline.common.errors import UserError, WriteError, no_room
from plumbline.common.files import replacing, replacing_folder, write_json, write_table

ROOT = Path(__file__).resolve().parents[3]
LIMIT = 20_000  # bytes


@contextmanager
def files_limited_to(size: int):
    """The kernel refuses to let any file of this process grow further, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _csv(path):
    write_table(path.with_suffix(".csv"), pd.DataFrame({"a": range(20_000)}))


def _parquet(path):
    write_table(path.with_suffix(".parquet"), pd.DataFrame({"a": np.random.default_rng(0).random(20_000)}))


def _json(path):
    write_json(path.with_suffix(".json"), ["x" * 100_000])


def _npy(path):
    with replacing(path.with_suffix(".npy")) as temporary, temporary.open("wb") as handle:
        np.save(handle, np.zeros(20_000), allow_pickle=False)


def _npz(path):
    with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as handle:
        np.savez(handle, a=np.random.default_rng(0).random(20_000))


def _hdf5(path):
    import h5py

    with replacing(path.with_suffix(".h5")) as temporary, h5py.File(temporary, "w") as file:
        file["a"] = np.random.default_rng(0).random(20_000)


def _folder(path):
    with replacing_folder(path) as folder:
        (folder / "small").write_text("x")
        write_table(folder / "big.csv", pd.DataFrame({"a": range(20_000)}))


def _copy(path):
    (path.parent.parent / "source").write_bytes(bytes(100_000))
    with files_limited_to(LIMIT), replacing_folder(path) as folder:
        shutil.copyfile(path.parent.parent / "source", folder / "copy")


@pytest.mark.parametrize("write", [_csv, _parquet, _json, _npy, _npz, _hdf5, _folder, _copy])
def test_whatever_writes_a_full_disk_is_one_sentence_that_names_the_file(tmp_path, write):
    """Each library says it in a way of its own."""
    home = tmp_path / "there"
    home.mkdir()
    (home / "other").write_text("x")
    _json(home / "result")  # what was there stays
    before = {path.name: path.read_bytes() for path in home.iterdir()}
    with pytest.raises(WriteError) as found, nullcontext() if write is _copy else files_limited_to(LIMIT):
        write(home / "result")
    assert str(home / "result") in str(found.value)
    assert "\n" not in str(found.value)
    assert "run again. What was there is unchanged." in str(found.value)
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before, "no litter"


def test_a_file_within_a_folder_is_named_where_it_would_have_been(tmp_path):
    with files_limited_to(LIMIT), pytest.raises(WriteError) as found:
        _folder(tmp_path / "windows")
    assert str(found.value).startswith(f"{tmp_path}/windows/big.csv can't be written (File too large)")


def test_errors_that_are_no_full_disk_pass_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="mine"), replacing(tmp_path / "a"):
        raise ValueError("mine")
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a") as temporary:
        temporary.write_bytes((tmp_path / "missing").read_bytes())
    assert no_room(UserError("x: No space left on device was said elsewhere")) is None
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_nothing_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match=r"file/a\.json can't be written \((Not a directory|File exists)\)"):
        write_json(tmp_path / "file" / "a.json", 1)
    (tmp_path / "a.json").mkdir()
    with pytest.raises(WriteError, match=r"a\.json can't be written \(Is a directory\)"):
        write_json(tmp_path / "a.json", 1)


def test_it_travels_between_processes():
    error = pickle.loads(pickle.dumps(WriteError(Path("a"), "No space left on device")))
    assert (error.path, str(error)) == (Path("a"), str(WriteError("a", "No space left on device")))


def run(code: str, **how):
    return subprocess.run(
        [sys.executable, "-c", f"from plumbline.common.errors import run\n{code}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
        text=True,
        check=False,
        **({"capture_output": True} | how),
    )


def test_output_on_a_full_disk_is_a_failure_and_not_a_traceback():
    with open("/dev/full", "w") as full:
        done = run("run(lambda: print('a result'))", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr.startswith("error: Standard output can't be written (No space left on device)")
    assert len(done.stderr.splitlines()) == 1
    with open("/dev/full", "w") as full:
        both = run("run(lambda: print('x'))", capture_output=False, stdout=full, stderr=full)
    assert both.returncode == 1


def test_exit_codes_are_kept_and_a_refused_file_is_a_sentence(tmp_path):
    assert run("import sys; run(lambda: sys.exit(2))").returncode == 2
    done = run(f"run(lambda: open({str(tmp_path)!r}, 'w'))")
    assert (done.returncode, done.stderr) == (
        1,
        f"error: {tmp_path} can't be opened or written (Is a directory): put that right, then run again.\n",
    )
    done = run("run(lambda: 1 / 0, failed=3)")
    assert done.returncode == 3
    assert "ZeroDivisionError" in done.stderr


ROOT_HERE = ["unshare", "--user", "--map-root-user", "--mount"]


def test_a_real_full_disk(tmp_path):
    """A file system of a megabyte, in a mount of the test's own."""
    code = (
        "import sqlite3\n"
        "from plumbline.common.files import replacing, write_json\n"
        "write_json('disk/first.json', 'x' * 500_000)\n"
        "def fill(table):\n"
        "    table.execute('create table t (a)')\n"
        "    table.execute('insert into t values (?)', ('x' * 900_000,))\n"
        "def main():\n"
        "    with replacing('disk/second.db') as path, sqlite3.connect(path) as table: fill(table)\n"
        "run(main)"
    )
    (tmp_path / "disk").mkdir()
    script = 'mount -t tmpfs -o size=1m tmpfs disk && "$0" -c "$1"; code=$?; ls -A disk; exit $code'
    done = subprocess.run(
        [*ROOT_HERE, "sh", "-c", script, sys.executable, f"from plumbline.common.errors import run\n{code}"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mounts of one's own here: {done.stderr.strip()}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: disk/second.db can't be written (Disk is full)")
    assert done.stdout.split() == ["first.json"]


NAMELESS = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]


def test_a_user_without_name_and_home_gets_both(tmp_path):
    code = (
        "import getpass, pathlib\nfrom plumbline.registry.versions import holder\n"
        "def main(): print(holder().split('@')[0], getpass.getuser(), pathlib.Path.home().is_dir())\n"
        "run(main)"
    )
    done = subprocess.run(
        [*NAMELESS, sys.executable, "-c", f"from plumbline.common.errors import run\n{code}"],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stderr.startswith("unshare"):
        pytest.skip(f"no user ids of one's own here: {done.stderr.strip()}")
    assert done.stdout.split() == ["uid-54321", "uid-54321", "True"], done.stderr
    assert "has no home folder" in done.stderr
