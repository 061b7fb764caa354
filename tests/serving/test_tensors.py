"""Inference requests by hand, where Triton's client would not send them: refused with 4xx, never a crash."""

import gzip
import json
from types import SimpleNamespace

import numpy as np
import pytest

from serving import inference_protocol as protocol
from serving.model import Scored
from serving.problems import ProblemError

SERVED = SimpleNamespace(image_size=2, version=7, classes=("a", "b"), known=np.zeros((1, 3)))
DATA = list(range(12))


def tensor(**changes):
    return {"name": "pixels", "datatype": "FP32", "shape": [1, 2, 2, 3], "data": DATA} | changes


def body(inputs=None, **more):
    return json.dumps({"inputs": [tensor()] if inputs is None else inputs, **more}).encode()


def read(content, length=None, most=3):
    return protocol.read_request(content, length, SERVED, most)


def refusal(content, length=None):
    with pytest.raises(ProblemError) as raised:
        read(content, length)
    return raised.value.status


def test_numbers_and_bytes_mean_the_same_pixels():
    plain = read(body(id="mine"))
    assert plain.identity == "mine"
    assert plain.outputs == {"probabilities": False, "embedding": False}
    assert plain.pixels.tolist() == np.arange(12).reshape(1, 2, 2, 3).tolist()
    for kind, dtype in (("FP32", "<f4"), ("UINT8", "u1")):
        raw = np.arange(12).astype(dtype).tobytes()
        one = tensor(datatype=kind, parameters={"binary_data_size": len(raw)})
        del one["data"]
        head = body([one], outputs=[{"name": "embedding", "parameters": {"binary_data": True}}])
        got = read(head + raw, str(len(head)))
        assert (got.pixels == plain.pixels).all()
        assert got.outputs == {"embedding": True}


@pytest.mark.parametrize(
    "changes",
    [
        {"datatype": ["FP32"]},
        {"datatype": None},
        {"datatype": "INT64"},
        {"name": ["pixels"]},
        {"name": "other"},
        {"shape": [1, 2, 2]},
        {"shape": [0, 2, 2, 3]},
        {"shape": [-1, 2, 2, 3]},
        {"shape": [1, 3, 3, 3]},
        {"shape": "1223"},
        {"shape": [float("inf"), 2, 2, 3]},
        {"data": DATA[:-1]},
        {"data": [[1, 2], [3]]},
        {"data": {"a": 1}},
        {"data": None},
        {"data": ["3"] * 12},
        {"data": [True] * 12},
        {"data": [-1, *DATA[1:]]},
        {"data": [256, *DATA[1:]]},
        {"data": [1e300, *DATA[1:]]},
        {"data": [float("nan"), *DATA[1:]]},
        {"datatype": "UINT8", "data": [1.5, *DATA[1:]]},
        {"datatype": "UINT8", "data": [256, *DATA[1:]]},
        {"datatype": "UINT8", "data": [-1, *DATA[1:]]},
        {"parameters": {"binary_data_size": 48}},
        {"parameters": {"binary_data_size": [48]}},
        {"parameters": [1]},
    ],
    ids=str,
)
def test_a_tensor_that_is_none_of_ours_is_refused(changes):
    assert refusal(body([tensor(**changes)])) == 400


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"inputs": [1]}',
        b"[" * 100_000,
        body([]),
        body([tensor(), tensor()]),
        body(id=5),
        body(outputs=[{"name": "weights"}]),
        body(outputs=["probabilities"]),
        body(outputs=5),
    ],
    ids=lambda content: content[:40].decode("latin-1"),
)
def test_a_body_that_is_no_request_is_refused(content):
    assert refusal(content) == 400


@pytest.mark.parametrize("length", ["-1", "1e3", "²", "999999", "9" * 5000, ""])
def test_a_length_that_is_no_number_or_too_large_is_refused(length):
    assert refusal(body(), length) == 400


def test_bytes_that_are_not_as_many_as_they_say():
    one = tensor(parameters={"binary_data_size": 47})
    head = body([one])
    assert refusal(head + bytes(47), str(len(head))) == 400
    assert refusal(head + bytes(48), str(len(head))) == 400


def test_too_many_pictures():
    assert refusal(body([tensor(shape=[4, 2, 2, 3])])) == 413


def test_a_packed_body_is_bounded_whole_and_known():
    packed = gzip.compress(bytes(1000))
    assert protocol.unpacked(packed, "gzip", 1000) == bytes(1000)
    assert protocol.unpacked(b"x", "", 0) == b"x"
    for content, encoding, most, status in (
        (packed, "gzip", 999, 413),
        (packed[:-9], "gzip", 1000, 400),
        (b"x", "gzip", 9, 400),
        (b"x", "br", 9, 415),
    ):
        with pytest.raises(ProblemError) as raised:
            protocol.unpacked(content, encoding, most)
        assert raised.value.status == status


def test_a_response_says_where_its_json_ends():
    scored = [Scored(np.array([0.25, 0.75], np.float32), np.array([1, 2, 3], np.float32))]
    wanted = protocol.Wanted("mine", np.zeros(0), {"probabilities": False, "embedding": True})
    content, length = protocol.write_response("plumbline", SERVED, wanted, scored)
    head = json.loads(content[:length])
    assert (head["id"], head["model_version"]) == ("mine", "7")
    assert head["outputs"][0] == {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.25, 0.75]}
    assert head["outputs"][1]["parameters"] == {"binary_data_size": 12}
    assert np.frombuffer(content[length:], "<f4").tolist() == [1, 2, 3]


def test_metadata_and_configuration_agree():
    said, config = protocol.metadata("m", SERVED, [7, 8]), protocol.config("m", SERVED, 16)
    assert said["versions"] == ["7", "8"]
    assert [one["shape"] for one in said["outputs"]] == [[-1, 2], [-1, 3]]
    assert [one["dims"] for one in config["output"]] == [[2], [3]]
    assert config["max_batch_size"] == 16


def test_an_answer_is_packed_as_the_client_accepts_it():
    content, encoding = protocol.packed(b"answer", "br, gzip;q=0.5")
    assert (gzip.decompress(content), encoding) == (b"answer", "gzip")
    content, encoding = protocol.packed(b"answer", "br, deflate")
    assert (protocol.unpacked(content, "deflate", 6), encoding) == (b"answer", "deflate")
    assert protocol.packed(b"answer", "br") == (b"answer", None)
