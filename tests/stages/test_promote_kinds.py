"""Promotion where others were at work: a champion deleted in MLflow, a project moved or copied, a hanging server.

On a real, tiny registry; what MLflow's UI does is done through MLflow's own client.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks.tiny_project import exported_project
from monitoring import drift
from plumbline.common.errors import UserError
from plumbline.registry import bundle
from plumbline.registry import history as journal
from plumbline.registry import versions as registry
from plumbline.registry.promotion import PromoteParams, Wish, history, promote, rollback

pytestmark = pytest.mark.slow

PARAMS = PromoteParams(minimum_unseen_groups=3)
REPOSITORY = Path(__file__).parents[2]


def lay(tiny_projects, root, monkeypatch):
    """An empty registry under `root`, which becomes the working folder."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (root / "registry").mkdir(parents=True)
    shutil.copy(tiny_projects / "empty.db", root / "registry" / "mlflow.db")
    monkeypatch.chdir(root)


@pytest.fixture
def project(tiny_projects, tmp_path, monkeypatch):
    root = tmp_path / "project"
    lay(tiny_projects, root, monkeypatch)
    return lambda name, **wish: promote(PARAMS, Wish(**wish), exported_project(tiny_projects / name))


def alias(name="champion"):
    return registry.number(registry.find(registry.open_registry(), name))


def files(root):
    return {path: bundle.file_digest(path) for path in sorted(root.rglob("*")) if path.is_file()}


# ----------------------------------------------------------------------------------------------- the same weights


def test_another_decision_on_the_same_weights_is_the_same_version(project, tiny_projects, tmp_path):
    project("good")
    changed = tmp_path / "changed"
    shutil.copytree(tiny_projects / "good", changed)
    decision = json.loads((changed / "build/decision.json").read_text())
    decision |= {"reason": "another candidate lost this time"}
    (changed / "build/decision.json").write_text(json.dumps(decision))
    assert promote(PARAMS, Wish(), exported_project(changed)).outcome == "unchanged"
    assert len(registry.open_registry().client.search_model_versions("name = 'plumbline'")) == 1


def test_another_threshold_is_served_otherwise_and_so_another_version(project, tiny_projects, tmp_path):
    project("good")
    changed = tmp_path / "changed"
    shutil.copytree(tiny_projects / "good", changed)
    evaluation = json.loads((changed / "build/evaluation.json").read_text())
    evaluation["candidates"]["tiny"]["threshold"] = 0.2
    (changed / "build/evaluation.json").write_text(json.dumps(evaluation))
    result = promote(PARAMS, Wish(), exported_project(changed))
    assert (result.outcome, result.champion) == ("promoted", 2)


def test_a_version_of_before_there_were_such_fingerprints_is_known_by_what_it_serves(project):
    project("good")
    opened = registry.open_registry()
    opened.client.set_model_version_tag("plumbline", "1", registry.FINGERPRINT_TAG, "of the decision, as it once was")
    assert project("good").outcome == "unchanged"


def test_a_champion_of_former_times_comes_back_by_rollback_only(project):
    for name in ("good", "better"):
        assert project(name).outcome == "promoted"
    result = project("good")
    assert (result.outcome, alias()) == ("refused", 2)
    assert "version 1, which was champion before version 2: `plumbline rollback" in result.reason
    assert project("good", here=True, reason="as asked by the site").champion == 1
    assert "as asked by the site" in journal.entries(registry.open_registry())[-1].reason


