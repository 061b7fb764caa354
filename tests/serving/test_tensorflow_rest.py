"""TensorFlow Serving's REST API over real HTTP: its requests, answered as the graph answers, and its errors."""

from __future__ import annotations

import base64
import gzip
import json

import numpy as np
import pytest
from running import Project, png, until

from benchmarks.tiny_project import SIZE, pictures
from plumbline.models.export import OnnxModel
from plumbline.registry import bundle
from serving.keys import digest
from serving.model import Scored
from serving.settings import Limits
from serving.tensorflow_rest import SIGNATURES, Asked, read_request, status, write_response

pytestmark = pytest.mark.slow

PATHS = ["with_helmet/0.png", "without_helmet/1.png", "with_helmet/2.png"]
MODEL = "/v1/models/plumbline"
PREDICT = f"{MODEL}:predict"
WHOLE = [[[0, 0, 0]] * SIZE] * SIZE


@pytest.fixture(scope="module")
def pixels():
    return np.stack(list(pictures(PATHS)))


@pytest.fixture(scope="module")
def expected(project, pixels):
    return OnnxModel(project.folder(1) / bundle.ONNX)(pixels)


def as_text(picture):
    return base64.b64encode(png(picture)).decode()


def asked(service, content, path=PREDICT, **options):
    answer = service.client.post(path, json=content, **options)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/json"
    return answer.json()


def test_the_status_of_a_version_and_of_all(service):
    known = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in (MODEL, f"{MODEL}/versions/1"):
        answer = service.client.get(path)
        assert (answer.status_code, answer.json()) == (200, {"model_version_status": [known]})
    assert [one["version"] for one in status([4, 7])["model_version_status"]] == ["4", "7"]


@pytest.mark.parametrize("path", [PREDICT, f"{MODEL}/versions/1:predict"])
@pytest.mark.parametrize("named", [False, True])
def test_rows_of_pixels_are_answered_row_by_row(service, pixels, expected, path, named):
    rows = [{"pixels": one} if named else one for one in pixels.tolist()]
    found = asked(service, {"signature_name": "serving_default", "instances": rows}, path)
    assert list(found) == ["predictions"]
    np.testing.assert_allclose(found["predictions"], expected[0], atol=1e-5)


@pytest.mark.parametrize("named", [False, True])
def test_columns_are_answered_by_columns(service, pixels, expected, named):
    inputs = {"pixels": pixels.tolist()} if named else pixels.tolist()
    found = asked(service, {"inputs": inputs})
    assert list(found) == ["outputs"]
    np.testing.assert_allclose(found["outputs"], expected[0], atol=1e-5)


def test_a_signature_of_one_output_goes_without_its_name_and_one_of_two_with_them(service, pixels, expected):
    probabilities, embedding = expected
    found = asked(service, {"signature_name": "embedding", "instances": pixels.tolist()})["predictions"]
    np.testing.assert_allclose(found, embedding, atol=1e-5)
    rows = asked(service, {"signature_name": "all", "instances": pixels.tolist()})["predictions"]
    np.testing.assert_allclose([one["probabilities"] for one in rows], probabilities, atol=1e-5)
    np.testing.assert_allclose([one["embedding"] for one in rows], embedding, atol=1e-5)
    columns = asked(service, {"signature_name": "all", "inputs": {"pixels": pixels.tolist()}})["outputs"]
    np.testing.assert_allclose(columns["probabilities"], probabilities, atol=1e-5)
    np.testing.assert_allclose(columns["embedding"], embedding, atol=1e-5)


def test_files_as_base64_are_prepared_as_serving_prepares_them_and_mix_with_pixels(service, pixels, expected):
    files = [{"b64": as_text(one)} for one in pixels]  # of the network's size, so that nothing is resized
    mixed = [files[0], pixels[1].tolist(), {"image_bytes": files[2]}]
    for content in ({"instances": files}, {"inputs": {"image_bytes": files}}, {"inputs": files}, {"instances": mixed}):
        (found,) = asked(service, content).values()
        np.testing.assert_allclose(found, expected[0], atol=1e-5)
    large = np.kron(pixels[0], np.ones((3, 2, 1), np.uint8))
    found = asked(service, {"instances": [{"b64": as_text(large)}]})["predictions"][0]
    softmax = service.predict(png(large)).json()["answers"][0]["softmax"]
    np.testing.assert_allclose(found, list(softmax.values()), atol=1e-5)


