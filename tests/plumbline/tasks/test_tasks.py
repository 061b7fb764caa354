"""Each task by itself, and what holds of every one there is."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

from plumbline.common.errors import UserError
from plumbline.evidence.candidates import sample_of
from plumbline.evidence.rules import Gate, compare_with_champion
from plumbline.models.candidates import Candidate, build_network
from plumbline.models.fitting import targets_of
from plumbline.tasks.known import TASKS, task_of, task_of_labels
from plumbline.tasks.labels import label_texts, truth_table
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS

CLASSES = ["bare", "helmet", "vest"]
LABELS = {
    "one_label": ["bare", "helmet", "vest", "helmet", "helmet", "bare"],
    "several_labels": ["bare", "helmet;vest", "vest", "helmet", "helmet;vest", "bare"],
}
every_task = pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])


def some_probabilities(task, pictures, classes=3, seed=0):
    output = np.random.default_rng(seed).uniform(0.05, 0.95, (pictures, classes))
    return task.probabilities(output)


def test_the_labels_say_which_task_it_is():
    assert task_of_labels(pd.Series(["a", "b", "a"])) == ONE_LABEL
    assert task_of_labels(pd.Series(["a", "b;a", "a"])) == SEVERAL_LABELS
    assert targets_of(pd.Series(["b", "a"])).values.tolist() == [1, 0]
    several = targets_of(pd.Series(["b;a", "a"]))
    assert several.values.tolist() == [[1, 1], [1, 0]]
    assert several.values.dtype == np.float32


@every_task
def test_what_is_stored_of_a_task_is_read_back(task):
    assert task_of(json.loads(json.dumps(task.record))) == task


def test_files_older_than_several_labels_are_of_one_label_each():
    assert task_of({"classes": ["a", "b"]}) == ONE_LABEL


def test_a_task_of_a_later_version_is_one_sentence():
    with pytest.raises(UserError, match="task is 'detection', which this version does not know: it has one_label, sev"):
        task_of({"task": "detection"})


def test_labels_become_a_table_and_text_again():
    table = truth_table(["vest;helmet", "bare", "helmet"], CLASSES)
    assert table.tolist() == [[False, True, True], [True, False, False], [False, True, False]]
    assert label_texts(table, CLASSES) == ["helmet;vest", "bare", "helmet"]
    assert label_texts(np.zeros((1, 3), dtype=bool), CLASSES) == ["nothing"]
    assert truth_table([], CLASSES).shape == (0, 3)


@every_task
@pytest.mark.parametrize("classes", [2, 3])
def test_the_last_layer_makes_probabilities_of_every_class(task, classes):
    network = build_network(Candidate(architecture="lenet5", backbone="pixels"), (32, 32, 3), classes, task)
    output = network(np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 3)).astype(np.float32))
    probabilities = task.probabilities(output)
    assert probabilities.shape == (4, classes)
    assert probabilities.dtype == np.float64
    assert np.allclose(probabilities.sum(axis=1), 1) == task.exclusive
    loss, accuracy = task.loss(output.shape[1])
    truth = task.predicted(probabilities)
    accuracy.update_state(task.targets(truth), output)
    assert float(accuracy.result()) == 1, "what is predicted is what Keras counts as right"
    assert float(loss(task.targets(truth), output)) == pytest.approx(task.log_loss(truth, probabilities), abs=1e-4), (
        "and the loss is the log loss"
    )


@every_task
def test_decisions_lead_back_to_probabilities_and_are_right_where_all_are(task):
    truth = truth_table(LABELS[task.name], CLASSES)
    probabilities = some_probabilities(task, len(truth))
    answers, chances = task.decisions(truth, probabilities)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_array_equal(task.from_decisions(chances, 3), probabilities)
    by_picture = (chances.argmax(axis=1) == answers).reshape(len(truth), -1).all(axis=1)
    np.testing.assert_array_equal(by_picture, (task.predicted(probabilities) == truth).all(axis=1))


@every_task
def test_what_is_said_wrongly_is_less_sure_the_surer_the_label_is(task):
    truth = truth_table(LABELS[task.name], CLASSES)
    probabilities = some_probabilities(task, len(truth))
    right = (task.predicted(probabilities) == truth).all(axis=1)
    assert 0 < right.sum() < len(right), "both kinds are here"
    assert (task.sure_of_mistake(truth, probabilities)[right] == 0).all()
    assert (task.sure_of_mistake(truth, probabilities)[~right] > 1 / 3).all()
    perfect = truth.astype(np.float64)
    assert (task.sure_of_label(truth, perfect) == 1).all()
    assert (task.sure_of_mistake(truth, perfect) == 0).all()


def test_mistakes_by_hand():
    truth = np.array([[True, False, False]])
    assert ONE_LABEL.sure_of_mistake(truth, np.array([[0.3, 0.5, 0.2]]))[0] == 0.5
    # helmet is missed with 0.7, a vest seen with 0.6, and there being no third is right
    assert SEVERAL_LABELS.sure_of_mistake(truth, np.array([[0.3, 0.6, 0.1]]))[0] == pytest.approx(0.7)
    assert SEVERAL_LABELS.sure_of_label(truth, np.array([[0.3, 0.6, 0.1]]))[0] == pytest.approx(0.3)


@every_task
def test_confusions_count_every_picture(task):
    truth = truth_table(LABELS[task.name], CLASSES)
    predicted = task.predicted(some_probabilities(task, len(truth)))
    matrices = task.confusions(truth, predicted, CLASSES)
    right = (predicted == truth).sum(axis=0)
    for place, matrix in enumerate(matrices):
        counts = np.array(matrix["counts"])
        assert counts.sum() == len(truth)
        assert counts.shape == (len(matrix["classes"]),) * 2
        if not task.exclusive:
            assert np.trace(counts) == right[place]
    if task.exclusive:
        assert np.trace(np.array(matrices[0]["counts"])) == (predicted == truth).all(axis=1).sum()


def test_confusions_by_hand():
    truth, predicted = np.array([[True, False], [False, True]]), np.array([[True, True], [False, False]])
    first, second = SEVERAL_LABELS.confusions(truth, predicted, ["helmet", "vest"])
    assert first == {"title": "helmet", "classes": ["helmet", "not helmet"], "counts": [[1, 0], [0, 1]]}
    assert second == {"title": "vest", "classes": ["vest", "not vest"], "counts": [[0, 1], [1, 0]]}


@every_task
def test_label_sets_and_questions_say_what_the_truth_says(task):
    truth = truth_table(LABELS[task.name], CLASSES)
    np.testing.assert_array_equal(task.label_sets(truth).truth, truth)
    told = np.zeros_like(truth)
    for answers, classes in task.questions(truth):
        for picture, answer in enumerate(answers):
            if classes[answer] is not None:
                told[picture, classes[answer]] = True
    np.testing.assert_array_equal(told, truth)


def test_of_two_classes_one_says_all_of_several_labels_each_does():
    two = np.eye(2, dtype=bool)
    assert ONE_LABEL.label_sets(two).judged == [1]
    assert SEVERAL_LABELS.label_sets(two).judged == [0, 1]
    assert ONE_LABEL.shown_classes(["a", "b"], "a") == ["a"]
    assert ONE_LABEL.shown_classes(["a", "b"], None) == ["b"]
    assert SEVERAL_LABELS.shown_classes(["a", "b"], "a") == ["a", "b"]


def test_what_is_usual():
    one = truth_table(LABELS["one_label"], CLASSES)
    np.testing.assert_allclose(ONE_LABEL.usual(one), [2 / 6, 3 / 6, 1 / 6])
    several = truth_table(["helmet;vest", "helmet;vest", "bare"], CLASSES)
    assert SEVERAL_LABELS.usual(several).tolist() == [0, 1, 1]


@every_task
def test_members_units_that_say_all_are_what_stacking_sees(task):
    """Of two classes of which one is true the second's probability says all; a member may end in either form."""
    pair = np.array([[0.8, 0.2], [0.4, 0.6]])
    units = task.telling_units(pair)
    assert units.shape[1] == (1 if task.exclusive else 2)
    assert task.yes_or_no(units.shape[1])
    np.testing.assert_allclose(task.probabilities(units), pair)
    tensor = task.telling_units(keras.Input((2,)))
    assert tensor.shape[1] == units.shape[1]