def test_an_experiment_does_not_even_open_the_registry(tiny_projects, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("DVC_EXP_NAME", "lively-crab")
    result = promote(PARAMS, Wish(), exported_project(tiny_projects / "good"))
    assert (result.outcome, result.champion) == ("not here", None)
    assert not (tmp_path / "registry").exists()


# ------------------------------------------------------------------------------------------- deleted in MLflow's UI


def lose_champion(way):
    client = registry.open_registry().client
    number = str(alias())
    if way == "version deleted":
        client.delete_model_version("plumbline", number)
    elif way == "alias taken off":
        client.delete_registered_model_alias("plumbline", "champion")
    else:
        client.delete_registered_model("plumbline")


@pytest.mark.parametrize(
    ("way", "told"),
    [
        ("version deleted", "version 2, the last one, was deleted in MLflow"),
        ("alias taken off", "the alias 'champion' was taken off version 2 in MLflow"),
    ],
)
def test_without_its_champion_everybody_says_what_happened_and_rollback_works(project, way, told):
    for name in ("good", "better"):
        project(name)
    lose_champion(way)
    assert f"WARNING: there is no champion: {told}" in "\n".join(history(PARAMS))
    why = drift.no_champion("plumbline")
    assert f"has no champion, since {told}" in why
    assert "rollback --to VERSION" in why
    sentence = rollback(PARAMS, 1, "the new one is gone", False)
    assert sentence == f"Rolled back from no champion ({told}) to version 1: the new one is gone"
    assert alias() == 1
    assert drift.no_champion("plumbline") is None


@pytest.mark.parametrize("way", ["version deleted", "alias taken off"])
def test_rollback_without_a_number_finds_the_one_before(project, way):
    for name in ("good", "better", "best"):
        project(name)
    registry.open_registry().client.delete_model_version("plumbline", "2")  # `previous` goes with it
    lose_champion(way)
    rollback(PARAMS, None, "gone", False)
    assert alias() == 1


@pytest.mark.parametrize("way", ["version deleted", "alias taken off", "everything deleted"])
def test_the_next_is_still_compared_with_the_last_champion(project, way):
    project("good")
    lose_champion(way)
    result = project("bad")
    assert result.outcome == "refused"
    assert result.reason.startswith("REJECT: worse than champion version 1")
    assert alias() is None
    assert project("better").comparison.champion == 1
    assert alias() is not None


def test_a_last_champion_without_files_holds(project):
    project("good")
    shutil.rmtree("registry/artifacts")
    lose_champion("version deleted")
    result = project("better")
    assert result.reason.startswith("HOLD: Version 1, the last champion, was deleted in MLflow together with its files")
    assert project("better", force=True, reason="nothing to compare with").outcome == "promoted"


def test_rollback_says_so_where_nothing_is_left(project):
    project("good")
    lose_champion("version deleted")
    with pytest.raises(UserError, match=r"no champion \(version 1, .* was deleted in MLflow\) and none before"):
        rollback(PARAMS, None, "back", False)
    with pytest.raises(UserError, match="There is no version 1"):
        rollback(PARAMS, 1, "back", False)


def test_a_site_asked_for_by_name_is_told_what_happened(project, tmp_path):
    project("good")
    lose_champion("version deleted")
    Path("params.yaml").write_text("drift: {}\ndata: {}\ngroup: {}\npromote: {}\n")
    with pytest.raises(UserError, match="version 1, the last one, was deleted in MLflow"):
        drift.main(["SITE_A"])


# ------------------------------------------------------------------------------------------------ moved and copied

FOLDERS = ["plain", "artifacts/x/artifacts/project", "50% off", "what?", "a#b", "a%20b?c#d/artifacts"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_moved_project_writes_where_it_is_now(tiny_projects, tmp_path, monkeypatch, name):
    old, new = tmp_path / "old" / name, tmp_path / "new" / name
    lay(tiny_projects, old, monkeypatch)
    promote(PARAMS, Wish(), exported_project(tiny_projects / "good"))
    new.parent.mkdir(parents=True)
    shutil.move(old, new)
    monkeypatch.chdir(new)
    assert registry.load_version().folder.is_relative_to(new)
    assert promote(PARAMS, Wish(), exported_project(tiny_projects / "better")).champion == 2
    assert not old.exists()
    for version in (1, 2):
        assert registry.load_version(version).folder.is_relative_to(new / "registry" / "artifacts")


@pytest.mark.parametrize("name", ["plain", "a%20b?c#d/artifacts"])
def test_a_copy_leaves_its_original_alone(tiny_projects, tmp_path, monkeypatch, name):
    original, copy = tmp_path / "original" / name, tmp_path / "copy" / name
    lay(tiny_projects, original, monkeypatch)
    promote(PARAMS, Wish(), exported_project(tiny_projects / "good"))
    shutil.copytree(original, copy)
    before = files(original)
    monkeypatch.chdir(copy)
    promote(PARAMS, Wish(), exported_project(tiny_projects / "better"))
    rollback(PARAMS, None, "for the test", False)
    assert files(original) == before
    assert len(list(copy.rglob("model.onnx"))) == 2
    assert registry.load_version().folder.is_relative_to(copy)


def test_mlflow_itself_finds_the_files_of_a_moved_project(tiny_projects, tmp_path, monkeypatch):
    import mlflow.artifacts

    lay(tiny_projects, tmp_path / "old", monkeypatch)
    promote(PARAMS, Wish(), exported_project(tiny_projects / "good"))
    shutil.move(tmp_path / "old", tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    history(PARAMS)  # whoever opens the registry here corrects it
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.registry_uri())
    mlflow.set_tracking_uri(registry.registry_uri())
    found = Path(mlflow.artifacts.download_artifacts("models:/plumbline@champion"))
    assert found.is_relative_to(tmp_path / "new")
    assert (found / "model.onnx").is_file()


def test_files_that_somebody_placed_elsewhere_stay_there(tiny_projects, tmp_path, monkeypatch):
    lay(tiny_projects, tmp_path / "old", monkeypatch)
    big = tmp_path / "big disk"
    registry.open_registry().client.create_experiment("plumbline", artifact_location=big.as_uri())
    promote(PARAMS, Wish(), exported_project(tiny_projects / "good"))
    shutil.move(tmp_path / "old", tmp_path / "new")
    monkeypatch.chdir(tmp_path / "new")
    promote(PARAMS, Wish(), exported_project(tiny_projects / "better"))
    assert len(list(big.rglob("model.onnx"))) == 2
    assert registry.load_version().folder.is_relative_to(big)


# ------------------------------------------------------------------------------------------------- a server that hangs


@pytest.fixture
def silent_server():
    """An address that takes connections and never answers."""
    kept = []
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)

        def accept():
            try:
                while True:
                    kept.append(listening.accept())
            except OSError:
                return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    for connection, _ in kept:
        connection.close()


@pytest.mark.parametrize("command", [["history"], ["rollback", "--reason", "x"]])
def test_a_server_that_hangs_is_one_sentence_after_a_bounded_wait(silent_server, tmp_path, command):
    (tmp_path / "params.yaml").write_text("promote: {}\n")
    done = subprocess.run(
        [sys.executable, "-m", "stages.promote", *command],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(REPOSITORY),
            "MLFLOW_TRACKING_URI": silent_server,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"The registry {silent_server} does not answer" in errors[0]
    assert "Traceback" not in done.stderr


def test_whoever_asked_for_more_patience_keeps_it(silent_server, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(registry.RegistryDownError):
        registry.open_registry(uri=silent_server)
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "1"


# ------------------------------------------------------------------------------------- DVC's cache type symlink


def test_files_that_dvc_made_links_of_are_told_the_parameter_that_helps(tmp_path, monkeypatch):
    """As `dvc config cache.type symlink; dvc checkout` leaves data/: repeating ingest alone would change nothing."""
    import numpy as np
    from PIL import Image

    from plumbline.imaging.reading import iter_rgb
    from plumbline.imaging.settings import DataParams

    (tmp_path / "cache").mkdir()
    (tmp_path / "data" / "with_helmet").mkdir(parents=True)
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(tmp_path / "cache" / "x.png")
    (tmp_path / "data" / "with_helmet" / "1.png").symlink_to(tmp_path / "cache" / "x.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"symbolic link .*: set data\.follow_symlinks to true in params\.yaml"):
        list(iter_rgb(DataParams(), ["with_helmet/1.png"], (16, 16)))
    assert len(list(iter_rgb(DataParams(follow_symlinks=True), ["with_helmet/1.png"], (16, 16)))) == 1
