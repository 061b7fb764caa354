"""The registry: whole versions, readable errors, one promotion at a time, nothing left behind. No TensorFlow here."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import socket
import sqlite3

import pytest

from plumbline.common.errors import UserError
from plumbline.common.served import CHAMPION
from plumbline.registry import bundle
from plumbline.registry import history as journal
from plumbline.registry import versions as registry
from plumbline.registry.history import Entry


@pytest.fixture
def opened(tmp_path, monkeypatch, empty_database):
    """A registry of its own, its database copied from one made once: MLflow takes seconds to make one."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry").mkdir()
    shutil.copy(empty_database, tmp_path / "registry" / "mlflow.db")
    return registry.open_registry()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    registry.open_registry(uri=f"sqlite:///{path}")
    return path


def write_version(folder, content="1"):
    (folder / bundle.HOME).mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / bundle.ONNX).write_bytes(b"onnx " * 1000)
    (folder / bundle.HOME / "serving.json").write_text(f'{{"content": "{content}"}}')
    return bundle.seal(folder)


def register(opened, folder, content="1", fingerprint="f"):
    digest = write_version(folder, content)
    tags = {registry.FINGERPRINT_TAG: fingerprint, "verdict": "PROMOTE"}
    return registry.register(opened, folder, digest, "tiny", tags, {"test accuracy": 0.9}, {"seed": "0"}, "A page.")


def champion_of(opened):
    return registry.number(registry.find(opened, CHAMPION))


@pytest.mark.slow
def test_a_registered_version_is_loaded_whole_by_alias_and_number(opened, tmp_path):
    version = register(opened, tmp_path / "v", content="one")
    registry.move_champion(opened, version, None)
    for wanted in ("champion", 1, "1"):
        loaded = registry.load_version(wanted)
        assert (loaded.version, loaded.read("serving.json")) == (1, {"content": "one"})
    assert loaded.tags["verdict"] == "PROMOTE"
    assert loaded.onnx.read_bytes() == b"onnx " * 1000


def test_previous_follows_and_champion_moves_last(opened, tmp_path, monkeypatch):
    for number in ("1", "2"):
        registry.move_champion(opened, register(opened, tmp_path / number, number), champion_of(opened))
    moved = []
    original = opened.client.set_registered_model_alias
    monkeypatch.setattr(
        opened.client, "set_registered_model_alias", lambda *call: (moved.append(call[1:]), original(*call))
    )
    registry.move_champion(opened, register(opened, tmp_path / "3", "3"), 2)
    assert moved == [("previous", "2"), ("champion", "3")]


def test_a_champion_moved_by_somebody_else_meanwhile_is_left_alone(opened, tmp_path):
    for number in ("1", "2", "3"):
        register(opened, tmp_path / number, number)
    registry.move_champion(opened, 2, None)
    with pytest.raises(UserError, match="Version 2 became champion while this run was under way"):
        registry.move_champion(opened, 3, 1)
    assert champion_of(opened) == 2
    assert registry.find(opened, "previous") is None


@pytest.mark.parametrize("harm", ["alter", "remove", "manifest"])
def test_a_version_that_was_tampered_with_is_not_loaded(opened, tmp_path, harm):
    registry.move_champion(opened, register(opened, tmp_path / "v"), None)
    folder = registry.load_version().folder
    if harm == "alter":
        (folder / bundle.ONNX).write_bytes(b"evil " * 1000)
    elif harm == "remove":
        (folder / bundle.HOME / "serving.json").unlink()
    else:
        (folder / bundle.MANIFEST).write_text('{"files": {}}')
    with pytest.raises(UserError, match="roll back to another"):
        registry.load_version()


def test_what_mlflow_itself_writes_beside_a_version_does_no_harm(opened, tmp_path):
    import mlflow.artifacts

    registry.move_champion(opened, register(opened, tmp_path / "v"), None)
    folder = mlflow.artifacts.download_artifacts("models:/plumbline@champion")
    assert os.path.exists(os.path.join(folder, "registered_model_meta"))
    assert registry.load_version().version == 1


