"""One worker's application, asked in this process: refusals, headers, the page, and what no answer may tell."""

import json
import re

import pytest
from brightness import encoded, grey, on_the_shelf, p_bright
from starlette.testclient import TestClient

from serving import api, app, examples, metrics, page, worker
from serving.batching import Batcher, BusyError
from serving.keys import digest
from serving.problems import MEDIA, SCHEMA, ProblemError, busy, no_champion
from serving.settings import Limits

KEY = "a key of 32 bytes, as it were"
GOOD = encoded(grey(255))


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    return on_the_shelf(tmp_path_factory.mktemp("worker"), limits=Limits(pictures=3, request_bytes=20_000))


def running(params, folder):
    return TestClient(worker.build(params, "plumbline", folder, 0), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(params, tmp_path_factory):
    with running(params, tmp_path_factory.mktemp("sockets")) as client:
        yield client


def is_problem(answer, status):
    content = answer.json()
    assert answer.status_code == status, content
    assert answer.headers["content-type"] == MEDIA
    assert set(content) == set(SCHEMA["required"])
    assert (content["type"], content["status"], content["version"]) == ("about:blank", status, 7)
    return content["detail"]


def test_a_problem_is_what_rfc_9457_says():
    problem = ProblemError(404, "No such thing.", {"Retry-After": "5"})
    assert problem.content(7) == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "No such thing.",
        "version": 7,
    }
    assert (busy(3).status, busy(3).headers) == (429, {"Retry-After": "3"})
    assert no_champion().content()["version"] is None


def test_the_document_names_the_refusals():
    said = examples.problems(404, 429)
    assert {status: one["description"] for status, one in said.items()} == {404: "Not Found", 429: "Too Many Requests"}
    assert said[404]["content"][MEDIA]["schema"] is SCHEMA


def test_a_picture_is_answered_with_the_version_and_the_headers(client):
    answer = client.post("/v1/predict", files={"file": ("a.png", GOOD)})
    assert answer.json()["answers"][0]["softmax"]["bright"] == pytest.approx(p_bright(255), abs=1e-5)
    assert answer.headers["plumbline-version"] == "7"
    for name, value in app.HEADERS.items():
        assert answer.headers[name.decode()] == value.decode()


def test_every_worker_gives_a_real_answer_for_readyz(client):
    """The worker's socket is there, the keeper's is not: the keeper is the supervisor's."""
    content = client.get("/readyz").json()
    assert (content["status"], content["version"]) == ("ready", 7)
    assert content["workers"][0]["answered"] is True
    assert content["registry"] == {"trouble": "does not answer"}
    assert client.get("/healthz").json() == {"status": "alive", "version": 7}


@pytest.mark.parametrize(
    ("method", "path", "status", "said"),
    [
        ("get", "/nothing", 404, "There is nothing at this address."),
        ("get", "/v1/predict", 405, "This address takes other methods."),
        ("post", "/v1/predict?views=-1", 422, "views: "),
        ("post", "/v1/predict?views=1000", 422, "views: "),
        ("post", "/v1/predict", 415, "Send pictures"),
        ("post", "/v1/batch", 415, "Send a zip"),
        ("get", "/v2/models/other", 404, "Only 'plumbline'"),
        ("get", "/v2/models/plumbline/versions/8", 404, "Only 'plumbline'"),
    ],
)
def test_refusals_by_address(client, method, path, status, said):
    assert said in is_problem(client.request(method, path), status)


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 9_000, 400),
        (b"[1]", 422),
        (b'{"id": 5, "label": "dark"}', 422),
        (b'{"id": "x", "label": "nonsense"}', 422),
        (b'{"id": "\\ud800", "label": "dark"}', 400),
        (b'{"id": "x", "label": "\\udfff"}', 400),
        (b" " * 10_001, 413),
    ],
    ids=lambda value: str(value)[:30],
)
def test_labels_that_can_not_be_taken(client, content, status):
    is_problem(client.post("/v1/feedback", content=content, headers={"content-type": "application/json"}), status)


def test_half_a_surrogate_pair_in_a_url_is_refused_and_a_whole_one_is_not(params, tmp_path):
    """What can't be written as UTF-8 could not be repeated in the answer."""
    headers = {"content-type": "application/json"}
    with running(params.model_copy(update={"url_hosts": ["pictures.example.com"]}), tmp_path) as client:
        is_problem(client.post("/v1/batch", content=b'{"urls": ["http://\\ud800"]}', headers=headers), 400)
        whole = client.post("/v1/batch", content=b'{"urls": ["ftp://x/\\ud83d\\ude00"]}', headers=headers).json()
    assert whole["answers"] == [{"file": "ftp://x/\U0001f600", "refused": "is neither http nor https", "status": 422}]


def test_a_form_in_an_encoding_of_the_clients_choice_is_read_as_text(client, params, tmp_path):
    """Python's unicode_escape turns plain letters into half a surrogate pair, in names and in the field of the key."""
    body = b"".join(
        b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n"
        for head, content in ((b'name="key"', b"\\ud801"), (b'name="file"; filename="\\ud800.png"', GOOD))
    )
    headers = {"content-type": "multipart/form-data; boundary=b; charset=unicode_escape"}
    answer = client.post("/v1/predict", content=body + b"--b--\r\n", headers=headers)
    assert answer.json()["answers"][0]["file"] == "\\ud800.png"
    assert client.post("/", content=body + b"--b--\r\n", headers=headers).status_code == 200
    keys = tmp_path / "keys"
    keys.write_text(f"gate-3 {digest(KEY)}\n")
    with running(params.model_copy(update={"keys": keys}), tmp_path) as guarded:
        assert guarded.post("/", content=body + b"--b--\r\n", headers=headers).status_code == 401


