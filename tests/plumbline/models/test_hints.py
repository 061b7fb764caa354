"""A student's maps come nearer to its teacher's where it is given hints, and its network is what it would be."""

from __future__ import annotations

import json

import keras
import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from recorded import backbone_json

from plumbline.common.errors import UserError
from plumbline.models.batches import Batches
from plumbline.models.candidates import Candidate, Distillation, build_network
from plumbline.models.distillation import Teaching
from plumbline.models.feature_maps import feature_maps
from plumbline.models.features import open_features
from plumbline.models.fitting import make_deterministic
from plumbline.models.hints import Hinting, Teacher, teacher_maps
from plumbline.models.training import train
from plumbline.tasks.one_label import ONE_LABEL

pytestmark = pytest.mark.slow

SIDE = 32
STUDENT = {
    "architecture": "compact_cnn",
    "backbone": "pixels",
    "teacher": "wise",
    "width": 0.125,
    "mirror": True,
    "epochs": 30,
    "batch_size": 16,
    "early_stopping_patience": 30,
    "learning_rate": 0.01,
    "schedule": "cosine",
    "precision": "float32",
}


def student(**settings):
    hints = settings.pop("hints", None)
    distillation = {"share": 0.5} | ({"hints": hints} if hints is not None else {})
    return Candidate.model_validate({**STUDENT, "distillation": distillation, **settings})


