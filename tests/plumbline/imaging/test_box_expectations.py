"""What boxes should be: how large, how wide, how many, where, and not two around one thing."""

import numpy as np
import pandas as pd
import pytest

from plumbline.imaging.box_expectations import BoxBounds, box_expectations, count_expectation, describe_boxes
from plumbline.imaging.boxes import COLUMNS
from plumbline.imaging.expectations import Checked, check

MANIFEST = pd.DataFrame({"path": ["a.jpg", "b.jpg"], "width": [200, 1000], "height": [100, 1000], "box_count": [3, 2]})
BOXES = pd.DataFrame(
    [
        ("a.jpg", "helmet", 0.1, 0.1, 0.2, 0.3),  # 20 x 20 pixels
        ("a.jpg", "helmet", 0.1, 0.1, 0.2, 0.302),  # nearly the same
        ("a.jpg", "head", 0.9, 0.5, 1.0, 0.52),  # 20 x 2 at the edge
        ("b.jpg", "head", 0.5, 0.5, 0.501, 0.501),  # one pixel
        ("b.jpg", "helmet", 0.0, 0.0, 0.95, 0.95),  # most of it
    ],
    columns=list(COLUMNS),
)


@pytest.fixture(scope="module")
def described():
    return describe_boxes(BOXES, MANIFEST)


def test_boxes_are_measured_in_pixels_of_their_photograph(described):
    assert described["side"].tolist() == pytest.approx([20, 20, 2, 1, 950])
    assert described["aspect"].tolist() == pytest.approx([1, 20 / 20.2, 10, 1, 1])
    assert described["area"].tolist() == pytest.approx([0.02, 0.0202, 0.002, 1e-6, 0.9025])
    assert described["at_border"].tolist() == [0, 0, 1, 0, 1]
    assert described["overlap"].tolist() == pytest.approx([400 / 404, 400 / 404, 0, 1e-6 / 0.9025, 1e-6 / 0.9025])
    assert described["box"].tolist()[:3] == ["a.jpg, box 1 (helmet)", "a.jpg, box 2 (helmet)", "a.jpg, box 3 (head)"]


def test_five_hundred_boxes_of_one_photograph_are_measured():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.9, (500, 2))
    many = pd.DataFrame({"path": "b.jpg", "label": "helmet", "left": corner[:, 0], "top": corner[:, 1]})
    many = many.assign(right=many["left"] + 0.05, bottom=many["top"] + 0.05)
    assert describe_boxes(many, MANIFEST)["overlap"].between(0, 1).all()


def test_no_box_is_no_error():
    assert len(describe_boxes(BOXES[:0], MANIFEST)) == 0


@pytest.mark.slow
def test_each_expectation_names_the_boxes_that_fail_it(described, tmp_path):
    expected = [*box_expectations(("helmet",), BoxBounds(max_border=0.3)), count_expectation(BoxBounds(), "overlap")]
    outcomes = check([Checked("boxes", described, "box", expected)], tmp_path / "docs")
    failing = {
        (one.expectation.kind.split("_to_")[-1], one.expectation.bounds.get("column")): one.failing
        for one in outcomes
        if not one.success
    }
    assert failing == {
        ("be_in_set", "label"): ("a.jpg, box 3 (head)", "b.jpg, box 1 (head)"),
        ("be_between", "side"): ("a.jpg, box 3 (head)", "b.jpg, box 1 (head)"),
        ("be_between", "area"): ("b.jpg, box 2 (helmet)",),
        ("be_between", "aspect"): ("a.jpg, box 3 (head)",),
        ("be_between", "overlap"): ("a.jpg, box 1 (helmet)", "a.jpg, box 2 (helmet)"),
        ("be_between", "at_border"): (),
    }
    assert next(one.observed for one in outcomes if one.expectation.bounds.get("column") == "at_border") == 0.4