@pytest.mark.parametrize("length", ["²", "9" * 5000])
def test_a_header_that_is_no_number_is_refused(client, length):
    headers = [(b"inference-header-content-length", length.encode("latin-1"))]
    is_problem(client.post("/v2/models/plumbline/infer", content=b"{}", headers=headers), 400)


def test_a_bug_is_one_sentence_that_tells_nothing(params, tmp_path, monkeypatch, caplog):
    def broken(*_):
        raise RuntimeError(f"in {params.state}/secret")

    monkeypatch.setattr(api, "read_form", broken)
    with running(params, tmp_path) as client:
        answer = client.post("/v1/predict", files={"file": ("a.png", GOOD)})
    assert is_problem(answer, 500) == "Something went wrong here; it is in the server's log."
    assert str(params.state) not in answer.text
    assert "secret" in caplog.text


def test_no_refusal_tells_where_things_lie(client, params):
    for path in ("/v2/models/%2e%2e%2fetc", "/../../etc/passwd", "/v1/accuracy/..", "/static/x"):
        assert str(params.state.parent) not in client.get(path).text


def test_keys_are_asked_for_where_a_file_is_named(params, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(f"gate-3 {digest(KEY)}\n")
    with running(params.model_copy(update={"keys": keys}), tmp_path) as client:
        for headers in ({}, {"authorization": "Bearer other"}, {"authorization": f"Basic {KEY}"}, {"x-api-key": ""}):
            answer = client.get("/v1/model", headers=headers)
            is_problem(answer, 401)
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for headers in ({"authorization": f"bearer {KEY}"}, {"x-api-key": KEY}):
            assert client.get("/v1/model", headers=headers).json()["candidate"] == "brightness"
        assert client.get("/healthz").status_code == 200


def test_what_a_client_sends_is_shown_as_text_on_the_page(client):
    name = "<img src=x onerror=alert(1)>.png"
    answer = client.post("/", files=[("file", (name, GOOD)), ("file", ("<script>alert(2)</script>.txt", b"text"))])
    assert answer.status_code == 200
    assert "<img src=x" not in answer.text
    assert "<script>alert" not in answer.text
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in answer.text
    assert "&lt;script&gt;alert(2)" in answer.text
    nonce = re.search(r"script-src 'nonce-([^']+)'", answer.headers["content-security-policy"])[1]
    assert answer.text.count(f'nonce="{nonce}"') == 2  # the style and the script, and nothing of a client's
    assert answer.headers["plumbline-version"] == "7"
    assert nonce not in client.get("/").text


def test_the_page_says_what_is_wrong_with_its_status(client):
    refused = client.post("/predict", files=[("file", (f"{n}.png", GOOD)) for n in range(4)])
    assert refused.status_code == 413
    assert "more than 3 files" in refused.text
    assert page.SHOWN > 0
    assert client.get("/openapi.json").json()["paths"].keys() >= {"/v1/predict", "/v1/batch", "/v1/feedback"}


def test_the_page_without_a_champion(params, tmp_path):
    with running(params.model_copy(update={"state": tmp_path / "empty"}), tmp_path) as client:
        assert "NO CHAMPION YET" in client.get("/").text
        answer = client.post("/v1/predict", files={"file": ("a.png", GOOD)})
        assert (answer.status_code, answer.json()["version"]) == (503, None)
        assert json.loads(client.get("/readyz").text)["status"] == "not ready"


@pytest.fixture
def full(monkeypatch):
    def check(batcher, count):
        raise BusyError(3)

    monkeypatch.setattr(Batcher, "check", check)


DOORS = {
    "/v1/predict": "/v1/predict",
    "/v1/models/plumbline:predict": "/v1/models/{model}:predict",
    "/v2/models/plumbline/infer": "/v2/models/{model}/infer",
}


@pytest.mark.parametrize("path", DOORS)
def test_a_full_queue_refuses_at_once_as_the_routes_would(params, tmp_path, full, path):
    """The long way is what asks from another origin; both count the request under its route."""
    elsewhere = "https://site.example"
    with running(params.model_copy(update={"cors": [elsewhere]}), tmp_path) as client:
        before = sample(metrics.REQUESTS.labels(DOORS[path], "429"))
        at_once = client.post(path, content=GOOD)
        assert sample(metrics.REQUESTS.labels(DOORS[path], "429")) == before + 1
        routed = client.post(path, content=GOOD, headers={"origin": elsewhere})
        assert sample(metrics.REQUESTS.labels(DOORS[path], "429")) == before + 2
    assert at_once.status_code == routed.status_code == 429
    assert at_once.headers["retry-after"] == "3"
    assert at_once.json() == routed.json()
    crossed = {"access-control-allow-origin", "access-control-expose-headers", "vary"}
    assert {name: value for name, value in routed.headers.items() if name not in crossed} == dict(at_once.headers)
    assert routed.headers["access-control-allow-origin"] == elsewhere


def test_in_a_full_queue_who_may_not_ask_is_told_that(params, tmp_path, full):
    keys = tmp_path / "keys"
    keys.write_text(f"gate-3 {digest(KEY)}\n")
    with running(params.model_copy(update={"keys": keys}), tmp_path) as client:
        assert client.post("/v1/predict", content=GOOD).status_code == 401
        assert client.post("/v1/predict", content=GOOD, headers={"x-api-key": KEY}).status_code == 429


def test_a_full_queue_refuses_pictures_alone(client, full):
    assert client.get("/v1/predict").status_code == 405
    assert client.get("/healthz").status_code == client.get("/v1/model").status_code == 200


def sample(counter):
    return counter._value.get()
