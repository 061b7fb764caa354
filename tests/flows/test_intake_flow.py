"""The intake flow on a real project: a new version, or the old one whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from flows.intake import intake, merged_metadata
from tests.flows.conftest import copy_of, enter

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("server")]


def draw(path, seed):
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((64, 48), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def stocked(template, tmp_path_factory):
    """The project with pictures for data, and a batch of two new ones and a copy beside it; copied, never changed."""
    project = copy_of(template, tmp_path_factory.mktemp("stocked") / "copy")
    shutil.rmtree(project.root / "data")
    for number in range(3):
        draw(project.root / "data" / "with_helmet" / f"{number}.png", number)
    draw(project.root / "data" / "without_helmet" / "9.png", 9)
    (project.root / "data" / "metadata.csv").write_text("path,photo\nwith_helmet/1.png,p1\n")
    (project.root / "params.yaml").write_text("data: {}\ngroup: {}\ningest: {}\nintake: {}\n")
    project.dvc("add", "-q", "data")
    project.dvc("push", "-q")
    project.commit("pictures")
    batch = project.root.parent / "batch"
    draw(batch / "with_helmet" / "1.png", 21)
    draw(batch / "without_helmet" / "b.png", 22)
    draw(batch / "without_helmet" / "old.png", 9)
    (batch / "metadata.csv").write_text("path,site\nwith_helmet/1.png,gate\n")
    return batch.parent


@pytest.fixture
def pictures(stocked, tmp_path, monkeypatch):
    """A fresh copy of it, the current folder."""
    project = enter(copy_of(stocked, tmp_path / "copy"), monkeypatch)
    project.batch = project.root.parent / "batch"
    return project


def files(project):
    return sorted(str(path.relative_to(project.root / "data")) for path in (project.root / "data").rglob("*.*"))


def take(project, **parameters):
    return intake(str(project.batch), return_state=True, **parameters)


def test_a_batch_becomes_a_version_a_commit_and_a_push(pictures):
    before = pictures.git("rev-parse", "HEAD").strip()
    state = take(pictures)
    assert state.is_completed(), state.message
    assert state.message.startswith("2 pictures added as data version ")
    assert len(files(pictures)) == 7
    assert pictures.git("rev-parse", "HEAD~1").strip() == before
    assert pictures.git("diff", "--name-only", "HEAD~1").split() == ["data.dvc"]
    assert pictures.git("status", "--porcelain").strip() == ""
    assert pictures.dvc("status", "data.dvc").strip() == "Data and pipelines are up to date."
    text = (pictures.root / "data" / "metadata.csv").read_text()
    assert text.startswith("path,photo,site\nwith_helmet/1.png,p1,\nwith_helmet/1-")
    assert pictures.git("worktree", "list").count("\n") == 1
    # A stranger gets it from the remote alone.
    shutil.rmtree(pictures.root / ".dvc" / "cache")
    shutil.rmtree(pictures.root / "data")
    pictures.dvc("pull", "-q", "data.dvc")
    assert len(files(pictures)) == 7


def test_nothing_enters_twice(pictures):
    take(pictures)
    commit = pictures.git("rev-parse", "HEAD")
    again = take(pictures)
    assert (again.type.value, again.name) == ("COMPLETED", "NothingNew")
    assert pictures.git("rev-parse", "HEAD") == commit


@pytest.mark.parametrize("folder", ["With_Helmet", "with_helmt"])
def test_a_class_that_data_does_not_have_changes_nothing(pictures, folder):
    shutil.rmtree(pictures.batch)
    draw(pictures.batch / folder / "v.png", 40)
    before, commit = files(pictures), pictures.git("rev-parse", "HEAD")
    state = take(pictures)
    assert state.is_failed()
    assert f"{folder} (1 picture)" in str(state.result(raise_on_failure=False))
    assert (files(pictures), pictures.git("rev-parse", "HEAD")) == (before, commit)


def run_intake(project, *arguments):
    from prefect.settings import PREFECT_API_URL

    return subprocess.run(
        [sys.executable, "-m", "flows.intake", *map(str, arguments), "--no-training"],
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()},
        cwd=project.root,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_command_says_which_options_take_a_class_in_and_they_do(pictures):
    shutil.move(pictures.batch / "without_helmet", pictures.batch / "Without Helmet")
    draw(pictures.batch / "vest" / "v.png", 40)
    asked = run_intake(pictures, pictures.batch)
    assert asked.returncode == 1
    options = ["--as", "Without Helmet=without_helmet", "--new-class", "vest"]
    assert "--as 'Without Helmet=without_helmet'" in asked.stderr
    assert "--new-class vest" in asked.stderr
    taken = run_intake(pictures, pictures.batch, *options)
    assert taken.returncode == 0, taken.stderr
    assert "3 pictures added" in taken.stdout
    folders = {name.split("/")[0] for name in files(pictures) if "/" in name}
    assert folders == {"with_helmet", "without_helmet", "vest"}


def test_an_exports_labels_stay_labels_and_its_commit_bears_its_name(pictures):
    """Labels that are paths are refused by task; the rest goes in; nothing lies outside data/."""
    media = pictures.root.parent / "media"
    labels = ["../outside", str(pictures.root.parent / "absolute"), "N/A", ".unsure", "with_helmet"]
    tasks = []
    for number, label in enumerate(labels, 1):
        draw(media / f"{number}.png", 60 + number)
        result = [{"type": "choices", "from_name": "helmet_state", "value": {"choices": [label]}}]
        tasks.append({"id": number, "data": {"image": f"{number}.png"}, "annotations": [{"result": result}]})
    (media / "week 48.json").write_text(json.dumps(tasks))
    before = {path for path in pictures.root.parent.rglob("*") if ".git" not in path.parts and ".dvc" not in path.parts}
    state = intake(str(media / "week 48.json"), return_state=True)
    assert state.is_completed(), state.message
    assert state.message.startswith("1 pictures added")
    assert "4 left out" in state.message
    after = {path for path in pictures.root.parent.rglob("*") if ".git" not in path.parts and ".dvc" not in path.parts}
    added = [path for path in after - before if "remote" not in path.parts]
    assert [path.parent for path in added] == [pictures.root / "data" / "with_helmet"]
    assert pictures.git("log", "-1", "--format=%s").strip() == "Take in 1 pictures of week 48.json"


def test_changes_that_are_no_version_yet_are_not_lost(pictures):
    draw(pictures.root / "data" / "with_helmet" / "mine.png", 77)
    state = take(pictures)
    assert state.is_failed()
    assert "data/ has changes that are no version yet" in str(state.result(raise_on_failure=False))
    assert (pictures.root / "data" / "with_helmet" / "mine.png").exists()


def test_a_remote_that_is_away_leaves_the_old_version(pictures, monkeypatch):
    remote = pictures.root.parent / "remote"
    remote.rename(remote.with_name("away"))
    remote.write_text("in the way")
    monkeypatch.setattr("flows.intake._add_version.retries", 0)
    before, commit = files(pictures), pictures.git("rev-parse", "HEAD")
    assert take(pictures).is_failed()
    assert (files(pictures), pictures.git("rev-parse", "HEAD")) == (before, commit)
    assert pictures.git("status", "--porcelain").strip() == ""
    remote.unlink()
    remote.with_name("away").rename(remote)
    assert take(pictures).is_completed()


KILL_AT = """
import os, signal, sys
import flows.switch, flows.intake
name, where = sys.argv[1], sys.argv[2]
module = flows.switch if name in ("write_json", "_place") else flows.intake
inner = getattr(module, name)
def outer(*arguments, **named):
    if where == "before": os.kill(os.getpid(), signal.SIGKILL)
    inner(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, name, outer)
