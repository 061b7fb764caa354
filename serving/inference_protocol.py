"""The Open Inference Protocol v2 over REST, with the binary tensor extension: what `tritonclient[http]` speaks.

https://github.com/kserve/open-inference-protocol and Triton's protocol/extension_binary_data. The tensors are the
graph's own: `pixels` (N, S, S, 3) in [0, 255] as FP32 or UINT8 in, `probabilities` (N, C) before the temperature, and
`embedding` (N, D) out.
"""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from operator import index
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.models.export import EMBEDDING, INPUT, PROBABILITIES
from serving.model import Scored, Served
from serving.problems import ProblemError
from serving.uploads import header_number

TYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("u1")}
JSON_LENGTH = "inference-header-content-length"
PLATFORM = "onnx_onnxv1"
EXTENSIONS = ["model_configuration", "binary_tensor_data"]


@dataclass(frozen=True)
class Wanted:
    """An inference request: pictures (N, S, S, 3), and for each output whether it comes back as binary."""

    identity: str | None
    pixels: NDArray[Any]
    outputs: dict[str, bool]


def metadata(model: str, served: Served, versions: list[int]) -> dict[str, Any]:
    """Return the metadata of the model."""
    side = served.image_size
    return {
        "name": model,
        "versions": [str(version) for version in versions],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, side, side, 3]}],
        "outputs": [
            {"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, len(served.classes)]},
            {"name": EMBEDDING, "datatype": "FP32", "shape": [-1, served.known.shape[1]]},
        ],
    }


def config(model: str, served: Served, batch: int) -> dict[str, Any]:
    """Return the configuration as Triton's client asks for it."""
    tensors = metadata(model, served, [])
    described = {
        kind: [
            {"name": one["name"], "data_type": f"TYPE_{one['datatype']}", "dims": one["shape"][1:]}
            for one in tensors[kind]
        ]
        for kind in ("inputs", "outputs")
    }
    return {
        "name": model,
        "platform": PLATFORM,
        "backend": "onnxruntime",
        "max_batch_size": batch,
        "input": described["inputs"],
        "output": described["outputs"],
    }


def unpacked(body: bytes, encoding: str, most: int) -> bytes:
    """Return a body without its compression, at most `most` bytes; ProblemError otherwise."""
    if encoding in ("", "identity"):
        return body
    if encoding not in ("gzip", "deflate"):
        raise ProblemError(415, "The body's encoding is neither gzip nor deflate.")
    try:
        opened = zlib.decompressobj(zlib.MAX_WBITS | 32)
        plain = opened.decompress(body, most + 1)
    except zlib.error:
        raise ProblemError(400, f"The body is not {encoding}.") from None
    if len(plain) > most:
        raise ProblemError(413, f"The request has more than {most:,} bytes: send less at a time.")
    if not opened.eof:
        raise ProblemError(400, f"The body is cut short: it is no whole {encoding}.")
    return plain


def read_request(body: bytes, json_length: str | None, served: Served, most: int) -> Wanted:
    """Return what an inference request asks for; ProblemError says what is wrong with it."""
    head, binary = _split(body, json_length)
    try:
        content = json.loads(head)
        inputs, identity = content["inputs"], content.get("id")
        (tensor,) = inputs
        name, kind, shape = tensor["name"], str(tensor["datatype"]), [index(size) for size in tensor["shape"]]
        parameters = tensor.get("parameters") or {}
        binary_size = parameters.get("binary_data_size")
        outputs = _outputs(content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        raise ProblemError(400, f"The request is no inference request with the single input '{INPUT}'.") from None
    if identity is not None and not isinstance(identity, str):
        raise ProblemError(400, "The request's id is no text.")
    side = served.image_size
    if name != INPUT or kind not in TYPES or len(shape) != 4 or shape[1:] != [side, side, 3] or shape[0] < 1:
        raise ProblemError(400, f"The input must be '{INPUT}', FP32 or UINT8, of shape [N, {side}, {side}, 3].")
    if shape[0] > most:
        raise ProblemError(413, f"The request has more than {most} pictures: send fewer at a time.")
    try:
        if binary_size is not None:
            size = int(binary_size)
            if size != len(binary):
                raise ValueError("the tensor's bytes are not as many as it says")
            values: NDArray[Any] = np.frombuffer(binary, TYPES[kind])
        else:
            values = plain_numbers(tensor["data"], kind)
        pixels = values.reshape(shape)
    except (ValueError, TypeError, KeyError, OverflowError):
        raise ProblemError(400, "The input's data does not fit its shape and datatype.") from None
    if kind == "FP32" and not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 255):
        raise ProblemError(400, "The pixels must be numbers from 0 to 255.")
    return Wanted(identity, pixels.astype(np.float32), outputs)


def plain_numbers(data: Any, kind: str) -> NDArray[Any]:
    """The numbers of a list as they are: NumPy alone would cut 1.5 to 1 and read the text "3" as a number."""
    values = np.asarray(data)
    if values.dtype.kind not in ("iu" if kind == "UINT8" else "iuf"):
        raise ValueError("the data are no numbers of this datatype")
    if kind == "UINT8" and values.size and not (values.min() >= 0 and values.max() <= 255):
        raise ValueError("the data are no bytes")
    with np.errstate(over="ignore"):  # beyond FP32 is infinite, and refused as such
        return values.astype(TYPES[kind])


def _split(body: bytes, json_length: str | None) -> tuple[bytes, bytes]:
    if json_length is None:
        return body, b""
    length = header_number(json_length)
    if length is None or length > len(body):
        raise ProblemError(400, f"{JSON_LENGTH} does not fit the body.")
    return body[:length], body[length:]


def _outputs(content: dict[str, Any]) -> dict[str, bool]:
    every = bool((content.get("parameters") or {}).get("binary_data_output", False))
    asked = content.get("outputs") or [{"name": PROBABILITIES}, {"name": EMBEDDING}]
    found = {}
    for one in asked:
        if one["name"] not in (PROBABILITIES, EMBEDDING):
            raise ProblemError(400, f"The outputs are '{PROBABILITIES}' and '{EMBEDDING}'.")
        found[str(one["name"])] = bool((one.get("parameters") or {}).get("binary_data", every))
    return found


def write_response(model: str, served: Served, wanted: Wanted, scored: list[Scored]) -> tuple[bytes, int | None]:
    """Return the response's body, and where its JSON ends if tensors follow it as bytes."""
    arrays = {
        PROBABILITIES: np.stack([one.probabilities for one in scored]),
        EMBEDDING: np.stack([one.embedding for one in scored]),
    }
    outputs, tail = [], b""
    for name, as_binary in wanted.outputs.items():
        array = np.ascontiguousarray(arrays[name], "<f4")
        entry: dict[str, Any] = {"name": name, "datatype": "FP32", "shape": list(array.shape)}
        if as_binary:
            entry["parameters"] = {"binary_data_size": array.nbytes}
            tail += array.tobytes()
        else:
            entry["data"] = array.reshape(-1).tolist()
        outputs.append(entry)
    content: dict[str, Any] = {"model_name": model, "model_version": str(served.version), "outputs": outputs}
    if wanted.identity is not None:
        content["id"] = wanted.identity
    head = json.dumps(content).encode()
    return head + tail, len(head) if tail else None


def packed(body: bytes, accepted: str) -> tuple[bytes, str | None]:
    """Return the body as the client accepts it, and its encoding."""
    names = {name.split(";")[0].strip() for name in accepted.split(",")}
    if "gzip" in names:
        return gzip.compress(body, 1), "gzip"
    if "deflate" in names:
        return zlib.compress(body, 1), "deflate"
    return body, None
