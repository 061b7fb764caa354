"""The API over real HTTP: answers, refusals, limits, archives, keys, and what no response may lack."""

import asyncio
import io
import os
import re
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from PIL import Image
from running import TOP, Project, png, until

pytestmark = pytest.mark.slow

PROBLEM = "application/problem+json"


def zipped(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def post_zip(service, content):
    return service.client.post("/v1/batch", content=content, headers={"content-type": "application/zip"})


def refusal(answer, status):
    """The sentence of a refusal; checks what every refusal has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    content = answer.json()
    assert set(content) == {"type", "title", "status", "detail", "version"}
    assert (content["status"], content["version"]) == (status, 1)
    assert "/" not in content["detail"].replace("multipart/form-data", "").replace("image/", "").replace(
        "application/", ""
    )
    return content["detail"]


def test_a_form_and_a_plain_body_get_the_same_answer_and_it_is_remembered(service, known):
    content = known["with_helmet/2.png"]
    form = service.predict(content).json()
    plain = service.client.post("/v1/predict", content=content, headers={"content-type": "image/png"}).json()
    ours, theirs = form["answers"][0], plain["answers"][0]
    assert (ours["file"], theirs["file"]) == ("p.png", "")
    assert ours["softmax"] == theirs["softmax"]
    until(lambda: service.predict(content).json()["answers"][0]["cached"])


def test_what_an_answer_holds(service, known):
    response = service.predict(known["without_helmet/1.png"])
    content = response.json()
    assert content["model"] == {"version": 1, "role": "champion"}
    assert response.headers["plumbline-version"] == "1"
    answer = content["answers"][0]
    assert answer["labels"] == [answer["label"]] == ["without_helmet"]
    assert answer["confidence"] == max(answer["probabilities"].values())
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["alarm"] == (answer["probabilities"]["without_helmet"] >= answer["threshold"] == 0.4)
    assert answer["unsure"] == bool(answer["because"])


def test_answers_come_in_the_order_of_the_files_from_many_clients_at_once(service, known):
    alone = {path: service.predict(content).json()["answers"][0]["softmax"] for path, content in known.items()}
    paths = list(known)

    def ask(seed):
        chosen = np.random.default_rng(seed).choice(paths, 6)
        answers = service.predict(*(known[path] for path in chosen)).json()["answers"]
        return [(path, answer["softmax"]) for path, answer in zip(chosen, answers, strict=True)]

    with ThreadPoolExecutor(8) as pool:
        for path, softmax in [pair for part in pool.map(ask, range(40)) for pair in part]:
            assert softmax == pytest.approx(alone[path], abs=1e-5)


def test_one_bad_file_among_good_ones_is_said_and_the_others_are_answered(service, known):
    answers = service.predict(known["with_helmet/0.png"], b"hello").json()["answers"]
    assert answers[0]["label"] == "with_helmet"
    assert answers[1] == {
        "file": "p.png",
        "refused": "is not a picture, or its beginning is damaged: no JPEG, PNG, BMP or WebP header",
        "status": 422,
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"GIF89a" + bytes(100), "a GIF"),
        (b"%PDF-1.7 " + bytes(100), "a PDF"),
        (b"PK\x03\x04" + bytes(100), "a ZIP archive"),
        (b"<html><script>alert(1)</script>", "a web page"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "damaged"),
    ],
)
def test_what_is_no_picture_is_refused_by_its_bytes_whatever_it_is_called(service, content, said):
    answer = service.client.post("/v1/predict", content=content, headers={"content-type": "image/jpeg"})
    assert said in refusal(answer, 422)


def test_a_bomb_is_refused_before_it_is_decoded(service):
    bomb = png(np.zeros((8000, 8000, 3), np.uint8))  # 64 million pixels in 190 KB
    assert "64,000,000" in refusal(service.predict(bomb), 422) or "8000 x 8000" in service.predict(bomb).text


def test_views_tell_how_much_the_answer_moves(service, known):
    answer = service.predict(known["with_helmet/0.png"], params={"views": 8}).json()["answers"][0]
    views = answer["views"]
    assert views["count"] == 8
    assert set(views["mean"]) == set(views["spread"]) == {"with_helmet", "without_helmet"}
    assert 0 < views["spread"]["with_helmet"] < 0.5
    assert 0 <= views["agree"] <= 1
    assert "views" in refusal(service.predict(known["with_helmet/0.png"], params={"views": 1000}), 422)


def test_the_overlay_points_at_what_the_network_was_taught_to_look_at(service):
    """In the tiny pictures, a helmet is a bright upper half: covering that must matter more than the lower."""
    noise = np.random.default_rng(0).integers(0, 160, (16, 16, 3))
    for light in range(0, 95, 3):  # the faintest helmet that is seen: of a bright one the network is sure as can be
        lit = noise.copy()
        lit[:8] += light
        answer = service.predict(png(lit.astype(np.uint8)), params={"explain": "true"}).json()["answers"][0]
        if answer["label"] == "with_helmet":
            break
    drop = np.array(answer["overlay"]["drop"])
    assert drop.shape == (8, 8)
    assert answer["overlay"]["label"] == "with_helmet"
    assert drop[:4].mean() > drop[4:].mean()
    assert answer["overlay"]["picture"].startswith("data:image/png;base64,")


def test_limits_of_a_request(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1)
    limits = {"pictures": 3, "picture_bytes": 5000, "request_bytes": 20_000, "upload_seconds": 1.0}
    project.settings(limits=limits, queue=64)
    picture = known["with_helmet/0.png"]
    with project.serving("--workers", "1") as service:
        assert "more than 3 files" in refusal(service.predict(*[picture] * 4), 413)
        assert "more than the 5,000 allowed" in refusal(service.predict(bytes(6000)), 413)
        assert "20,000 bytes" in refusal(service.predict(bytes(30_000)), 413)

        def drip():
            yield bytes(8000)
            yield bytes(8000)
            yield bytes(8000)

        answer = service.client.post("/v1/predict", content=drip(), headers={"content-type": "image/png"})
        assert "20,000 bytes" in refusal(answer, 413)  # also where no length is given
        host, port = service.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as slow:
            head = "POST /v1/predict HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 100\r\n\r\nabc"
            slow.sendall(head.encode())
            assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
        with socket.create_connection((host, int(port))) as half:  # goes away in the middle of an upload
            half.sendall(head.encode())
        assert service.predict(picture).status_code == 200


def test_a_full_queue_is_refused_with_the_time_to_come_back(tmp_path, registered):
    project = Project(tmp_path / "p", registered).champion(1).settings(queue=8, cache=0)
    random = np.random.default_rng(0)
    with project.serving("--workers", "1") as service:

        def ask(seed):
            pictures = [png(random.integers(0, 256, (16, 16, 3), np.uint8)) for _ in range(6)]
            return service.predict(*pictures, params={"explain": "true"})

        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(ask, range(48)))
        statuses = {answer.status_code for answer in answers}
        assert statuses == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert 1 <= int(answer.headers["retry-after"]) <= 60
                assert "queue is full" in refusal(answer, 429)
        turned_away = sum(answer.status_code == 429 for answer in answers)
        counted = r'plumbline_requests_total{route="/v1/predict",status="429"} ([0-9.]+)'
        told = re.search(counted, service.client.get("/metrics").text)
        assert float(told[1]) == turned_away
        assert service.predict(png(np.zeros((16, 16, 3), np.uint8))).status_code == 200


def test_a_zip_is_answered_file_by_file(service, known):
    files = {f"day/{n}.png": content for n, content in enumerate(known.values())}
    files |= {"day/readme.txt": b"hello", "../../etc/passwd.png": b"x", "/root.png": b"x", "C:\\x.png": b"x"}
    files |= {"__MACOSX/day/._1.png": b"x"}
    answers = {answer["file"]: answer for answer in post_zip(service, zipped(files)).json()["answers"]}
    assert len(answers) == len(known) + 3
    for n, path in enumerate(known):
        assert answers[f"day/{n}.png"]["label"] in path or answers[f"day/{n}.png"]["confidence"] < 0.9
    assert "not named as a picture" in answers["day/readme.txt"]["refused"]
    for name in ("/root.png", "C:\\x.png"):
        assert "leads out of the archive" in answers[name]["refused"]
    assert not any("etc" in name for name in answers)  # `..` is litter, as every hidden name is


def test_archives_that_are_out_to_harm(service, known):
    assert "no zip" in refusal(post_zip(service, b"PK\x03\x04 torn"), 422)
    assert "no file" in refusal(post_zip(service, zipped({})), 422)
    many = zipped({f"{n}.png": b"" for n in range(1001)})
    assert "more than 1,000 files" in refusal(post_zip(service, many), 413)
    bomb = bytearray(zipped({"bomb.png": bytes(60_000_000)}))
    answers = post_zip(service, bytes(bomb)).json()["answers"]
    assert "more than the 20,000,000 bytes" in answers[0]["refused"]
    # Its size is said to be small in both headers, while its content is not.
    small = (1000).to_bytes(4, "little")
    large = (60_000_000).to_bytes(4, "little")
    lying = bytes(bomb).replace(large, small)
    assert "refused" in post_zip(service, lying).json()["answers"][0]
    inner = zipped({"inner.png": zipped({"x.png": known["with_helmet/0.png"]})})
    assert "a ZIP archive" in post_zip(service, inner).json()["answers"][0]["refused"]


@pytest.fixture
def shop():
    """A server of pictures on loopback: /good.png, /moved (to /good.png), /endless."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    from threading import Thread

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append(self.path)
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/good.png")
                self.end_headers()
                return
            self.send_response(200)
            self.end_headers()
            try:
                for _ in range(100 if self.path == "/endless" else 1):
                    self.wfile.write(self.server.content if self.path != "/endless" else bytes(1_000_000))
            except OSError:
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def urls(service, *links):
    answer = service.client.post("/v1/batch", json={"urls": links})
    assert answer.status_code == 200, answer.text
    return [one.get("refused", one.get("label")) for one in answer.json()["answers"]]


def test_urls_are_fetched_from_hosts_on_the_list_only(tmp_path, registered, known, shop):
    shop.content = known["with_helmet/0.png"]
    port = shop.server_address[1]
    project = Project(tmp_path / "p", registered).champion(1)
    project.settings(url_hosts=["localhost", "127.0.0.1"], url_networks=["127.0.0.0/8", "::1/128"])
    with project.serving("--workers", "1") as service:
        base = f"http://127.0.0.1:{port}"
        found = urls(service, f"{base}/good.png", f"{base}/moved", f"{base}/endless", "file:///etc/passwd",
                     f"http://127.0.0.2:{port}/good.png", f"http://u:p@127.0.0.1:{port}/good.png",
                     f"http://127.0.0.1:{port}@evil.example/", "http://[::1", "gopher://127.0.0.1/")  # fmt: skip
    assert found[0] == "with_helmet"
    assert "status 302 (redirects are not followed)" in found[1]
    assert "20,000,000 bytes" in found[2]
    assert "neither http nor https" in found[3]
    assert "not on serving.url_hosts" in found[4]
    assert "password" in found[5]
    assert all("is" in one or "has" in one or "carries" in one for one in found[6:])
    assert sorted(shop.asked) == ["/endless", "/good.png", "/moved"]  # they are fetched side by side


def test_a_name_on_the_list_that_leads_inside_is_not_fetched(tmp_path, registered, known, shop):
    """Loopback, unless its network is named, too: what cloud metadata and databases answer on is inside."""
    shop.content = known["with_helmet/0.png"]
    project = (
        Project(tmp_path / "p", registered)
        .champion(1)
        .settings(url_hosts=["localhost", "127.0.0.1", "2130706433", "169.254.169.254", "0.0.0.0"])
    )
    with project.serving("--workers", "1") as service:
        hosts = ["localhost", "127.0.0.1", "2130706433", "169.254.169.254", "0.0.0.0"]
        found = urls(service, *(f"http://{host}/good.png" for host in hosts))
        port = f"http://127.0.0.1:{shop.server_address[1]}/good.png"
        assert "port" in urls(service, port)[0]
    assert all("inside" in one or "can't be resolved" in one for one in found), found
    assert "inside" in found[0]
    assert shop.asked == []


def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch, shop):
    """DNS rebinding: the first answer is fine, the second leads inside. There must be no second question."""
    from serving.links import CheckedBackend

    asked = []

    def answers(host, port, *args, **more):
        asked.append(host)
        address = "127.0.0.1" if len(asked) > 1 else "203.0.113.7"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    connected = []

    class Backend:
        async def connect_tcp(self, host, port, *_):
            connected.append(host)
            return "stream"

    monkeypatch.setattr(socket, "getaddrinfo", answers)
    backend = CheckedBackend([__import__("ipaddress").ip_network("203.0.113.0/24")])
    backend._backend = Backend()
    assert asyncio.run(backend.connect_tcp("pictures.example", 80)) == "stream"
    assert (asked, connected) == (["pictures.example"], ["203.0.113.7"])


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "::1", "fd00::1",
     "fe80::1%1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::"],
)  # fmt: skip
def test_addresses_inside_in_every_spelling(address):
    from serving.links import CheckedBackend

    assert not CheckedBackend([])._may(address)


