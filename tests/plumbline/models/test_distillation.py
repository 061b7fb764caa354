"""A student's loss is Hinton's, its targets are the teacher's and the labels, and it learns from both."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from recorded import backbone_json

from plumbline.common.errors import UserError
from plumbline.models.candidates import Candidate, Distillation
from plumbline.models.distillation import Teaching, as_options, softened
from plumbline.models.features import open_features
from plumbline.models.training import TrainingSet, train
from plumbline.tasks.one_label import ONE_LABEL
from plumbline.tasks.several_labels import SEVERAL_LABELS

SETTINGS = Distillation(temperature=2.0, share=0.25)
SIZE = 16


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)


def by_hand(student, teacher, hard, settings):
    """The loss from logits (N, K): (1 - a) CE + a T^2 KL(teacher at T || student at T)."""
    temperature = settings.temperature
    plain = -np.log(softmax(student)[np.arange(len(hard)), hard])
    q, p = softmax(teacher / temperature), softmax(student / temperature)
    apart = (q * np.log(q / p)).sum(axis=-1)
    return (1 - settings.share) * plain + settings.share * temperature**2 * apart


@pytest.mark.parametrize("units", [1, 3])
def test_the_loss_is_hintons(units):
    random = np.random.default_rng(units)
    count = max(2, units)
    student, teacher = random.normal(size=(2, 6, count)) * 2
    hard = random.integers(0, count, 6)
    teaching = Teaching(softmax(teacher), SETTINGS, ONE_LABEL)
    targets = teaching.targets(np.eye(count, dtype=bool)[hard], np.full(6, True))
    output = softmax(student) if units > 1 else softmax(student)[:, 1:]
    loss, accuracy = teaching.losses(units)
    found = np.asarray(loss(targets, output.astype(np.float32)))
    np.testing.assert_allclose(found, by_hand(student, teacher, hard, SETTINGS), rtol=1e-4)
    accuracy.update_state(targets, output.astype(np.float32))
    assert float(accuracy.result()) == pytest.approx((student.argmax(axis=1) == hard).mean())


def test_the_loss_of_several_labels_is_the_mean_over_them():
    random = np.random.default_rng(3)
    student, teacher = random.normal(size=(2, 5, 4)) * 2
    truth = random.random((5, 4)) < 0.5
    teaching = Teaching(1 / (1 + np.exp(-teacher)), SETTINGS, SEVERAL_LABELS)
    targets = teaching.targets(truth, np.full(5, True))
    found = teaching.losses(4)[0](targets, (1 / (1 + np.exp(-student))).astype(np.float32))
    each = [
        by_hand(np.stack([0 * s, s], 1), np.stack([0 * t, t], 1), one.astype(int), SETTINGS)
        for s, t, one in zip(student.T, teacher.T, truth.T, strict=True)
    ]
    np.testing.assert_allclose(np.asarray(found), np.mean(each, axis=0), rtol=1e-4)


def test_validation_counts_the_labels_alone_and_chance_is_the_constant_answers_loss():
    truth = np.array([[True, False], [True, False], [False, True], [True, False]])
    teaching = Teaching(np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.7, 0.3]]), SETTINGS, ONE_LABEL)
    loss = teaching.losses(1)[0]
    constant = np.full((4, 1), 0.25, np.float32)
    alone = loss(teaching.targets(truth, np.full(4, True), share=0.0), constant)
    np.testing.assert_allclose(np.asarray(alone), -np.log([0.75, 0.75, 0.25, 0.75]), rtol=1e-5)
    found = np.asarray(loss(teaching.targets(truth, np.full(4, True)), constant)).mean()
    assert teaching.chance_loss(truth, np.full(4, True)) == pytest.approx(found, rel=1e-4)


def test_temperature_softens_and_keeps_the_order():
    options = as_options(np.array([[0.98, 0.02]]), ONE_LABEL)
    soft = softened(options, 4.0)[0, 0]
    assert soft[0] == pytest.approx(0.98**0.25 / (0.98**0.25 + 0.02**0.25))
    np.testing.assert_allclose(softened(options, 1.0), options)


@pytest.mark.parametrize(
    ("columns", "said"), [(["p_a", "p_c"], "tells a, c apart, but the classes here are a, b"), (["p_a", "p_b"], None)]
)
def test_a_teacher_with_other_classes_is_refused(columns, said):
    table = pd.DataFrame({"path": ["1.png", "2.png"]} | {name: [0.5, 0.5] for name in columns})
    if said is None:
        assert Teaching.of(table, ["2.png"], ["a", "b"], SETTINGS, ONE_LABEL, "x").probabilities.shape == (1, 2)
        with pytest.raises(UserError, match=r"the teacher of x says nothing of 3\.png"):
            Teaching.of(table, ["3.png"], ["a", "b"], SETTINGS, ONE_LABEL, "x")
        return
    with pytest.raises(UserError, match=said):
        Teaching.of(table, ["1.png"], ["a", "b"], SETTINGS, ONE_LABEL, "x")


def test_settings_without_a_teacher_are_refused():
    with pytest.raises(ValidationError, match="'distillation' is for a candidate with a 'teacher'"):
        Candidate(architecture="lenet5", backbone="pixels", distillation=SETTINGS)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Eighty pictures, bright above or below; the labels of the training pictures say nothing, they are a coin's."""
    random = np.random.default_rng(0)
    above = np.arange(80) % 2 == 0
    values = random.integers(0, 90, (80, 1, SIZE, SIZE, 3)).astype(np.uint8)
    values[above, :, : SIZE // 2] += 120
    values[~above, :, SIZE // 2 :] += 120
    folder = tmp_path_factory.mktemp("taught")
    np.save(folder / "features.npy", values)
    names = [f"{n:02d}.png" for n in range(80)]
    pd.DataFrame({"path": names, "id": names}).to_parquet(folder / "index.parquet")
    (folder / "backbone.json").write_text(json.dumps(backbone_json(image_size=SIZE, shape=[SIZE, SIZE, 3])))
    split = np.array(["train", "train", "train", "validation", "test"])[np.arange(80) // 2 % 5]
    shown = np.where(split == "train", random.random(80) < 0.5, above)
    splits = pd.DataFrame({"path": names, "id": names, "label": np.where(shown, "a", "b"), "group": names})
    splits = splits.assign(split=split)
    said = pd.DataFrame({"path": names, "p_a": np.where(above, 0.99, 0.01)})
    return open_features(folder), splits, said.assign(p_b=1 - said["p_a"]), above


STUDENT = {"architecture": "lenet5", "backbone": "pixels", "teacher": "wise", "epochs": 12, "batch_size": 16}


@pytest.mark.slow
def test_a_student_learns_what_its_teacher_says_where_the_labels_say_nothing(pictures):
    features, splits, said, above = pictures
    settings = {**STUDENT, "learning_rate": 0.003, "early_stopping_patience": 12, "distillation": {"share": 1.0}}
    found = train("student", Candidate.model_validate(settings), splits, features, 0, told=False, said=said)
    agrees = (found.predictions["p_a"] > 0.5).to_numpy() == above
    assert agrees[(splits["split"] == "test").to_numpy()].mean() > 0.9
    assert found.model.made_by == "train_of_students@student"


def test_a_teacher_in_the_wrong_section_is_told_where_to_go(pictures):
    features, splits, _, _ = pictures
    data = TrainingSet.of(splits, features)
    with pytest.raises(UserError, match="x has a teacher, wise: put it under `students`"):
        data.taught("x", Candidate.model_validate(STUDENT), None)
