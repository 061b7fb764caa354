"""Promotion under faults: killed, at the same time, on a full disk, with the registry down. Real processes all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from benchmarks.promotion_kills import _quiet_environment
from plumbline.registry import history as journal
from plumbline.registry import versions as registry

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[2]
RUN = """
import sys
from pathlib import Path
from benchmarks.tiny_project import exported_project
from plumbline.common.errors import run
from plumbline.registry.promotion import PromoteParams, Wish, promote
def main():
    project = exported_project(Path(sys.argv[1]))
    print(promote(PromoteParams(minimum_unseen_groups=3), Wish(), project).outcome)
run(main)
"""


@pytest.fixture(scope="module")
def candidates(tiny_projects, tmp_path_factory):
    base = tmp_path_factory.mktemp("faults")
    for name, known in (("one", "good"), ("two", "better"), ("three", "best")):
        (base / name).symlink_to(tiny_projects / known)
    return base


def start(candidate, folder, prelude="", **environment):
    return subprocess.Popen(
        [sys.executable, "-c", prelude + RUN, str(candidate)],
        cwd=folder,
        env=_quiet_environment() | {"PYTHONPATH": str(REPOSITORY)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=240)
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    return process.returncode, out.strip().split("\n")[-1], errors


def promote_in_process_of_its_own(candidate, folder, **more):
    return finish(start(candidate, folder, **more))


@pytest.fixture(scope="module")
def first(candidates, tmp_path_factory):
    """A registry with version 1 as champion; copied, never changed."""
    folder = tmp_path_factory.mktemp("first")
    assert promote_in_process_of_its_own(candidates / "one", folder) == (0, "promoted", [])
    return folder / "registry"


@pytest.fixture
def opened(first, tmp_path, monkeypatch):
    """A copy of it in the current folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(first, tmp_path / "registry")
    return registry.open_registry()


def champion_is_whole():
    version = registry.load_version()
    assert journal.broken_links(registry.open_registry()) == []
    return version.version


