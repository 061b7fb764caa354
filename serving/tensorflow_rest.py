"""TensorFlow Serving's REST API: its predict and status requests, in its words, answered from the ONNX champion.

https://www.tensorflow.org/tfx/serving/api_rest. A picture is an instance in the row format (`instances`) or a row of a
tensor in the columnar one (`inputs`): `pixels` (S, S, 3) in [0, 255], or `image_bytes`, a file as {"b64": its base64},
which is prepared as serving prepares any. Outputs are the graph's own, before the temperature, by signature.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plumbline.models.export import EMBEDDING, INPUT, PROBABILITIES
from plumbline.models.exports import DEFAULT, SIGNATURES
from serving.inference_protocol import plain_numbers
from serving.model import Scored, Served
from serving.problems import ProblemError
from serving.settings import Limits
from serving.uploads import Upload, bounded

PREFIX = "/v1/models/"
"""Addresses below it answer in TensorFlow Serving's format, refusals too."""
BYTES = "image_bytes"
B64 = "b64"
SHORT_NAME = 200


@dataclass(frozen=True)
class Asked:
    """A predict request: pictures, each as pixels (S, S, 3) or as a file; which outputs, and whether row by row."""

    pictures: list[NDArray[np.float32] | Upload]
    outputs: tuple[str, ...]
    by_row: bool


def not_served(model: str, version: str | None, known: str) -> ProblemError:
    """Return the refusal of a model or version that is not served; `known` is the model that is."""
    which = f"Latest({_short(model)})" if version is None else f"Specific({_short(model)}, {_short(version)})"
    return ProblemError(404, f"Servable not found for request: {which}; only '{known}' is served here.")


def _short(text: str) -> str:
    return text[:SHORT_NAME]


def status(versions: list[int]) -> dict[str, Any]:
    """Return the status of the versions that answer."""
    well = {"error_code": "OK", "error_message": ""}
    return {
        "model_version_status": [
            {"version": str(version), "state": "AVAILABLE", "status": well} for version in versions
        ]
    }


def read_request(body: bytes, served: Served, limits: Limits) -> Asked:
    """Return what a predict request asks for; ProblemError says what is wrong with it."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        raise ProblemError(400, "JSON Parse Error: the body is no JSON.") from None
    given = [key for key in ("instances", "inputs") if isinstance(content, dict) and key in content]
    if len(given) != 1:
        raise ProblemError(400, "Missing 'inputs' or 'instances' key: send an object that has one of the two.")
    rows = _rows(content["instances"]) if given == ["instances"] else _columns(content["inputs"])
    if not rows:
        raise ProblemError(400, f"'{given[0]}' holds no picture: send at least one.")
    if len(rows) > limits.pictures:
        raise ProblemError(413, f"The request has more than {limits.pictures} pictures: send fewer at a time.")
    outputs = _outputs(content.get("signature_name"))
    pictures = [_picture(row, f"{given[0]}[{place}]", served.image_size, limits) for place, row in enumerate(rows)]
    return Asked(pictures, outputs, given == ["instances"])


def _outputs(signature: Any) -> tuple[str, ...]:
    """The outputs of a signature; none or an empty name is the default."""
    name = DEFAULT if signature in (None, "") else signature
    if not isinstance(name, str) or name not in SIGNATURES:
        listed = ", ".join(SIGNATURES)
        raise ProblemError(400, f"Serving signature key not found: signature_name must be one of {listed}.")
    return SIGNATURES[name]


def _rows(instances: Any) -> list[Any]:
    """The value of the single input of each instance: bare, or under the input's name."""
    if not isinstance(instances, list):
        raise ProblemError(400, "'instances' must be a list with an entry for each picture.")
    return [_named(one) if isinstance(one, dict) and B64 not in one else one for one in instances]


def _columns(inputs: Any) -> list[Any]:
    """The rows of the single input tensor: bare, or under the input's name."""
    tensor = _named(inputs) if isinstance(inputs, dict) and B64 not in inputs else inputs
    if not isinstance(tensor, list):
        raise ProblemError(400, f"'inputs' must be a list of pictures, or {{'{INPUT}': a list}}.")
    return tensor


def _named(given: dict[str, Any]) -> Any:
    if len(given) != 1 or not {INPUT, BYTES} & set(given):
        raise ProblemError(400, f"A picture has the single input '{INPUT}', or '{BYTES}' in its place.")
    return next(iter(given.values()))


def _picture(row: Any, place: str, side: int, limits: Limits) -> NDArray[np.float32] | Upload:
    if isinstance(row, dict):
        if set(row) != {B64} or not isinstance(row[B64], str):
            raise ProblemError(400, f'{place}: a file\'s bytes are {{"{B64}": their base64}}.')
        try:
            return bounded(Upload(place, base64.b64decode(row[B64], validate=True)), limits)
        except (binascii.Error, ValueError):
            raise ProblemError(400, f"{place}: this is no base64.") from None
    try:
        pixels = plain_numbers(row, "FP32")
    except (ValueError, TypeError, OverflowError):
        pixels = np.empty(0, np.float32)
    if pixels.shape != (side, side, 3):
        raise ProblemError(400, f"{place} must be numbers of shape [{side}, {side}, 3], or a file's bytes as base64.")
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 255):
        raise ProblemError(400, f"{place}: the pixels must be numbers from 0 to 255.")
    return pixels


def write_response(asked: Asked, scored: list[Scored]) -> dict[str, Any]:
    """Return the answer: in the row format an entry a picture, in the columnar a tensor an output; an output that is
    alone goes without its name."""
    tensors = {PROBABILITIES: [one.probabilities.tolist() for one in scored],
               EMBEDDING: [one.embedding.tolist() for one in scored]}  # fmt: skip
    if len(asked.outputs) == 1:
        return {"predictions" if asked.by_row else "outputs": tensors[asked.outputs[0]]}
    named = {name: tensors[name] for name in asked.outputs}
    if not asked.by_row:
        return {"outputs": named}
    return {"predictions": [dict(zip(named, values, strict=True)) for values in zip(*named.values(), strict=True)]}
