"""`plumbline predict`: the same answers as the service, a row a file, a kill that costs a part, and Dask workers."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from running import Project, png, until

pytestmark = pytest.mark.slow


@pytest.fixture
def project(tmp_path, registered):
    return Project(tmp_path / "p", registered).champion(1)


@pytest.fixture
def folder(tmp_path, known):
    """Pictures in folders, a file that is none, hidden ones, and a link that leads out."""
    root = tmp_path / "pictures"
    for n, content in enumerate(known.values()):
        path = root / f"gate {n % 3}" / f"{n:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (root / "torn.jpg").write_bytes(b"no picture")
    (root / "notes.txt").write_bytes(b"text")
    (root / ".hidden.png").write_bytes(b"x")
    (root / "link.png").symlink_to("/etc/passwd")
    return root


def command(project, *arguments, **env):
    return subprocess.run(
        [sys.executable, "-m", "plumbline.cli", "predict", *map(str, arguments)],
        cwd=project.root, env={**project.environment, **env}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_a_row_for_each_picture_with_the_answers_of_the_service(project, folder, known):
    done = command(project, folder, "out.parquet")
    assert done.returncode == 0, done.stderr
    assert "41 pictures, 1 of them could not be read" in done.stdout
    table = pd.read_parquet(project.root / "out.parquet").set_index("path")
    assert len(table) == 41
    assert table.loc["torn.jpg", "problem"].startswith("is not a picture")
    assert table.loc["torn.jpg", "label"] is None
    assert not (project.root / "out.parquet.parts").exists()
    with project.serving("--workers", "1") as service:
        for n, content in enumerate(list(known.values())[:8]):
            answer = service.predict(content).json()["answers"][0]
            row = table.loc[f"gate {n % 3}/{n:03d}.png"]
            for key in ("label", "unsure", "alarm"):
                assert row[key] == answer[key]
            for key in ("confidence", "distance"):
                assert row[key] == pytest.approx(answer[key], abs=1e-5)
            assert row["p_with_helmet"] == pytest.approx(answer["probabilities"]["with_helmet"], abs=1e-5)
    assert (table["version"] == 1).all()


def test_a_killed_run_goes_on_where_it_stopped(project, tmp_path):
    root = tmp_path / "many"
    root.mkdir()
    random = np.random.default_rng(0)
    picture = png(random.integers(0, 256, (700, 700, 3), np.uint8))
    for n in range(900):
        (root / f"{n:04d}.png").hardlink_to(root / "0000.png") if n else (root / "0000.png").write_bytes(picture)
    parts = project.root / "out.parquet.parts"
    started = [sys.executable, "-m", "plumbline.cli", "predict", str(root), "out.parquet"]
    process = subprocess.Popen(started, cwd=project.root, env=project.environment, stderr=subprocess.DEVNULL)
    until(lambda: len(list(parts.glob("[0-9]*.parquet"))) >= 1 or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("[0-9]*.parquet")}
    assert kept
    assert not (project.root / "out.parquet").exists()
    process = subprocess.Popen(started, cwd=project.root, env=project.environment, stderr=subprocess.PIPE, text=True)
    until(lambda: (parts / "plan.json").exists())
    time.sleep(0.1)
    again = {path: path.stat().st_mtime_ns for path in kept if path.exists()}
    assert again.items() <= kept.items()
    error = process.communicate()[1]
    assert process.returncode == 0, error
    assert f"{len(kept)} of 4 parts were done before" in error
    table = pd.read_parquet(project.root / "out.parquet")
    assert list(table["path"]) == [f"{n:04d}.png" for n in range(900)]
    assert table["problem"].isna().all()


def test_parts_of_other_files_are_not_taken(project, folder):
    parts = project.root / "out.parquet.parts"
    parts.mkdir()
    (parts / "plan.json").write_text("{}")
    (parts / "000000.parquet").write_bytes(b"of another run")
    done = command(project, folder, "out.parquet")
    assert done.returncode == 0, done.stderr
    assert "begun anew" in done.stderr
    assert len(pd.read_parquet(project.root / "out.parquet")) == 41


def test_what_can_not_be_is_one_sentence(project, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((tmp_path / "nowhere", "o.parquet"), "is no folder"),
        ((tmp_path / "empty", "o.parquet"), "holds no picture"),
        ((folder, "o.csv"), "is no .parquet"),
    ):
        done = command(project, *arguments)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_dask_workers_and_a_store_give_the_same_rows_and_repeat_nothing(project, folder, tmp_path, monkeypatch):
    from distributed import LocalCluster

    assert command(project, folder, "here.parquet").returncode == 0
    monkeypatch.setenv("PYTHONPATH", project.environment["PYTHONPATH"])
    monkeypatch.chdir(project.root)
    store = {"PLUMBLINE_STORE": str(tmp_path / "store")}
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        env = {**store, "DASK_SCHEDULER_ADDRESS": cluster.scheduler_address}
        first = command(project, folder, "there.parquet", **env)
        assert "predictions: 1 partitions computed, 0 found" in first.stderr, first.stderr
        again = command(project, folder, "again.parquet", **env)
        assert "predictions: 0 partitions computed, 1 found" in again.stderr
    here, there = (pd.read_parquet(project.root / f"{name}.parquet") for name in ("here", "there"))
    pd.testing.assert_frame_equal(here, there)


def test_the_last_champion_known_here_answers_when_the_registry_is_gone(project, folder):
    import shutil

    assert command(project, folder, "a.parquet").returncode == 0
    with project.serving("--workers", "1"):
        pass  # the service knows the champion from here on
    shutil.rmtree(project.root / "registry")
    done = command(project, folder, "b.parquet")
    assert done.returncode == 0, done.stderr
    assert "the last known here, answers" in done.stderr
    assert os.path.exists(project.root / "b.parquet")