def stored(folder, side, count=60, **described):
    """Noise that is brighter above (a) or below (b), as a stage stores it; every side shows the same pictures."""
    above = np.arange(count) % 2 == 0
    coarse = np.random.default_rng(0).integers(0, 90, (count, 1, 16, 16, 3)).astype(np.uint8)
    coarse[above, :, :8] += 120
    coarse[~above, :, 8:] += 120
    values = coarse.repeat(side // 16, axis=2).repeat(side // 16, axis=3)
    folder.mkdir()
    np.save(folder / "features.npy", values)
    names = [f"{n:02d}.png" for n in range(count)]
    pd.DataFrame({"path": names, "id": names}).to_parquet(folder / "index.parquet")
    record = backbone_json(image_size=side, shape=list(values.shape[2:])) | described
    (folder / "backbone.json").write_text(json.dumps(record))
    split = np.array(["train", "train", "train", "validation", "test"])[np.arange(count) // 2 % 5]
    splits = pd.DataFrame({"path": names, "id": names, "label": np.where(above, "a", "b"), "group": names})
    return open_features(folder), splits.assign(split=split)


@pytest.fixture(scope="module")
def classroom(tmp_path_factory):
    """A student's features, splits, what a teacher says, a teacher from pixels, and the maps of another.

    These show how much more red, and green, than blue each place has: nothing that the labels ask for.
    """
    top = tmp_path_factory.mktemp("classroom")
    features, splits = stored(top / "student", SIDE)
    larger, _ = stored(top / "teacher", 2 * SIDE)
    make_deterministic(5)
    settings = Candidate.model_validate({"architecture": "compact_cnn", "backbone": "pixels_96", "width": 0.25})
    teacher = Teacher(settings, build_network(settings, larger.shape, 2), larger)
    said = pd.DataFrame({"path": splits["path"], "p_a": np.where(splits["label"] == "a", 0.9, 0.1)})
    colours = features.values.astype(np.float32).reshape(60, 1, 8, 4, 8, 4, 3).mean(axis=(3, 5))
    other = on_frozen(top / "other", colours[..., :2] - colours[..., 2:])
    maps = teacher_maps("x", student(hints={"stride": 4}), features, other, list(splits["path"]))
    return features, splits, said.assign(p_b=1 - said["p_a"]), teacher, maps


def taught(classroom, hints):
    features, splits, said, _, maps = classroom
    return train("x", student(hints=hints), splits, features, 0, told=False, said=said, maps=maps)


@pytest.fixture(scope="module")
def alone(classroom):
    return taught(classroom, None)


@pytest.fixture(scope="module")
def hinted(classroom):
    return taught(classroom, {"weight": 5.0, "stride": 4})


def distance(classroom, found):
    """The share of the variance of the teacher's maps of test pictures that a 1x1 regression on the student's does not
    explain, fitted to training pictures: whatever regressor was dropped, another does no better."""
    features, splits, *_, maps = classroom
    seen = keras.Model(found.network.inputs[0], feature_maps(found.network, "compact_cnn", [4])[4])
    own = np.asarray(seen(features.values[:, 0].astype(np.float32), training=False))
    own = np.concatenate([own, np.ones((*own.shape[:3], 1))], axis=-1)
    rows = {split: (splits["split"] == split).to_numpy() for split in ("train", "test")}
    flat = {split: (own[at].reshape(-1, own.shape[-1]), maps[at].reshape(-1, maps.shape[-1]))
            for split, at in rows.items()}  # fmt: skip
    fitted = np.linalg.lstsq(*flat["train"], rcond=None)[0]
    x, y = flat["test"]
    return float(np.square(x @ fitted - y).mean() / y.var(axis=0).mean())


def test_hints_draw_the_students_maps_to_the_teachers(classroom, alone, hinted):
    assert distance(classroom, hinted) < 0.8 * distance(classroom, alone)
    assert hinted.model.starts == 1, "a loss of maps that falls slowly is no sign of a network that learns nothing"


def test_a_weight_of_0_is_no_hint_and_more_than_0_is_one(classroom, alone, hinted):
    without = taught(classroom, {"weight": 0.0, "stride": 4})
    np.testing.assert_array_equal(without.predictions["p_a"], alone.predictions["p_a"])
    assert (hinted.predictions["p_a"] != alone.predictions["p_a"]).any()


def test_the_regressor_is_dropped_and_the_network_is_the_students_own(alone, hinted):
    names = [[layer.name for layer in found.network.layers] for found in (alone, hinted)]
    assert names[0] == names[1]
    assert hinted.model.parameters == alone.model.parameters == hinted.network.count_params()


def test_a_network_that_learns_in_bfloat16_is_given_hints_in_float32(classroom):
    features, splits, said, _, maps = classroom
    candidate = student(hints={"stride": 4}, precision="mixed_bfloat16", epochs=2)
    found = train("x", candidate, splits, features, 0, told=False, said=said, maps=maps)
    assert found.model.training_precision == "mixed_bfloat16"
    assert np.isfinite(found.predictions["p_a"]).all()
    assert found.history["loss"].iloc[-1] < found.history["loss"].iloc[0]


def test_validation_counts_the_labels_alone(classroom, hinted):
    splits = classroom[1]
    inside = (splits["split"] == "validation").to_numpy()
    p = hinted.predictions[["p_a", "p_b"]].to_numpy()[inside]
    truth = (splits["label"][inside] == "b").to_numpy().astype(int)
    loss = -np.log(p[np.arange(len(p)), truth]).mean()
    assert hinted.history["val_loss"].min() == pytest.approx(loss, rel=1e-3)


def test_the_loss_is_the_answers_and_the_weighted_square_of_what_is_missing():
    settings = Distillation(temperature=2.0, share=0.25)
    random = np.random.default_rng(0)
    teaching = Teaching(np.array([[0.9, 0.1], [0.4, 0.6]]), settings, ONE_LABEL)
    maps = random.normal(size=(2, 3, 4, 5)).astype(np.float16)
    hinting = Hinting(maps, 1.5, 4, "compact_cnn")
    truth = np.array([[True, False], [False, True]])
    answers = teaching.targets(truth, np.full(2, True))
    assert answers.shape[1] == teaching.width == 5
    output = np.array([[0.3], [0.8]], np.float32)
    said = random.normal(size=(2, 60)).astype(np.float32)
    both = [np.hstack([one, other]) for one, other in ((answers, maps.reshape(2, -1)), (output, said))]
    found = np.asarray(hinting.losses(teaching, 1)[0](*(one.astype(np.float32) for one in both)))
    apart = np.square(said - maps.reshape(2, -1).astype(np.float32)).mean(axis=1)
    np.testing.assert_allclose(found, np.asarray(teaching.losses(1)[0](answers, output)) + 1.5 * apart, rtol=1e-4)


@pytest.mark.parametrize("from_disk", [False, True])
def test_a_mirrored_picture_has_its_map_mirrored(monkeypatch, from_disk):
    if from_disk:
        monkeypatch.setattr("plumbline.models.batches.HELD_BYTES", 0)
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (40, 1, 4, 6, 3)).astype(np.uint8)
    maps = values[:, 0].astype(np.float16)  # the picture is its own map: whatever happens to one happens to the other
    targets = np.arange(40, dtype=np.float32)[:, None]
    batches = Batches(values, np.arange(40), targets, 16, seed=3, mirror=True, maps=maps)
    flipped = 0
    for pixels, learnt in batches.dataset():
        np.testing.assert_array_equal(np.asarray(pixels).reshape(len(pixels), -1), np.asarray(learnt)[:, 1:])
        number = np.asarray(learnt)[:, 0].astype(int)
        flipped += int((np.asarray(pixels) != values[number, 0]).any(axis=(1, 2, 3)).sum())
    assert 5 < flipped < 35


def test_maps_of_more_places_are_averaged_over_the_students(classroom):
    """The teacher's 64 pixels have maps of 16 x 16, 8 x 8 and 4 x 4; the student's 32 pixels, of stride 4, 8 x 8."""
    features, splits, _, teacher, _ = classroom
    maps = teacher_maps("x", student(hints={"stride": 4}), features, teacher, list(splits["path"]))
    assert maps.shape[:3] == (60, 8, 8)
    pixels = teacher.features.values[:, 0].astype(np.float32)
    offered = feature_maps(teacher.network, "compact_cnn")
    seen = keras.Model(teacher.network.inputs[0], offered)(pixels, training=False)
    np.testing.assert_allclose(maps, np.asarray(seen[8]), atol=1e-5)
    coarse = teacher_maps("x", student(hints={"stride": 8}), features, teacher, list(splits["path"]))
    np.testing.assert_allclose(coarse, np.asarray(seen[16]), atol=1e-5)


def test_stored_maps_of_a_frozen_backbone_are_hints_themselves(classroom, tmp_path):
    features, splits, *_ = classroom
    random = np.random.default_rng(1)
    values = random.normal(size=(60, 1, 8, 8, 6)).astype(np.float32)
    frozen = on_frozen(tmp_path / "maps", values)
    maps = teacher_maps("x", student(hints={"stride": 8}), features, frozen, list(splits["path"]))
    np.testing.assert_allclose(maps, values[:, 0].reshape(60, 4, 2, 4, 2, 6).mean(axis=(2, 4)), atol=1e-5)


def on_frozen(folder, values):
    stored(folder, 16)
    np.save(folder / "features.npy", values)
    record = backbone_json(image_size=16, shape=list(values.shape[2:])) | {"network": "mobilenet"}
    (folder / "backbone.json").write_text(json.dumps(record))
    settings = {"architecture": "transfer", "backbone": "mobilenet", "head": {}}
    return Teacher(Candidate.model_validate(settings), None, open_features(folder))


def test_who_cannot_be_compared_is_refused_in_one_sentence(classroom, tmp_path):
    features, splits, _, teacher, _ = classroom
    paths = list(splits["path"])

    def refused(match, candidate=None, given=features, by=teacher):
        with pytest.raises(UserError, match=rf"students\.x can't be given hints: {match}.*: take .*hints. out"):
            teacher_maps("x", candidate or student(hints={"stride": 4}), given, by, paths)

    refused("backbones.mobilenet of wise is pooled", by=on_frozen(tmp_path / "flat", np.zeros((60, 1, 9), np.float32)))
    few = on_frozen(tmp_path / "few", np.zeros((60, 1, 2, 2, 9), np.float32))
    refused("the maps of wise have 2 x 2 places, too few for the student's 8 x 8", by=few)
    refused("lenet5 has no feature maps", student(architecture="lenet5", hints={"stride": 4}))
    refused(r"compact_cnn has no maps of stride 32 .* \(set 4 or 8 or 16\)", student(hints={"stride": 32}))
    letterboxed, _ = stored(tmp_path / "boxed", SIDE, preprocess={"fit": "letterbox"})
    refused("its pictures are brought to size by letterbox, those of wise by stretch", given=letterboxed)
    refused("backbones.pixels has a network of its own", given=few.features)
    with pytest.raises(UserError, match="x has hints, but nobody gave its teacher's maps"):
        train("x", student(hints={}), splits, features, 0, told=False, said=classroom[2])
    with pytest.raises(UserError, match="the maps of wise are empty"):
        Hinting.of(np.zeros((2, 4, 4, 1)), np.full(2, True), student(hints={}), "x")


@pytest.mark.parametrize("settings", [{"augmented": True}, {"curriculum": "sizes"}])
def test_hints_of_pictures_that_the_teacher_does_not_see_are_refused(settings):
    with pytest.raises(ValidationError, match="the teacher's maps are those of the pictures as they are"):
        student(hints={}, **settings)
    assert student(hints={"weight": 0}, **settings).hints is None


def test_what_is_written_of_a_candidate_without_hints_is_what_it_was_before():
    assert student().model_dump(mode="json")["distillation"] == {"temperature": 4.0, "share": 0.5}
    assert student(hints={}).model_dump(mode="json")["distillation"]["hints"] == {"weight": 1.0, "stride": 8}
