"""What the registry names is brought onto the shelf; what goes wrong is said, and changes nothing."""

import asyncio
import json
import resource
import shutil
import sqlite3
from contextlib import closing, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from brightness import in_a_registry, write_version

from plumbline.common.errors import UserError
from plumbline.common.files import text_digest
from plumbline.registry import bundle
from plumbline.registry.versions import DIGEST_TAG
from serving import fetch
from serving.keeper import Keeper
from serving.settings import Challenger, ServingParams
from serving.shelf import GROUPS, Role, Roles, Shelf, check


@pytest.fixture
def made(tmp_path):
    """A version, a registry whose champion it is, and settings."""
    folder = tmp_path / "version"
    digest = write_version(folder)
    uri = in_a_registry(tmp_path / "mlflow.db", folder, digest)
    params = ServingParams(state=tmp_path / "served")
    return SimpleNamespace(folder=folder, digest=digest, uri=uri, params=params, database=tmp_path / "mlflow.db")


def change(made, statement, *values):
    with closing(sqlite3.connect(made.database)) as opened:
        opened.execute(statement, values)
        opened.commit()


def looked(made, **settings):
    keeper = Keeper(made.params.model_copy(update=settings), "plumbline", made.uri)
    asyncio.run(keeper.look())
    return keeper


def test_the_champion_is_brought_and_known_after_a_restart(made):
    keeper = looked(made)
    assert keeper.trouble is None
    assert keeper.status()["asked"]
    assert "trouble" not in keeper.status()
    shelf = Shelf(made.params.state)
    assert shelf.holds(made.digest)
    assert Keeper(made.params, "plumbline", made.uri).roles == Roles(champion=Role(version=7, digest=made.digest))
    assert json.loads(shelf.roles_file.read_text())["champion"]["version"] == 7


@pytest.mark.parametrize("how", ["gone", "torn", "no alias"])
def test_the_last_good_champion_goes_on_and_it_is_said(made, how):
    looked(made)
    if how == "gone":
        made.database.unlink()
    elif how == "torn":
        made.database.write_bytes(b"torn" * 1000)
    else:
        change(made, "delete from registered_model_aliases")
    keeper = looked(made)
    assert keeper.roles.champion == Role(version=7, digest=made.digest)
    assert keeper.status()["trouble"].endswith(" Version 7, the last good champion, goes on.")
    assert Shelf(made.params.state).roles().champion.version == 7


def test_a_version_that_was_altered_is_not_taken_up(made):
    (made.folder / bundle.ONNX).write_bytes(b"altered")
    keeper = looked(made)
    assert keeper.roles == Roles()
    assert "altered" in keeper.trouble
    assert keeper.status() == {
        "asked": keeper.status()["asked"],
        "trouble": keeper.trouble,
    }  # there is no last good one
    assert not Shelf(made.params.state).folder(made.digest).exists()


@contextmanager
def a_full_disk():
    """The kernel lets no file of this process and its children grow, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
def test_on_a_full_disk_the_last_good_champion_goes_on_until_there_is_room(made, tmp_path):
    looked(made)
    write_version(tmp_path / "next")
    np.save(tmp_path / "next" / GROUPS, np.arange(6) + 1)
    digest = bundle.seal(tmp_path / "next")
    change(made, "insert into model_versions values ('plumbline', 8, ?)", (tmp_path / "next").as_uri())
    change(made, "insert into model_version_tags values ('plumbline', 8, ?, ?)", DIGEST_TAG, digest)
    change(made, "update registered_model_aliases set version = 8")
    with a_full_disk():
        keeper = looked(made)
    assert "disk" in keeper.trouble
    assert keeper.status()["trouble"].endswith(" Version 7, the last good champion, goes on.")
    assert Shelf(made.params.state).roles().champion == Role(version=7, digest=made.digest)
    assert looked(made).roles.champion == Role(version=8, digest=digest)


def test_a_version_of_others_is_refused_by_name(made):
    change(made, "delete from model_version_tags")
    assert "was not registered by Plumbline" in looked(made).trouble


def test_the_challenger_is_asked_for_where_the_settings_want_it(made):
    change(made, "insert into registered_model_aliases values ('plumbline', 'challenger', 7)")
    assert looked(made).roles.challenger is None
    shadow = Challenger(mode="shadow")
    assert looked(made, challenger=shadow).roles.challenger.version == 7
    change(made, "delete from registered_model_aliases where alias = 'challenger'")
    keeper = looked(made, challenger=shadow)
    assert (keeper.roles.challenger, keeper.trouble) == (None, None)
    assert keeper.roles.champion.version == 7


def test_fetching_says_one_sentence_and_how_it_ended(made, tmp_path, capsys):
    wanted = {"uri": made.uri, "model": "plumbline", "version": 7, "digest": made.digest, "root": str(tmp_path / "new")}
    assert fetch.main([json.dumps({**wanted, "folder": str(made.folder)})]) == 0
    assert capsys.readouterr().out == ""
    assert Shelf(tmp_path / "new").holds(made.digest)
    shutil.rmtree(made.folder / "plumbline")
    assert fetch.main([json.dumps({**wanted, "root": str(tmp_path / "other"), "folder": str(made.folder)})]) == 1
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert str(made.folder) in said[0]
    assert not (tmp_path / "other" / "versions" / made.digest).exists()


def test_a_version_by_another_digest_is_not_put_on_the_shelf(made, tmp_path):
    with pytest.raises(UserError, match="missing or was altered"):
        fetch.fetch(made.uri, "plumbline", 7, "0" * 64, str(made.folder), tmp_path / "new")
    assert not Shelf(tmp_path / "new").holds("0" * 64)


def test_damaged_roles_are_said_and_written_anew_once_the_registry_answers(made):
    looked(made)
    shelf = Shelf(made.params.state)
    shelf.roles_file.write_text('{"champion": ')
    with pytest.raises(UserError, match=r"roles\.json is damaged, so the last good champion is not known: remove it"):
        shelf.roles()
    away = Keeper(made.params, "plumbline", f"sqlite:///{made.database}.gone/x.db")
    assert "roles.json is damaged" in away.status()["trouble"]
    asyncio.run(away.look())
    assert away.status()["trouble"].startswith(f"{shelf.roles_file} is damaged")
    assert looked(made).trouble is None
    assert shelf.roles().champion == Role(version=7, digest=made.digest)


@pytest.mark.parametrize("text", ['{"files": {}}', '{"files": []}', "{}", "[]", "no JSON", '{"files": {"a": 1}}'])
def test_a_manifest_that_lacks_what_serving_needs_is_one_sentence(tmp_path, text):
    (tmp_path / bundle.MANIFEST).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / bundle.MANIFEST).write_text(text)
    with pytest.raises(UserError, match=r"(does not list|lists no) .*: roll back to another version"):
        check(tmp_path, text_digest(text))
