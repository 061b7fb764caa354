"""The Open Inference Protocol, asked by Triton's own client."""

import json

import numpy as np
import pytest
from running import Project, until

from benchmarks.tiny_project import SIZE, pictures
from plumbline.models.export import OnnxModel
from plumbline.registry import bundle
from serving.settings import ServingParams

pytestmark = pytest.mark.slow

PATHS = ["with_helmet/0.png", "without_helmet/1.png", "with_helmet/2.png"]


@pytest.fixture(scope="module")
def pixels():
    return np.stack(list(pictures(PATHS)))


@pytest.fixture(scope="module")
def expected(project, pixels):
    return OnnxModel(project.folder(1) / bundle.ONNX)(pixels)


@pytest.fixture
def triton(service):
    from tritonclient import http

    with http.InferenceServerClient(service.url.removeprefix("http://"), network_timeout=30) as client:
        yield client


def ask(client, pixels, kind="FP32", binary=True, wanted=("probabilities", "embedding"), binary_out=True, **more):
    from tritonclient import http

    tensor = http.InferInput("pixels", list(pixels.shape), kind)
    tensor.set_data_from_numpy(pixels.astype(np.float32 if kind == "FP32" else np.uint8), binary_data=binary)
    outputs = [http.InferRequestedOutput(name, binary_data=binary_out) for name in wanted]
    return client.infer("plumbline", [tensor], outputs=outputs or None, **more)


def test_health_and_metadata(triton):
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("plumbline")
    assert triton.is_model_ready("plumbline", "1")
    assert not triton.is_model_ready("plumbline", "2")
    assert not triton.is_model_ready("another")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    metadata = triton.get_model_metadata("plumbline", "1")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, SIZE, SIZE, 3]}]
    assert [one["name"] for one in metadata["outputs"]] == ["probabilities", "embedding"]
    assert triton.get_model_config("plumbline")["max_batch_size"] == ServingParams().batch


@pytest.mark.parametrize("kind", ["FP32", "UINT8"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tensors_come_back_as_the_graph_gives_them(triton, pixels, expected, kind, binary, binary_out):
    result = ask(triton, pixels, kind, binary, binary_out=binary_out, request_id="seven")
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == ("plumbline", "1", "seven")
    for name, value in zip(("probabilities", "embedding"), expected, strict=True):
        np.testing.assert_allclose(result.as_numpy(name), value, atol=1e-5)


def test_outputs_not_named_all_come_and_one_named_comes_alone(triton, pixels):
    assert len(ask(triton, pixels, wanted=()).get_response()["outputs"]) == 2
    assert len(ask(triton, pixels, wanted=("embedding",)).get_response()["outputs"]) == 1


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compressed_both_ways(triton, pixels, expected, algorithm):
    result = ask(triton, pixels, request_compression_algorithm=algorithm, response_compression_algorithm=algorithm)
    np.testing.assert_allclose(result.as_numpy("probabilities"), expected[0], atol=1e-5)


def test_the_challenger_answers_under_its_number(tmp_path, registered, pixels, expected):
    from tritonclient import http

    project = Project(tmp_path / "p", registered).champion(1).alias("challenger", 2)
    project.settings(challenger={"mode": "shadow"})
    with project.serving("--workers", "1") as service:
        until(lambda: service.client.get("/v1/model").json()["challenger"] == 2)
        with http.InferenceServerClient(service.url.removeprefix("http://")) as client:
            assert client.get_model_metadata("plumbline")["versions"] == ["1", "2"]
            result = ask(client, pixels, model_version="2")
        assert result.get_response()["model_version"] == "2"
        np.testing.assert_allclose(result.as_numpy("probabilities"), expected[0][:, ::-1], atol=1e-5)


def test_a_wrong_tensor_is_refused_by_name(triton, pixels):
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=r"(?s)400|shape"):
        ask(triton, pixels[:, :8])
    with pytest.raises(InferenceServerException):
        ask(triton, pixels.astype(float) * 1000)


WHOLE = {"inputs": [{"name": "pixels", "shape": [1, SIZE, SIZE, 3], "datatype": "UINT8", "data": [0] * SIZE**2 * 3}]}


def changed(**changes):
    return {"inputs": [{**WHOLE["inputs"][0], **changes}]}


@pytest.mark.parametrize(
    "content",
    [
        {}, [], "x", None, {"inputs": []}, {"inputs": WHOLE["inputs"] * 2}, changed(name="other"), changed(data=[1, 2]),
        changed(shape=[1]), changed(shape=["a"]), changed(shape=[-1, SIZE, SIZE, 3]), changed(datatype="INT64"),
        changed(data="text"), changed(data={"a": 1}), changed(data=[[None]]), changed(data=[1e40] * SIZE**2 * 3),
        changed(parameters={"binary_data_size": 768}), changed(parameters={"binary_data_size": "x"}),
        changed(parameters=3), {**WHOLE, "outputs": [{"name": "nothing"}]}, {**WHOLE, "outputs": 3}, {**WHOLE, "id": 7},
        changed(shape=[10**30, SIZE, SIZE, 3]), changed(data=[-5] * SIZE**2 * 3),
    ],
)  # fmt: skip
def test_a_request_that_is_none_is_a_400(service, content):
    url = "/v2/models/plumbline/infer"
    assert service.client.post(url, json=WHOLE).status_code == 200
    answer = service.client.post(url, json=content)
    assert answer.status_code in (400, 413), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("length", ["-1", "x", "100000", "0"])
def test_a_json_length_that_does_not_fit_is_a_400(service, length):
    headers = {"inference-header-content-length": length}
    answer = service.client.post("/v2/models/plumbline/infer", content=json.dumps(WHOLE), headers=headers)
    assert answer.status_code == 400


def test_a_compression_bomb_is_a_413(tmp_path, registered):
    import gzip

    project = Project(tmp_path / "p", registered).champion(1).settings(limits={"request_bytes": 1_000_000})
    with project.serving("--workers", "1") as service:
        bomb = gzip.compress(bytes(50_000_000))
        url, headers = "/v2/models/plumbline/infer", {"content-encoding": "gzip"}
        assert service.client.post(url, content=bomb, headers=headers).status_code == 413
        assert service.client.post(url, content=bomb[:100], headers=headers).status_code in (400, 413)
        assert service.client.post(url, content=b"no gzip", headers=headers).status_code == 400