flows.intake.intake(sys.argv[3])
"""


@pytest.mark.parametrize(
    ("step", "where", "present"),
    [("run_dvc", "after", 5), ("switch", "before", 5), ("write_json", "after", 5), ("_place", "after", 7)],
)
def test_killed_there_it_ends_as_if_never_killed(pictures, step, where, present):
    """SIGKILL at each step: the data in place are one version or the other, and the next run completes the batch."""
    from prefect.settings import PREFECT_API_URL

    env = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    old = pictures.git("rev-parse", "HEAD")
    killed = subprocess.run(
        [sys.executable, "-c", KILL_AT, step, where, str(pictures.batch)],
        env=env,
        cwd=pictures.root,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert pictures.git("rev-parse", "HEAD") == old
    assert len(files(pictures)) == present
    time.sleep(0.3)
    state = take(pictures)
    assert state.is_completed(), state.message
    assert len(files(pictures)) == 7
    assert pictures.git("rev-parse", "HEAD~1") == old
    assert pictures.dvc("status", "data.dvc").strip() == "Data and pipelines are up to date."


@pytest.mark.parametrize(("where", "name"), [("before", "Completed"), ("after", "NothingNew")])
def test_a_batch_whose_run_was_killed_is_told_of_once_and_trained_on(pictures, messages, where, name):
    """SIGKILL before or after its pictures are in: whoever comes next tells of them, and asks for training."""
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL

    killed = subprocess.run(
        [sys.executable, "-c", KILL_AT, "switch", where, str(pictures.batch)],
        env={**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()},
        cwd=pictures.root,
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert messages == []
    assert take(pictures).name == name
    assert take(pictures).name == "NothingNew"
    (message,) = messages
    assert message["what"] == "intake"
    assert message["text"].startswith("2 pictures added as data version ")
    commit = pictures.git("rev-parse", "HEAD")
    assert f"commit {commit[:7]}; 1 left out." in message["text"]
    only = {"filter": {"event": {"name": ["plumbline.training.requested"]}}, "limit": 50}
    with get_client(sync_client=True) as client:
        for _ in range(50):
            events = client._client.post("/events/filter", json=only).json()["events"]
            asked = [one for one in events if one["payload"]["reason"] == message["text"]]
            if asked:
                break
            time.sleep(0.2)
    assert [one["id"] for one in asked] == [message["id"]]


def test_metadata_keeps_what_it_says(tmp_path):
    (tmp_path / "m.csv").write_text('path,photo\na.png,"x, y"\n')
    text = merged_metadata(tmp_path / "m.csv", [{"path": "b.png", "site": "s", "Photo": "p"}])
    assert text == 'path,photo,site\na.png,"x, y",\nb.png,p,s\n'


def test_metadata_that_is_written_otherwise_takes_new_rows_all_the_same(tmp_path):
    (tmp_path / "m.csv").write_text("Path;Photo\na\\b.png;x\n;;\n;y\n", encoding="utf-16")
    text = merged_metadata(tmp_path / "m.csv", [{"path": "c.png", "photo": "z"}])
    assert text == "path,photo\na\\b.png,x\n,y\nc.png,z\n"
