"""What an alias names, from a SQLite file and from a server: whatever answers there."""

import json
import sqlite3
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from plumbline.common.errors import UserError
from plumbline.registry.glance import Glimpse, glance
from plumbline.registry.versions import DIGEST_TAG, RegistryDownError

TABLES = """
create table registered_model_aliases (name text, alias text, version integer);
create table model_versions (name text, version integer, storage_location text);
create table model_version_tags (name text, version integer, key text, value text);
insert into registered_model_aliases values ('plumbline', 'champion', 3), ('plumbline', 'foreign', 4);
insert into model_version_tags values ('plumbline', 3, 'other', 'x'), ('plumbline', 2, '{tag}', 'older');
"""


@pytest.fixture
def database(tmp_path):
    """The tables of MLflow's that are read; tests/serving reads them as MLflow itself makes them."""
    path = tmp_path / "mlflow.db"
    folder = tmp_path / "version"
    folder.mkdir()
    with sqlite3.connect(path) as opened:
        opened.executescript(TABLES.format(tag=DIGEST_TAG))
        opened.execute("insert into model_version_tags values ('plumbline', 3, ?, 'digest')", (DIGEST_TAG,))
        for version in (2, 3, 4):
            opened.execute("insert into model_versions values ('plumbline', ?, ?)", (version, folder.as_uri()))
    return path


def test_an_alias_in_a_file(database):
    uri = f"sqlite:///{database}"
    assert glance(uri, "plumbline", "champion") == Glimpse(3, "digest", database.parent / "version")
    assert glance(uri, "plumbline", "challenger") is None
    assert glance(uri, "other", "champion") is None
    assert glance(uri, "plumbline' or '1'='1", "champion") is None


def test_a_version_that_others_registered_is_refused(database):
    with pytest.raises(UserError, match=r"Version 4 of 'plumbline' .* was not registered by Plumbline"):
        glance(f"sqlite:///{database}", "plumbline", "foreign")


def test_a_file_with_odd_characters_in_its_path_is_the_one_that_is_read(database, tmp_path):
    odd = tmp_path / "100% #1"
    odd.mkdir()
    database.rename(odd / "mlflow.db")
    assert glance(f"sqlite:///{odd}/mlflow.db", "plumbline", "champion").version == 3


def test_a_file_that_is_missing_or_damaged_is_named_and_not_made(tmp_path):
    path = tmp_path / "mlflow.db"
    with pytest.raises(RegistryDownError, match=str(path)):
        glance(f"sqlite:///{path}", "plumbline", "champion")
    assert not path.exists()
    for content in (b"no database at all" * 100, b""):
        path.write_bytes(content)
        with pytest.raises(RegistryDownError, match="can't be read"):
            glance(f"sqlite:///{path}", "plumbline", "champion")
    with pytest.raises(UserError, match="neither a SQLite file nor an MLflow server"):
        glance("postgresql://u:secret@host/db", "plumbline", "champion")


@pytest.fixture
def server():
    """Answers with `said` = (status, content), and keeps the headers that it got."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.headers = dict(self.headers)
            self.server.path = self.path
            status, content = self.server.said
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        thread = Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        found.uri = f"http://127.0.0.1:{found.server_port}"
        yield found
        found.shutdown()


def test_an_alias_on_a_server(server, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "word")
    server.said = (200, {"model_version": {"version": "3", "tags": [{"key": DIGEST_TAG, "value": "digest"}]}})
    assert glance(server.uri + "/", "a&b", "champion") == Glimpse(3, "digest", None)
    assert server.path.endswith("/api/2.0/mlflow/registered-models/alias?name=a%26b&alias=champion")
    assert server.headers["Authorization"] == "Basic YW5uOndvcmQ="
    monkeypatch.delenv("MLFLOW_TRACKING_PASSWORD")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "token")
    glance(server.uri, "a", "champion")
    assert server.headers["Authorization"] == "Bearer token"


@pytest.mark.parametrize("code", ["RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"])
def test_an_alias_that_names_nothing_on_a_server(server, code):
    server.said = (404, {"error_code": code, "message": "not there"})
    assert glance(server.uri, "plumbline", "champion") is None


@pytest.mark.parametrize(
    "said",
    [
        (200, b"<html>log in</html>"),
        (200, []),
        (200, {}),
        (200, {"model_version": None}),
        (200, {"model_version": {"version": "three"}}),
        (404, {"detail": "Not Found"}),
        (404, b"nothing here"),
        (500, {"error_code": "INTERNAL_ERROR"}),
        (403, {}),
    ],
    ids=str,
)
def test_what_is_no_registry_is_down_and_never_without_a_champion(server, said):
    """Or the one served would be told as gone, when a proxy or another program answers for a while."""
    server.said = said
    with pytest.raises(RegistryDownError, match=server.uri):
        glance(server.uri, "plumbline", "champion")


def test_a_server_that_is_not_there(server):
    uri = server.uri.replace("127.0.0.1", "user:secret@127.0.0.1")
    server.shutdown()
    server.server_close()
    with pytest.raises(RegistryDownError, match="does not answer") as raised:
        glance(uri, "plumbline", "champion")
    assert "secret" not in str(raised.value)