@every_task
def test_a_challenger_is_compared_by_the_task(task):
    """A picture of several labels is right where every label is: one wrong label of two is a mistake."""
    labels = LABELS[task.name] * 10
    truth = truth_table(labels, CLASSES)
    good = np.where(truth, 0.9, 0.05)
    bad = good.copy()
    bad[:, [1, 2]] = np.where(truth[:, [1]], [[0.05, 0.9]], bad[:, [1, 2]])  # every helmet is taken for a vest

    def table(p):
        columns = {f"p_{name}": p[:, k] for k, name in enumerate(CLASSES)}
        names = [f"{n:03d}" for n in range(len(p))]
        return pd.DataFrame({"path": names, "group": names, "label": labels, **columns})

    sample = sample_of(table(bad), CLASSES, task=task)
    assert sample.right.mean() == pytest.approx(1 - truth[:, 1].mean())
    found = compare_with_champion(table(good), table(bad), CLASSES, [], Gate(resamples=200), task)
    assert not found["passed"]
    assert found["rules"][0]["value"] == pytest.approx(-truth[:, 1].mean())


def test_every_task_is_known_and_named_once():
    assert len({task.name for task in TASKS}) == len(TASKS)
    assert len({json.dumps(task.record) for task in TASKS}) == len(TASKS)