def test_no_url_is_fetched_unless_a_host_is_named(service):
    answer = service.client.post("/v1/batch", json={"urls": ["http://example.com/x.png"]})
    assert "names no host" in refusal(answer, 403)


def test_keys_come_and_go_without_a_restart(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1).settings(keys="keys")

    def new_key(name):
        command = [sys.executable, "-m", "serving.keys", name]
        env = {**os.environ, "PYTHONPATH": str(TOP)}
        done = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    first = new_key("gate-1")
    text = (project.root / "keys").read_text()
    assert first not in text
    with project.serving("--workers", "2") as service:

        def status(key, header="authorization"):
            headers = {} if key is None else {header: f"Bearer {key}" if header == "authorization" else key}
            return service.predict(known["with_helmet/0.png"], headers=headers).status_code

        assert [status(None), status("wrong"), status(first), status(first, "x-api-key")] == [401, 401, 200, 200]
        for path in ("/v1/model", "/metrics", "/v2/models/plumbline"):
            assert service.client.get(path).status_code == 401
        assert service.client.get("/healthz").status_code == 200
        second = new_key("gate-2")
        until(lambda: status(second) == 200)
        (project.root / "keys").write_text((project.root / "keys").read_text().replace(text, ""))
        assert [status(first) for _ in range(6)] == [401] * 6
        assert status(second) == 200
        (project.root / "keys").write_text("torn")
        assert status(second) == 200  # the keys that were known stay
        form = {"files": {"file": ("x.png", known["with_helmet/0.png"])}, "data": {"key": second}}
        assert service.client.post("/", **form).status_code == 200
        assert service.client.post("/", files=form["files"]).status_code == 401


