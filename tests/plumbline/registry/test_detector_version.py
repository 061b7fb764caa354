"""A detector's version: what is served against what was evaluated, and which folders are none."""

import json

import pandas as pd
import pytest

from plumbline.common.errors import UserError
from plumbline.registry.detector_version import DetectorSystem, score_difference

COLUMNS = ["path", "label", "score", "left", "top", "right", "bottom"]


def detections(*rows):
    return pd.DataFrame(rows, columns=COLUMNS)


def test_what_is_served_differs_by_the_scores_of_boxes_that_only_one_has():
    evaluated = detections(("a", "head", 0.9, 0, 0, 0.5, 0.5), ("a", "head", 0.1, 0.5, 0.5, 0.6, 0.6))
    assert score_difference(evaluated, evaluated) == 0
    assert score_difference(evaluated.iloc[:0], evaluated.iloc[:0]) == 0
    lower = evaluated.assign(score=[0.8, 0.1])
    assert score_difference(evaluated, lower) == pytest.approx((0.9 * 0.1 + 0.8 * 0.1) / (1.0 + 0.9))
    other_class = evaluated.assign(label="helmet")
    assert score_difference(evaluated, other_class) == pytest.approx(2 * (0.81 + 0.01) / 2)
    elsewhere = evaluated.assign(left=[0.1, 0.5])
    assert score_difference(evaluated, elsewhere) == pytest.approx(2 * 0.81 / 2), "IoU 0.8: not the box evaluated"


def test_a_classifiers_version_is_no_detectors(tmp_path):
    (tmp_path / "plumbline").mkdir()
    (tmp_path / "plumbline/serving.json").write_text(json.dumps({"classes": ["a", "b"]}))
    with pytest.raises(UserError, match="no version of a detector"):
        DetectorSystem(tmp_path)
