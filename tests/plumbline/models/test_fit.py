"""What params.yaml names and the data does not have is told at once, each with the value to set."""

from pathlib import Path

import pytest
import yaml

from plumbline.models.fit import Facts, as_sentence, find_misfits, offered_violations, unused_backbones

SHIPPED = yaml.safe_load((Path(__file__).parents[3] / "params.yaml").read_text())
HELMETS = Facts(("with_helmet", "without_helmet"), ("path", "label", "photo", "site"))
MASKS = Facts(("with_mask", "without_mask"), ("path", "label"))


def changed(**keys):
    """The shipped settings with some replaced: evaluate__violation_class=..."""
    params = yaml.safe_load(yaml.safe_dump(SHIPPED))
    for key, value in keys.items():
        *sections, name = key.split("__")
        inner = params
        for section in sections:
            inner = inner[section]
        inner[name] = value
    return params


def keys_of(params, facts):
    return {one.key for one in find_misfits(params, facts)}


def test_the_shipped_settings_fit_the_sample_and_themselves():
    assert find_misfits(SHIPPED, HELMETS) == []
    assert find_misfits(SHIPPED, None) == []


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({"backbone": "pixels"}, "candidates.own.architecture"),
        ({"architecture": "simple_cnn"}, "candidates.own.backbone"),
        ({"architecture": "transfer", "backbone": "hybrid", "head": {"pooling": "avg"}}, "candidates.own.head.pooling"),
        ({"architecture": "transfer", "backbone": "hybrid"}, "candidates.own"),
        ({"architecture": "simple_cnn", "backbone": "pixels", "epoch": 3}, "candidates.own.epoch"),
        (
            {"architecture": "simple_cnn", "backbone": "pixels", "start": {"unlabelled": "incomng"}},
            "candidates.own.start.unlabelled",
        ),
    ],
)
def test_a_candidate_that_training_would_refuse_is_told_before_anything_is_trained(entry, key):
    assert keys_of(changed(candidates__own=entry), None) == {key}


def test_another_set_s_violation_is_offered_not_assumed():
    (one,) = find_misfits(SHIPPED, MASKS)
    assert one.key == "evaluate.violation_class"
    assert one.way_out.startswith("set without_mask if that is the class that must not be missed")
    assert "null" in one.way_out
    assert find_misfits(changed(evaluate__violation_class=None), MASKS) == []
    assert find_misfits(changed(evaluate__violation_class="without_mask"), MASKS) == []


@pytest.mark.parametrize("name", ["With_Mask", "with mask", "with-mask"])
def test_a_violation_that_is_spelled_otherwise_is_the_class(name):
    (one,) = find_misfits(changed(evaluate__violation_class=name), Facts(("with_mask", "bare"), ("path", "label")))
    assert one.way_out == "set with_mask, or null where no class is one"


def test_a_section_that_leaves_the_violation_out_has_the_default():
    params = changed()
    del params["evaluate"]["violation_class"]
    assert keys_of(params, MASKS) == {"evaluate.violation_class"}


@pytest.mark.parametrize(
    ("classes", "offered"),
    [
        (["with_mask", "without_mask"], ["without_mask"]),
        (["helmet", "no_helmet"], ["no_helmet"]),
        (["Helmet", "No Helmet", "vest"], ["No Helmet"]),
        (["masked", "unmasked"], ["unmasked"]),
        (["mask", "nomask"], ["nomask"]),
        (["safe", "un-safe"], ["un-safe"]),
        (["WithoutMask", "WithMask"], ["WithoutMask"]),
        (["normal", "pneumonia"], []),
        (["uniform", "north", "noise"], []),
        (["cat", "dog", "horse"], []),
        (["no_vest", "without_helmet", "helmet", "other"], ["without_helmet", "no_vest"]),
    ],
)
def test_the_class_that_says_something_is_missing(classes, offered):
    assert offered_violations(classes) == offered


STUDENT = {"architecture": "lenet5", "backbone": "pixels_32"}