def test_a_project_that_was_moved_finds_its_files_beside_its_database(opened, tmp_path, monkeypatch):
    registry.move_champion(opened, register(opened, tmp_path / "v"), None)
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "registry", tmp_path / "elsewhere" / "registry")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert registry.load_version().folder.is_relative_to(tmp_path / "elsewhere")


@pytest.mark.slow
def test_no_registry_no_champion_no_manifest_each_say_what_to_do(opened, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no version 'champion'.*history"):
        registry.load_version()
    opened.client.create_registered_model("plumbline")
    opened.client.create_model_version("plumbline", (tmp_path / "by hand").as_uri())
    opened.client.set_registered_model_alias("plumbline", "champion", "1")
    with pytest.raises(UserError, match="not registered by Plumbline"):
        registry.load_version()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/nowhere.db")
    with pytest.raises(UserError, match=r"no registry at .*nowhere\.db yet"):
        registry.load_version()
    assert not (tmp_path / "nowhere.db").exists()


def test_an_upload_cut_short_is_cleared_by_the_next_run(opened, tmp_path, monkeypatch):
    def half(model_id, folder):
        where = opened.client.get_logged_model(model_id).artifact_location.removeprefix("file://")
        os.makedirs(where)
        shutil.copy(os.path.join(folder, bundle.ONNX), where)
        os._exit(9)

    process = multiprocessing.get_context("fork").Process(target=_register_with, args=(tmp_path, half))
    process.start()
    process.join(60)
    assert process.exitcode == 9
    left = list((tmp_path / "registry" / "artifacts" / "models").glob("*/artifacts/*"))
    assert [path.name for path in left] == [bundle.ONNX]
    with registry.locked(opened, 1):
        assert registry.clear_leftovers(opened) == 1
        assert registry.clear_leftovers(opened) == 0
    assert not list((tmp_path / "registry" / "artifacts" / "models").glob("*/artifacts/*"))
    assert opened.client.search_model_versions("name = 'plumbline'") == []


def _register_with(folder, upload):
    child = registry.open_registry(uri=f"sqlite:///{folder}/registry/mlflow.db")
    child.client.log_model_artifacts = upload
    register(child, folder / "v")


def test_leftovers_of_others_are_not_ours_to_clear(opened, tmp_path, monkeypatch):
    place = registry.experiment(opened, "plumbline")
    run = opened.client.create_run(place, tags={registry.HOLDER_TAG: "somebody@else"})
    assert registry.clear_leftovers(opened) == 0
    assert opened.client.get_run(run.info.run_id).info.status == "RUNNING"


def test_an_upload_that_arrives_altered_never_becomes_a_version(opened, tmp_path, monkeypatch):
    original = opened.client.log_model_artifacts

    def altered(model_id, folder):
        original(model_id, folder)
        where = opened.client.get_logged_model(model_id).artifact_location.removeprefix("file://")
        with open(os.path.join(where, bundle.ONNX), "ab") as file:
            file.write(b"!")

    monkeypatch.setattr(opened.client, "log_model_artifacts", altered)
    with pytest.raises(UserError, match=r"model\.onnx is missing or was altered"):
        register(opened, tmp_path / "v")
    assert registry.find(opened, 1) is None


def test_the_second_promotion_waits_and_then_says_who_holds_the_lock(opened):
    with registry.locked(opened, 1), pytest.raises(UserError, match=r"has held .* for 0 seconds"):  # noqa: SIM117
        with registry.locked(opened, 0.1):
            pass


def test_a_registry_that_is_down_is_one_sentence_without_the_password(monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://anna:secret@127.0.0.1:{port}")
    with pytest.raises(UserError) as caught:
        registry.load_version()
    assert f"http://***@127.0.0.1:{port} does not answer: start it" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        sqlite3.OperationalError("database or disk is full"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
    ],
)
def test_a_full_disk_says_so(error):
    from mlflow.exceptions import MlflowException

    with pytest.raises(UserError, match=r"No room left .* free some and run again\. .* untouched"):  # noqa: SIM117
        with registry.readable_errors("sqlite:///x.db"):
            raise MlflowException("could not write") from error


def test_other_refusals_keep_mlflows_own_first_line():
    from mlflow.exceptions import MlflowException

    with pytest.raises(UserError, match=r"refused: the name is bad\. "):  # noqa: SIM117
        with registry.readable_errors("sqlite:///x.db"):
            raise MlflowException("the name is bad.\nTraceback of a server")


def test_an_own_mistake_is_not_dressed_up_as_the_registrys():
    with pytest.raises(ZeroDivisionError), registry.readable_errors("sqlite:///x.db"):
        raise ZeroDivisionError


@pytest.mark.slow
def test_a_database_cut_short_while_it_is_made_is_made_anew(tmp_path):
    """The migrations of MLflow can't be resumed: the file appears whole or not at all."""
    path = tmp_path / "registry" / "mlflow.db"
    (path.parent / ".mlflow.db.new-killed").mkdir(parents=True)
    (path.parent / ".mlflow.db.new-killed" / "mlflow.db").write_bytes(b"half")
    opened = registry.open_registry(uri=f"sqlite:///{path}")
    assert registry.experiment(opened, "plumbline")
    assert sorted(item.name for item in path.parent.iterdir() if "new-" in item.name) == []


def test_an_experiment_deleted_in_the_ui_says_how_to_restore_it(opened):
    place = registry.experiment(opened, "plumbline")
    opened.client.delete_experiment(place)
    with pytest.raises(UserError, match=f"mlflow experiments restore -x {place}"):
        registry.experiment(opened, "plumbline")


class TestLog:
    def test_it_keeps_order_author_and_champions(self, opened):
        journal.append(opened, Entry("promote", "refused", "too few groups", candidate="tiny", verdict="HOLD"))
        journal.append(opened, Entry("promote", "done", "fine", version=1, champion_after=1))
        journal.append(opened, Entry("promote", "unchanged", "same", version=1, champion_before=1, champion_after=1))
        journal.append(opened, Entry("promote", "done", "better", version=2, champion_before=1, champion_after=2))
        log = journal.entries(opened)
        assert [entry.number for entry in log] == [1, 2, 3, 4]
        assert {entry.who for entry in log} == {registry.holder()}
        assert journal.champions(log) == [1, 2]
        assert journal.broken_links(opened) == []

    def test_what_was_altered_taken_out_or_deleted_is_found(self, opened):
        for number in range(4):
            journal.append(opened, Entry("promote", "refused", f"reason {number}"))
        runs = journal._runs(opened)
        text = runs[1].data.tags[journal.ENTRY_TAG]
        opened.client.set_tag(runs[1].info.run_id, journal.ENTRY_TAG, text.replace("reason 1", "nothing"))
        opened.client.delete_run(runs[2].info.run_id)
        assert journal.broken_links(opened) == [
            "entry 2 was altered",
            "entry 3 was deleted in MLflow (still readable)",
        ]
        opened.client.delete_tag(runs[0].info.run_id, journal.ENTRY_TAG)
        assert "the entry before 2 was altered or taken out" in journal.broken_links(opened)

    def test_an_action_cut_short_before_the_alias_is_interrupted_after_it_done(self, opened, tmp_path):
        for number in ("1", "2"):
            register(opened, tmp_path / number, number)
        journal.append(opened, Entry("promote", "begun", "first", version=1))
        assert [entry.outcome for entry in journal.settle(opened)] == ["interrupted"]
        journal.append(opened, Entry("promote", "begun", "again", version=1))
        registry.move_champion(opened, 1, None)
        assert [entry.outcome for entry in journal.settle(opened)] == ["done"]
        assert journal.settle(opened) == []
        assert journal.champions(journal.entries(opened)) == [1]

    def test_a_rollback_cut_short_after_the_alias_still_marks_the_version_left(self, opened, tmp_path):
        for number in ("1", "2"):
            register(opened, tmp_path / number, number)
        registry.move_champion(opened, 2, None)
        begun = Entry("rollback", "begun", "it dreams", version=1, champion_before=2, champion_after=2)
        journal.append(opened, begun)
        registry.move_champion(opened, 1, 2)
        journal.settle(opened)
        assert registry.find(opened, 2).tags[registry.WITHDRAWN_TAG] == "it dreams"

    def test_a_novel_is_no_reason(self, opened):
        with pytest.raises(UserError, match="keep it under 1000"):
            journal.append(opened, Entry("rollback", "begun", "x" * 1001))
