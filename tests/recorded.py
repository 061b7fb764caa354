"""Whole files as stages leave them, for tests that care about a few of their keys."""

from __future__ import annotations

from typing import Any

WEIGHTS = {"backbone": "pixels", "requested": "random", "origin": "none", "file": None, "sha256": None}


def model_json(**changes: Any) -> dict[str, Any]:
    """What model.json of a trained candidate holds."""
    return {
        "candidate": "x",
        "architecture": "lenet5",
        "backbone": "pixels",
        "network": "pixels",
        "image_size": 32,
        "parameters": 1000,
        "trainable_parameters": 100,
        "weights": "from scratch",
        "classes": ["with_helmet", "without_helmet"],
        "seed": 0,
        "epochs_run": 3,
    } | changes


def backbone_json(**changes: Any) -> dict[str, Any]:
    """What backbone.json of pixels holds."""
    return {
        "backbone": "pixels",
        "network": "pixels",
        "image_size": 32,
        "precision": "uint8",
        "weights": WEIGHTS,
        "code": "",
        "shape": [32, 32, 3],
    } | changes


def certificate_json(**changes: Any) -> dict[str, Any]:
    """What leakage.json holds of a clean split."""
    return {
        "pairs_across_splits": 0,
        "pairs": [],
        "images": 10,
        "groups": 7,
        "sides": {"train": {"images": 8, "groups": 6, "share": 0.8}, "test": {"images": 2, "groups": 1, "share": 0.2}},
        "set_aside": [],
        "group_sizes": [],
        "kinds": [],
        "closest_apart": [],
        "embeddings": "looked up",
        "price": None,
        "price_sentence": "The price was not measured.",
    } | changes
