"""A published split is kept, but for what leaks."""

import hashlib

import pandas as pd
import pytest

from plumbline.common.errors import UserError
from plumbline.leakage.published import keep_published
from plumbline.leakage.splits import SplitParams, split_images

NONE_YET = pd.DataFrame({"key": [], "side": []}, dtype=object)
NOBODY = pd.DataFrame({"path": [], "reason": []}, dtype=object)
NO_EDGES = pd.DataFrame({"path_a": [], "path_b": []}, dtype=object)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def published(train=24, test=12, validation=0, same=()):
    names = [
        f"{side}{n}"
        for side, count in (("train", train), ("test", test), ("validation", validation))
        for n in range(count)
    ]
    bytes_ = {name: name for name in names} | dict(same)
    return pd.DataFrame(
        {
            "path": names,
            "id": [digest("b" + bytes_[name]) for name in names],
            "pixels_sha256": [digest("p" + bytes_[name]) for name in names],
            "label": [("cat", "dog")[number % 2] for number in range(len(names))],
            "published_split": [name.rstrip("0123456789") for name in names],
        }
    )


def kept(manifest, edges=NO_EDGES, memberships=NONE_YET, params=None):
    params = params or SplitParams()
    joined = dict(zip(edges["path_b"], edges["path_a"], strict=True))
    groups = pd.DataFrame({"path": manifest["path"], "group": [joined.get(p, p) for p in manifest["path"]]})
    known, excluded = keep_published(manifest, groups, memberships, NOBODY, params)
    result = split_images(manifest, groups, edges, (), known, excluded, params)
    return dict(zip(result.splits["path"], result.splits["split"], strict=True)), result


def test_sides_stay_and_validation_is_drawn_from_training():
    manifest = published()
    sides, result = kept(manifest)
    assert {sides[name] for name in manifest["path"] if name.startswith("test")} == {"test"}
    train = [sides[name] for name in manifest["path"] if name.startswith("train")]
    assert set(train) == {"train", "validation"}
    assert 2 <= train.count("validation") <= 8
    again, _ = kept(manifest, memberships=result.memberships)
    assert again == sides
    other = pd.DataFrame({"key": ["0" * 16], "side": ["train"]})  # of the sample that lay there before
    assert set(kept(manifest, memberships=other)[0].values()) == {"train", "validation", "test"}


def test_a_published_validation_side_stays():
    sides, _ = kept(published(validation=6))
    assert all(name.startswith(side) for name, side in sides.items())


def test_what_leaks_into_test_is_set_aside_from_training_and_said():
    manifest = published(validation=6, same={"train3": "test5"})
    edges = pd.DataFrame({"path_a": ["test0", "test1"], "path_b": ["train0", "validation1"]})
    sides, result = kept(manifest, edges)
    aside = dict(zip(result.set_aside["path"], result.set_aside["reason"], strict=True))
    assert set(aside) == {"train0", "train3", "validation1"}
    assert "the same picture as test5" in aside["train3"]
    assert "test0" in aside["train0"]
    assert [sides[name] for name in ("test0", "test1", "test5")] == ["test"] * 3


def test_without_a_test_side_or_against_an_earlier_draw_it_is_one_sentence():
    with pytest.raises(UserError, match="no folder of the published split is its test side"):
        kept(published(test=0, validation=6))
    manifest = published()
    earlier = pd.DataFrame({"key": [manifest["id"][30][:16]], "side": ["train"]})
    with pytest.raises(UserError, match=r"delete memberships/seed-0\.csv"):
        kept(manifest, memberships=earlier)
