"""What the OpenAPI document says of bodies and answers, with examples."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from serving.problems import MEDIA, SCHEMA

Responses = dict[int | str, dict[str, Any]]

ANSWER: dict[str, Any] = {
    "id": "0c2f6a0e5c6b4d7f8f0d8a1f4f0a9c11",
    "file": "gate-3.jpg",
    "label": "without_helmet",
    "labels": ["without_helmet"],
    "confidence": 0.97,
    "probabilities": {"with_helmet": 0.03, "without_helmet": 0.97},
    "softmax": {"with_helmet": 0.01, "without_helmet": 0.99},
    "violation_class": "without_helmet",
    "threshold": 0.4,
    "alarm": True,
    "unsure": False,
    "because": [],
    "distance": 0.02,
    "distance_limit": 0.11,
    "cached": False,
}
_ANSWERS = {
    "model": {"version": 3, "role": "champion"},
    "version": 3,
    "answers": [ANSWER, {"file": "notes.txt", "refused": "is not a picture", "status": 422}],
}
_ANSWERS_SCHEMA = {
    "type": "object",
    "required": ["model", "version", "answers"],
    "properties": {
        "model": {"type": "object"},
        "version": {"type": "integer"},
        "answers": {"type": "array", "items": {"type": "object", "required": ["file"]}},
    },
}
ANSWERS: Responses = {
    200: {
        "description": "An answer, or why there is none, for each file in order.",
        "content": {"application/json": {"schema": _ANSWERS_SCHEMA, "example": _ANSWERS}},
    }
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
PICTURES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "image/jpeg": _BINARY,
            "image/png": _BINARY,
            "application/octet-stream": _BINARY,
        },
    }
}
BATCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/zip": _BINARY,
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["urls"],
                    "properties": {"urls": {"type": "array", "minItems": 1, "items": {"type": "string"}}},
                },
                "example": {"urls": ["https://pictures.example.com/gate-3.jpg"]},
            },
        },
    }
}
MODEL_EXAMPLE: Responses = {
    200: {
        "content": {
            "application/json": {
                "example": {
                    "model": "plumbline",
                    "version": 3,
                    "candidate": "compact_cnn",
                    "classes": ["with_helmet", "without_helmet"],
                    "several_labels": False,
                    "violation_class": "without_helmet",
                    "threshold": 0.4,
                    "temperature": 1.2,
                    "image_size": 96,
                    "distance_limit": 0.11,
                    "challenger": None,
                    "unsure_below": 0.7,
                }
            }
        }
    }
}
FEEDBACK: dict[Any, Any] = {
    201: {
        "description": "The label is on the disk.",
        "content": {
            "application/json": {
                "example": {"number": 17, "id": ANSWER["id"], "label": "with_helmet", "version": 3},
            }
        },
    },
    "body": {
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {
                        "type": "object",
                        "required": ["id", "label"],
                        "properties": {"id": {"type": "string"}, "label": {"type": "string", "minLength": 1}},
                    },
                    "example": {"id": ANSWER["id"], "label": "with_helmet"},
                }
            },
        }
    },
}
READY: Responses = {
    200: {"description": "Every worker gave a real answer."},
    503: {"description": "There is no champion yet, or a worker gives no answer; `detail` says which."},
}


_TENSORFLOW_PICTURES: dict[str, Any] = {"type": "array", "minItems": 1}
PREDICT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "signature_name": {"type": "string"},
                        "instances": _TENSORFLOW_PICTURES,
                        "inputs": {"anyOf": [_TENSORFLOW_PICTURES, {"type": "object"}]},
                    },
                    "oneOf": [{"required": ["instances"]}, {"required": ["inputs"]}],
                },
                "example": {"instances": [{"image_bytes": {"b64": "/9j/4AAQSkZJRg..."}}]},
            }
        },
    }
}
PREDICTIONS: Responses = {
    200: {
        "description": "An answer for each picture: `predictions` to `instances`, `outputs` to `inputs`.",
        "content": {"application/json": {"example": {"predictions": [[0.03, 0.97]]}}},
    }
}
STATUS: Responses = {
    200: {
        "content": {
            "application/json": {
                "example": {
                    "model_version_status": [
                        {"version": "3", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
                    ]
                }
            }
        }
    }
}


def errors(*statuses: int) -> Responses:
    """Return what the document says of these refusals in TensorFlow Serving's format."""
    schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {"application/json": {"schema": schema}}}
        for status in statuses
    }


def problems(*statuses: int) -> Responses:
    """Return what the document says of these refusals."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA: {"schema": SCHEMA}}}
        for status in statuses
    }
