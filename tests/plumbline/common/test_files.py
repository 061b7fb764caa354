"""A reader never sees a part of a file, whatever happens to the writer."""

import os
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from plumbline.common.files import replacing, replacing_folder, write_json, write_table, write_text


def test_an_error_leaves_the_old_file_and_no_litter(tmp_path):
    (tmp_path / "a.json").write_text("old")
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a.json", "old")]


def test_an_error_leaves_the_old_folder_and_no_litter(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").write_text("old")

    def fail():
        with replacing_folder(tmp_path / "out") as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "out" / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_replaced_whole(tmp_path):
    for names in (["a", "b"], ["c"]):
        with replacing_folder(tmp_path / "out") as folder:
            for name in names:
                (folder / name).touch()
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["c"]
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_files_are_as_readable_as_any_other(tmp_path):
    old = os.umask(0o022)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("x")
    finally:
        os.umask(old)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_tables_come_back_and_repeat_byte_for_byte(tmp_path, suffix):
    table = pd.DataFrame({"path": ["a", "b"], "value": [1.5, 2.5]})
    for name in ("one", "two"):
        write_table(tmp_path / f"{name}{suffix}", table)
    read = pd.read_parquet if suffix == ".parquet" else pd.read_csv
    pd.testing.assert_frame_equal(read(tmp_path / f"one{suffix}"), table)
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


WRITER = """
import sys
from plumbline.common.files import write_text, replacing_folder
while True:
    for letter in "ab":
        write_text(sys.argv[1] + "/file", letter * 1_000_000)
        with replacing_folder(sys.argv[1] + "/folder") as folder:
            for n in range(20):
                (folder / str(n)).write_text(letter)
"""


@pytest.mark.slow
def test_killed_at_any_moment_a_write_is_whole_or_absent(tmp_path):
    """SIGKILL while a process rewrites a file and a folder without end."""
    for number in range(15):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)])
        deadline = time.monotonic() + 20
        while not (tmp_path / "folder").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.013 * number)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert set((tmp_path / "file").read_text()) in ({"a"}, {"b"})
        assert len((tmp_path / "file").read_text()) == 1_000_000
        if (tmp_path / "folder").exists():
            contents = {(tmp_path / "folder" / str(n)).read_text() for n in range(20)}
            assert contents in ({"a"}, {"b"})


def test_no_file_of_another_thread_is_ever_made_under_another_umask(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("the umask belongs to all threads"))
    write_text(tmp_path / "x.json", "{}")
    assert (tmp_path / "x.json").read_text() == "{}"