@pytest.mark.parametrize("options", [["--host", "0.0.0.0"], ["--host", "::"]])
def test_it_does_not_listen_to_the_world_without_keys_unless_told_so(tmp_path, options):
    project = Project(tmp_path / "p", None)
    command = [sys.executable, "-m", "plumbline.cli", "serve", "--port", "0", *options]
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    done = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no key is asked for" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_told_so_it_does(tmp_path, registered):
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "1", "--host", "0.0.0.0", "--open", ready=False) as service:
        assert service.client.get("/healthz").status_code == 200


def test_a_setting_that_does_not_exist_is_one_sentence(tmp_path):
    project = Project(tmp_path / "p", None).settings(wrokers=3)
    command = [sys.executable, "-m", "plumbline.cli", "serve"]
    env = {**os.environ, "PYTHONPATH": str(TOP)}
    done = subprocess.run(command, cwd=project.root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "serving.wrokers" in done.stderr


def test_every_response_has_the_version_and_the_headers_and_no_cross_origin(service, known):
    picture = {"files": {"file": ("x.png", known["with_helmet/0.png"])}}
    origin = {"origin": "https://evil.example"}
    for method, path, more in (
        ("GET", "/", {}), ("GET", "/healthz", {}), ("GET", "/nowhere", {}), ("DELETE", "/v1/model", {}),
        ("POST", "/v1/predict", picture), ("POST", "/", picture), ("GET", "/metrics", {}), ("GET", "/openapi.json", {}),
        ("OPTIONS", "/v1/predict", {}),
    ):  # fmt: skip
        answer = service.client.request(method, path, headers=origin, **more)
        assert answer.headers["plumbline-version"] == "1", path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers
        assert str(TOP) not in answer.text
        assert "Traceback" not in answer.text


def test_metrics_count_over_both_workers(service, known):
    def answered():
        text = service.client.get("/metrics").text
        lines = [line for line in text.splitlines() if line.startswith("plumbline_pictures_total{")]
        return sum(float(line.split()[-1]) for line in lines)

    before = answered()
    for _ in range(10):
        with httpx.Client(base_url=service.url) as fresh:
            assert fresh.post("/v1/predict", files={"file": known["with_helmet/0.png"]}).status_code == 200
    assert answered() == before + 10


def test_the_document_has_an_example_of_each_answer(service):
    document = service.client.get("/openapi.json").json()
    assert {"/v1/predict", "/v1/batch", "/v1/model", "/v1/feedback", "/readyz", "/v2/models/{model}/infer"} <= set(
        document["paths"]
    )
    answer = document["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]["example"]
    real = service.predict(png(np.zeros((16, 16, 3), np.uint8))).json()
    assert set(answer) == set(real)
    assert set(answer["answers"][0]) == set(real["answers"][0])


def test_a_jpeg_with_a_preview_behind_it_and_a_polyglot_are_their_picture(service):
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(buffer, "JPEG")
    plain = buffer.getvalue()
    polyglot = plain + zipped({"evil.html": b"<script>"})
    ours, theirs = (service.predict(one).json()["answers"][0]["softmax"] for one in (plain, polyglot))
    assert ours == theirs
