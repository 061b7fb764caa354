"""A message goes where PLUMBLINE_NOTIFY says, over real HTTP; one that can't be sent is a reason, never an error."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.notify import notify


@pytest.fixture
def hook():
    """A server on this machine that notes what it is sent and answers with `status`."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.seen.append((self.path, json.loads(body)))
            self.send_response(server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.status = [], 200
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_nobody_asked_for_messages(monkeypatch):
    monkeypatch.delenv("PLUMBLINE_NOTIFY", raising=False)
    assert notify("drift", "subject", "text") is None


def test_a_webhook_gets_json_with_the_key_as_its_id(hook, monkeypatch):
    monkeypatch.setenv("PLUMBLINE_NOTIFY", f"http://127.0.0.1:{hook.server_port}/hook")
    assert notify("drift", "Drift at GATE", "darker", "key 1") is None
    assert notify("intake", "New pictures", "3") is None
    assert hook.seen == [
        ("/hook", {"what": "drift", "subject": "Drift at GATE", "text": "darker", "id": "key 1"}),
        ("/hook", {"what": "intake", "subject": "New pictures", "text": "3"}),
    ]


def test_a_hook_that_refuses_is_a_reason(hook, monkeypatch):
    hook.status = 503
    monkeypatch.setenv("PLUMBLINE_NOTIFY", f"http://127.0.0.1:{hook.server_port}/hook")
    assert "503" in notify("failure", "train failed", "why")


@pytest.mark.parametrize("status", [302, 404, 503])
def test_a_reason_never_holds_the_webhooks_address(hook, monkeypatch, status):
    hook.status = status
    monkeypatch.setenv("PLUMBLINE_NOTIFY", f"http://127.0.0.1:{hook.server_port}/services/T0KEN?key=S3CRET")
    reason = notify("failure", "train failed", "why")
    assert str(status) in reason
    for secret in ("T0KEN", "S3CRET", "127.0.0.1"):
        assert secret not in reason


def test_other_addresses_are_apprises(hook, monkeypatch):
    monkeypatch.setenv("PLUMBLINE_NOTIFY", f"json://127.0.0.1:{hook.server_port}/")
    assert notify("promotion", "PROMOTE: x", "better") is None
    ((_, body),) = hook.seen
    assert (body["title"], body["message"]) == ("PROMOTE: x", "better")
    hook.status = 500
    assert notify("promotion", "PROMOTE: x", "better") == "ConnectionError: the message was not taken"


def test_an_address_that_is_none_is_a_reason(monkeypatch):
    monkeypatch.setenv("PLUMBLINE_NOTIFY", "pigeon://nowhere")
    assert notify("drift", "s", "t") == "ValueError: PLUMBLINE_NOTIFY is no URL that Apprise knows"


@pytest.mark.slow
@pytest.mark.usefixtures("server")
def test_a_block_that_is_not_there_is_a_reason(monkeypatch):
    monkeypatch.setenv("PLUMBLINE_NOTIFY", "slack-webhook/nobody")
    assert "Unable to find block document named nobody" in notify("drift", "s", "t")