@pytest.mark.slow
def test_killed_at_any_line_nothing_is_half_promoted(tmp_path):
    """The benchmark kills hundreds; these few see that it still finds everything whole."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.promotion_kills", "--kills", "20", "--whole", "0", "--json", tmp_path / "t"],
        cwd=REPOSITORY,
        env=_quiet_environment(),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    table = json.loads((tmp_path / "t").read_text())
    assert {row["scene"] for row in table} == {"promote", "roll back", "first"}
    assert sum(row["killed at a line"] for row in table) >= 10
    assert sum(row["kills"] for row in table) >= 10


@pytest.mark.slow
def test_two_promotions_at_the_same_time_end_as_if_one_after_the_other(opened, candidates, tmp_path):
    both = [start(candidates / name, tmp_path) for name in ("two", "three")]
    results = [finish(process) for process in both]
    assert results == [(0, "promoted", []), (0, "promoted", [])]
    assert champion_is_whole() in (2, 3)
    assert registry.number(registry.find(opened, "previous")) in (2, 3)
    assert journal.champions(journal.entries(opened)) in ([1, 2, 3],)
    numbers = [entry.number for entry in journal.entries(opened)]
    assert numbers == sorted(set(numbers))


@pytest.mark.slow
def test_the_first_two_promotions_ever_at_the_same_time(candidates, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    both = [start(candidates / name, tmp_path) for name in ("one", "two")]
    assert [finish(process) for process in both] == [(0, "promoted", []), (0, "promoted", [])]
    assert champion_is_whole() == 2


@pytest.mark.slow
def test_a_file_that_may_not_grow_is_a_full_disk_and_the_next_run_completes(opened, candidates, tmp_path):
    """RLIMIT_FSIZE refuses writes beyond a size as a full disk does, without needing root."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
    code, _, errors = promote_in_process_of_its_own(candidates / "two", tmp_path, prelude=limit)
    assert code == 1
    assert len(errors) == 1
    assert "No room left on the disk" in errors[0]
    assert champion_is_whole() == 1
    assert promote_in_process_of_its_own(candidates / "two", tmp_path) == (0, "promoted", [])
    assert champion_is_whole() == 2


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB under the registry: needs the right to mount."""
    place = tmp_path / "registry"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no right to mount a small disk here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)  # this process may still have the database open


@pytest.mark.slow
def test_a_disk_that_fills_up_at_any_point_leaves_the_champion(small_disk, candidates, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    assert promote_in_process_of_its_own(candidates / "one", tmp_path)[:2] == (0, "promoted")
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    for left in (0, 60_000, 400_000):
        ballast.write_bytes(b"x" * max(0, free - left))
        code, _, errors = promote_in_process_of_its_own(candidates / "two", tmp_path)
        assert (code, len(errors)) == (1, 1)
        assert "No room left on the disk" in errors[0]
        assert champion_is_whole() == 1
        ballast.unlink()
    assert promote_in_process_of_its_own(candidates / "two", tmp_path)[:2] == (0, "promoted")
    assert champion_is_whole() == 2
    left_over = [path.name for path in (small_disk / "artifacts" / "models").iterdir() if any(path.rglob("*.onnx"))]
    assert len(left_over) == 2


class Server:
    """`mlflow server` in a folder, stopped and started at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("mlflow")), "server", "--port", str(self.port), "--workers", "1"),
                *("--backend-store-uri", f"sqlite:///{self.folder}/server.db"),
                *("--artifacts-destination", str(self.folder / "files")),
            ],
            env=_quiet_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        until = time.monotonic() + 90
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.3)
        raise RuntimeError("mlflow server did not start")

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path, monkeypatch):
    server = Server(tmp_path)
    server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    monkeypatch.setenv("PLUMBLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    yield server
    server.stop()


@pytest.mark.slow
def test_on_a_server_that_goes_down_and_comes_back(server, candidates, tmp_path):
    there = {"MLFLOW_TRACKING_URI": server.uri, "PLUMBLINE_CACHE": str(tmp_path / "cache")}
    assert promote_in_process_of_its_own(candidates / "one", tmp_path, **there) == (0, "promoted", [])
    assert registry.load_version().version == 1

    server.stop()
    code, _, errors = promote_in_process_of_its_own(
        candidates / "two", tmp_path, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", **there
    )
    assert code == 1
    assert len(errors) == 1
    assert f"{server.uri} does not answer: start it" in errors[0]
    with pytest.raises(registry.RegistryDownError):
        registry.load_version()
    kept = registry.load_version(cached_if_down=True)
    assert (kept.version, kept.from_cache) == (1, True)

    server.start()
    assert champion_is_whole() == 1
    assert promote_in_process_of_its_own(candidates / "two", tmp_path, **there) == (0, "promoted", [])
    assert champion_is_whole() == 2


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_of_an_upload(server, candidates, tmp_path):
    there = {"MLFLOW_TRACKING_URI": server.uri, "PLUMBLINE_CACHE": str(tmp_path / "cache")}
    assert promote_in_process_of_its_own(candidates / "one", tmp_path, **there)[:2] == (0, "promoted")
    process = start(candidates / "two", tmp_path, MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", **there)
    until = time.monotonic() + 120
    while len(list((tmp_path / "files").rglob("model.onnx"))) < 2 and time.monotonic() < until:
        time.sleep(0.002)
    server.stop()
    code, _, errors = finish(process)
    assert (code, len(errors)) == (1, 1)
    assert "does not answer" in errors[0]
    server.start()
    assert champion_is_whole() == 1
    assert promote_in_process_of_its_own(candidates / "two", tmp_path, **there)[:2] == (0, "promoted")
    assert champion_is_whole() == 2
    running = registry.open_registry().client.search_runs(["1"], "attributes.status = 'RUNNING'")
    assert running == []
