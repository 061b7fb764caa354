"""Grad-CAM on the class heads of detectors: where there is one, it lies on the canvas and is largest at 1."""

import numpy as np
import pytest

from plumbline.models.detector import Detector, Problem, design
from plumbline.models.detector_attention import grad_cam, seen_by_class_head
from plumbline.models.fitting import make_deterministic

ANCHORS = np.array([[0.2, 0.2], [0.5, 0.5]])


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "side"), [("yolo_grid", 8), ("se_resnet50_two_head", 2)])
def test_the_class_head_is_found_and_explained(architecture, side):
    make_deterministic(0)
    detector = Detector(architecture=architecture, maps="pixels", width=0.1, anchors=2)
    plan = design(detector, Problem((64, 64, 3), 64, 2, (8,), ANCHORS))
    network = plan.network(None)
    assert [tuple(tensor.shape[1:3]) for tensor in seen_by_class_head(network)] == [(side, side)]
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3)).astype(np.uint8)
    heat = grad_cam(network, plan, pixels)
    assert heat.shape == (2, side, side)
    assert heat.min() >= 0
    assert heat.max() == pytest.approx(1)


@pytest.mark.slow
def test_a_network_without_a_known_head_has_none():
    import keras

    pixels = keras.Input((8, 8, 3))
    assert seen_by_class_head(keras.Model(pixels, keras.layers.Conv2D(2, 1)(pixels))) == []
