"""`flows.serve` sets up what it serves, however busy its server is at first."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows import serve
from flows.children import guarded
from plumbline.common.errors import UserError

pytestmark = pytest.mark.slow


@pytest.fixture
def tries(tmp_path):
    """A file with a line for each try, and the address of a server that is busy until there were four."""
    file = tmp_path / "tries"

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if len(file.read_text().splitlines()) >= 4 else 503)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield file, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def once(file, url, script, ended=()):
    command = ["sh", "-c", f"echo x >> {file.name}; {script}"]
    with guarded() as children:
        serve._once("setup", command, file.parent, {"PREFECT_API_URL": url}, children, list(ended))


def test_what_fails_while_the_server_is_busy_is_tried_again(tries, capfd):
    file, url = tries
    once(file, url, f"echo busy; test $(wc -l < {file.name}) -ge 4")
    assert len(file.read_text().splitlines()) == 4
    assert capfd.readouterr().out.count("setup | failed, and is tried again: busy") == 3


def test_what_fails_though_the_server_answers_ends_it(tries):
    file, url = tries
    file.write_text("x\n" * 4)
    with pytest.raises(UserError, match="setup failed: no such pool"):
        once(file, url, "echo no such pool; false")
    assert len(file.read_text().splitlines()) == 6, "tried twice: it may have failed while the server was busy"


def test_what_fails_when_the_server_ended_is_not_tried_again(tries):
    file, url = tries
    with pytest.raises(UserError, match="setup failed"):
        once(file, url, "false", ["server"])
    assert len(file.read_text().splitlines()) == 1