def test_bodies_may_be_packed_both_ways(service, pixels, expected):
    body = gzip.compress(json.dumps({"instances": pixels.tolist()}).encode())
    answer = service.client.post(PREDICT, content=body, headers={"content-encoding": "gzip", "accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    np.testing.assert_allclose(answer.json()["predictions"], expected[0], atol=1e-5)


def refused(answer, code, words):
    assert (answer.status_code, answer.headers["content-type"]) == (code, "application/json"), answer.text
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({}, "Missing 'inputs' or 'instances'"), ([], "Missing"), ("x", "Missing"), (3, "Missing"),
        ({"instances": [WHOLE], "inputs": [WHOLE]}, "one of the two"),
        ({"instances": []}, "holds no picture"), ({"instances": "x"}, "must be a list"),
        ({"inputs": 3}, "must be a list"),
        ({"instances": [WHOLE], "signature_name": "x"}, "signature key not found"),
        ({"instances": [WHOLE], "signature_name": []}, "signature key not found"),
        ({"instances": [WHOLE[1:]]}, "instances[0] must be numbers of shape"),
        ({"instances": [WHOLE, 5]}, "instances[1] must be numbers of shape"),
        ({"instances": [[["a"]]]}, "must be numbers"), ({"instances": [None]}, "must be numbers"),
        ({"instances": [[[[True] * 3] * SIZE] * SIZE]}, "must be numbers"),
        ({"instances": [[[[256] * 3] * SIZE] * SIZE]}, "from 0 to 255"),
        ({"inputs": [[[[-1] * 3] * SIZE] * SIZE]}, "inputs[0]: the pixels must be numbers from 0 to 255"),
        ({"instances": [{"other": WHOLE}]}, "single input 'pixels'"),
        ({"instances": [{"pixels": WHOLE, "image_bytes": {"b64": ""}}]}, "single input"),
        ({"inputs": {"pixels": WHOLE, "b64": "x"}}, "must be a list"),
        ({"instances": [{"b64": "§"}]}, "instances[0]: this is no base64"), ({"instances": [{"b64": 3}]}, "base64"),
        ({"instances": [{"b64": "AAA"}]}, "no base64"), ({"instances": [{"image_bytes": "AAAA"}]}, "must be numbers"),
    ],
)  # fmt: skip
def test_a_request_that_is_none_is_an_error_in_its_format(service, content, words):
    refused(service.client.post(PREDICT, json=content), 400, words)


def test_what_is_no_json_or_no_picture_or_too_much_is_an_error_in_its_format(service):
    refused(service.client.post(PREDICT, content=b"{"), 400, "JSON Parse Error")
    refused(service.client.post(PREDICT, content=b"[" * 100_000), 400, "JSON Parse Error")
    nan = json.dumps({"instances": [WHOLE]}).replace("0", "NaN", 1)
    refused(service.client.post(PREDICT, content=nan), 400, "from 0 to 255")
    text = base64.b64encode(b"no picture").decode()
    refused(service.client.post(PREDICT, json={"instances": [{"b64": text}]}), 422, "instances[0] ")
    many = {"instances": [[]] * (Limits().pictures + 1)}
    refused(service.client.post(PREDICT, json=many), 413, f"more than {Limits().pictures} pictures")
    refused(service.client.post(PREDICT, content=b"x", headers={"content-encoding": "br"}), 415, "neither gzip")


def test_what_is_not_served_is_a_404_in_its_format(service):
    get, post = service.client.get, service.client.post
    refused(get("/v1/models/another"), 404, "Servable not found for request: Latest(another)")
    refused(get(f"{MODEL}/versions/7"), 404, "Specific(plumbline, 7)")
    refused(post("/v1/models/another:predict", json={"instances": [WHOLE]}), 404, "Latest(another)")
    refused(post(f"{MODEL}/versions/2:predict", json={"instances": [WHOLE]}), 404, "Specific(plumbline, 2)")
    refused(get(f"{MODEL}/nothing/here"), 404, "nothing at this address")
    refused(get(PREDICT), 404, "Servable not found")
    refused(post(MODEL, json={}), 405, "other methods")
    elsewhere = get("/v1/nothing")
    assert elsewhere.headers["content-type"] == "application/problem+json", "there refusals stay as they are"


def test_keys_limits_and_the_challenger_are_those_of_the_other_addresses(tmp_path, registered, pixels, expected):
    project = Project(tmp_path / "p", registered).champion(1).alias("challenger", 2)
    (project.root / "keys").write_text(f"gate {digest('secret')}\n")
    limits = {"pictures": 3, "picture_bytes": 500, "request_bytes": 99_999}
    project.settings(keys="keys", challenger={"mode": "shadow"}, limits=limits)
    with project.serving("--workers", "1") as service:
        refused(service.client.get(MODEL), 401, "Send a key")
        refused(service.client.post(PREDICT, json={"instances": [WHOLE]}), 401, "Send a key")
        service.client.headers["authorization"] = "Bearer secret"
        until(lambda: len(service.client.get(MODEL).json()["model_version_status"]) == 2)
        content = {"instances": pixels.tolist()}
        found = asked(service, content, f"{MODEL}/versions/2:predict")["predictions"]
        np.testing.assert_allclose(found, expected[0][:, ::-1], atol=1e-5)
        refused(service.client.post(PREDICT, json={"instances": [WHOLE] * 4}), 413, "more than 3 pictures")
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
        large = {"instances": [{"b64": as_text(noise)}]}
        refused(service.client.post(PREDICT, json=large), 413, "bytes, more than the 500")
        refused(service.client.post(PREDICT, content=b" " * 100_000), 413, "more than 99,999 bytes")


def test_the_words_of_a_request_are_read_without_a_server():
    class Fake:
        image_size = 2

    body = json.dumps({"signature_name": "", "instances": [[[[1, 2.5, 3]] * 2] * 2]}).encode()
    found = read_request(body, Fake(), Limits())
    assert (found.outputs, found.by_row) == (SIGNATURES["serving_default"], True)
    np.testing.assert_array_equal(found.pictures[0], np.full((2, 2, 3), [1, 2.5, 3]))
    scored = [Scored(np.array([0.25, 0.75], np.float32), np.array([1.0], np.float32))]
    assert write_response(Asked([], SIGNATURES["all"], False), scored) == {
        "outputs": {"probabilities": [[0.25, 0.75]], "embedding": [[1.0]]}
    }
