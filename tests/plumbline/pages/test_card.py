"""What a candidate's card says: who was right, which pictures are looked into, where the heat lies."""

import numpy as np
import pandas as pd
import pytest

from plumbline.imaging.labels import SEVERAL
from plumbline.models.anatomy import WHOLE, Layer
from plumbline.pages.card import LOOKED_AT, Picture, confusions, curves, graded, heated, looked_at, summary
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS

CLASSES = ["bare", "helmet"]


def table(rows):
    columns = ["path", "label", "split", "p_bare", "p_helmet"]
    return pd.DataFrame([(f"{n}.jpg", *row) for n, row in enumerate(rows)], columns=columns)


def test_only_the_split_asked_for_is_graded():
    rows = [("bare", "test", 0.9, 0.1), ("helmet", "test", 0.6, 0.4), ("bare", "train", 0.1, 0.9)]
    judged = graded(table(rows), CLASSES, ONE_LABEL)
    assert judged["predicted"].tolist() == ["bare", "bare"]
    assert judged["right"].tolist() == [True, False]
    assert judged["p_label"].tolist() == [0.9, 0.4]


def test_with_several_labels_every_one_must_be_right():
    both = f"bare{SEVERAL}helmet"
    judged = graded(table([(both, "test", 0.9, 0.8), (both, "test", 0.9, 0.3)]), CLASSES, SEVERAL_LABELS)
    assert judged["right"].tolist() == [True, False]
    assert judged["p_label"].tolist() == pytest.approx([0.8, 0.3]), "the least sure of the labels"


def test_the_confusion_matrix_counts_the_graded_pictures():
    rows = [("bare", "test", 0.9, 0.1), ("helmet", "test", 0.6, 0.4), ("helmet", "test", 0.2, 0.8)]
    (one,) = confusions(graded(table(rows), CLASSES, ONE_LABEL), CLASSES, ONE_LABEL)
    assert [list(row) for row in one.counts] == [[1, 0], [1, 1]]


def test_hits_of_every_class_and_the_worst_misses_are_looked_into():
    sure = [("bare", "test", 0.9 - 0.01 * n, 0.1 + 0.01 * n) for n in range(10)]
    other = [("helmet", "test", 0.4, 0.6)]
    wrong = [("bare", "test", 0.5 - 0.05 * n, 0.5 + 0.05 * n) for n in range(1, 9)]
    hits, misses = looked_at(graded(table([*sure, *other, *wrong]), CLASSES, ONE_LABEL))
    assert hits["label"].tolist() == ["bare"] * 3 + ["helmet"]
    assert hits["p_label"].tolist()[:3] == pytest.approx([0.9, 0.89, 0.88])
    assert len(misses) == LOOKED_AT
    assert misses["p_label"].tolist() == pytest.approx([0.1, 0.15, 0.2, 0.25, 0.3, 0.35])


def test_heat_is_red_where_it_is_hottest_and_leaves_cold_places_alone():
    picture, heat = np.full((40, 60, 3), 100, np.uint8), np.zeros((4, 6), np.float32)
    heat[:2, :3] = 1
    shown = heated(picture, heat)
    assert shown.shape == picture.shape
    red, _, blue = shown[5, 5]
    assert red > blue
    np.testing.assert_array_equal(shown[35, 55], [100, 100, 100])


def test_the_deepest_field_of_view_that_is_not_the_whole_picture_is_shown():
    def layer(field, *shape):
        return Layer(name="x", kind="Conv2D", shape=shape, parameters=0, receptive_field=field, trained=True)

    assert summary([layer(3.0, 10, 10, 10), layer(7.0, 5, 10, 10), layer(WHOLE, 2)]) == {
        "layers": "3",
        "activations": "1,502",
        "receptive_field": "7 x 7",
    }


def test_curves_say_in_words_where_they_end():
    history = pd.DataFrame({"epoch": [1, 2], "loss": [0.9, 0.25], "val_loss": [0.8, 0.5]})
    history = history.assign(accuracy=[0.5, 0.75], val_accuracy=[0.5, 0.6])
    (title, loss), (_, accuracy) = curves(history)
    assert title == "Loss"
    assert "at the end 0.250 in training, 0.500 in validation" in loss
    assert "at the end 0.750 in training, 0.600 in validation" in accuracy


def test_a_picture_carries_its_pixels():
    row = next(graded(table([("bare", "test", 0.9, 0.1)]), CLASSES, ONE_LABEL).itertuples())
    picture = Picture.of(row, np.zeros((8, 8, 3), np.uint8))
    assert (picture.path, picture.predicted, picture.p_label) == ("0.jpg", "bare", 0.9)
    assert picture.source.startswith("data:image/jpeg;base64,")