@pytest.mark.parametrize(
    ("key", "value", "named", "way_out"),
    [
        ("group__columns", ["photo", "persn"], "group.columns", "name one of its columns"),
        ("group__columns", ["photoo"], "group.columns", "set photo"),
        ("group__columns", ["Site"], "group.columns", "set site"),
        ("group__camera_column", "sites", "group.camera_column", "set site"),
        ("group__captured_within_seconds", 2, "group.captured_within_seconds", "or set 0"),
        ("split__stratify", ["label", "shift"], "split.stratify", "take it out"),
        ("probe__head_columns", ["left", "top", "right", "bottom"], "probe.head_columns", "take it out"),
        ("validate__classes", ["with_helmet", "without_helmt"], "validate.classes", "set without_helmet"),
        ("validate__classes", ["with_helmet"], "validate.classes", "add it"),
        ("data__yolo__classes", {"head": "bare"}, "data.yolo.classes", "obj.names"),
        ("data__metadata", "meta.csv", "data.metadata", "correct the name"),
        ("group__embedding", "mobilenetv2", "group.embedding", "set mobilenet_v2"),
        ("leakage__features", "resnet", "leakage.features", "set one of"),
        ("candidates__vgg16_gap__backbone", "vgg_16", "candidates.vgg16_gap.backbone", "set vgg16"),
        ("candidates__simple_cnn__architecture", "weights", "candidates.simple_cnn.architecture", "simple_cnn"),
        ("candidates__mobilenet_v2__networks", ["vgg16"], "candidates.mobilenet_v2.networks", "mobilenet_v2"),
        ("backbones__vgg16__weights", "no/such.h5", "backbones.vgg16.weights", "correct the path"),
        ("backbones__vgg16__network", "vgg19", "backbones.vgg16", "set vgg16"),
        ("ablations", {"hybird": {"backbone": "vgg16"}}, "ablations.hybird", "call it hybrid"),
        ("ablations", {"vgg16_gap": {"backbone": "hybrit"}}, "ablations.vgg16_gap.backbone", "hybrid"),
        ("compressed", {"a": {"of": "lenet", "backbone": "pixels_32"}}, "compressed.a.of", "set lenet5"),
        ("compressed", {"a": {"of": "lenet5", "backbone": "pixels"}}, "compressed.a.backbone", "set pixels_32"),
        ("compressed", {"a": {"of": "lenet5", "backbone": "pixels_32", "how": "int4"}}, "compressed.a.how", "correct"),
        ("students", {"a": {**STUDENT, "teacher": "lenet"}}, "students.a.teacher", "set lenet5"),
        ("students", {"lenet5": {**STUDENT, "teacher": "alexnet"}}, "students.lenet5", "lenet5_student"),
        ("candidates__lenet5__teacher", "alexnet", "candidates.lenet5.teacher", "move the entry lenet5"),
        ("compressed", {"vgg16_gap": {"of": "lenet5", "backbone": "pixels_32"}}, "compressed.vgg16_gap", "_int8"),
    ],
)
def test_each_name_that_fits_nothing_is_told_with_the_way_out(key, value, named, way_out):
    found = find_misfits(changed(**{key: value}), HELMETS)
    assert {one.key for one in found} == {named}
    assert any(way_out in one.way_out for one in found), found


def test_all_are_in_one_message():
    params = changed(group__columns=["persn"], leakage__features="x", candidates__simple_cnn__backbone="pixel")
    said = as_sentence(find_misfits(params, MASKS), MASKS)
    for key in ("evaluate.violation_class", "group.columns", "leakage.features", "candidates.simple_cnn.backbone"):
        assert key in said
    assert "plumbline init data" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "broken", [{}, {"candidates": None, "evaluate": []}, {"group": {"columns": "photo"}, "data": 3}]
)
def test_sections_that_are_none_are_left_to_their_stages(broken):
    assert find_misfits({"backbones": {"pixels": {}}, **broken}, HELMETS) == []


def test_backbones_that_nothing_uses_are_named():
    params = {
        "backbones": {"pixels": {}, "mobilenet_v2": {}, "vgg16": {}, "mobilenet": {}, "hybrid": {}},
        "candidates": {"a": {"backbone": "mobilenet"}},
        "ablations": {"a": {"backbone": "hybrid"}},
    }
    assert unused_backbones(params) == ["vgg16"], "mobilenet_v2 is what groups and the price of leakage look at"
    looked_at = {"group": {"embedding": "pixels"}, "leakage": {"features": "vgg16"}}
    assert unused_backbones(params | looked_at) == ["mobilenet_v2"]


DETECTION = yaml.safe_load((Path(__file__).parents[3] / "detection" / "params.yaml").read_text())


def test_the_detection_pipelines_settings_fit_and_its_candidates_are_its_own():
    scenes = Facts(("head", "helmet"), ("path", "label", "video", "site"))
    own = {**DETECTION, "evaluate": {"violation_class": "head"}, "candidates": {"a": {"architecture": "a detector"}}}
    assert find_misfits(own, scenes) == []
    assert find_misfits({**own, "evaluate": {"violation_class": "without_helmet"}}, scenes)[0].key == (
        "evaluate.violation_class"
    )
    wrong = {**own, "group": {"embedding": "resnet50"}}
    assert {one.key for one in find_misfits(wrong, None)} == {"group.embedding"}
    assert find_misfits({**own, "data": {}}, None)[0].key == "candidates.a.architecture"
