"""No group on two sides, shares and strata kept, and memberships that outlive the data they were drawn on."""

import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plumbline.common.errors import UserError
from plumbline.common.params import parse_section
from plumbline.leakage.splits import SIDES, SplitParams, draw, read_memberships, split_images

NONE_YET = pd.DataFrame({"key": [], "side": []}, dtype=object)
NOBODY = pd.DataFrame({"path": [], "reason": []}, dtype=object)
NO_EDGES = pd.DataFrame({"path_a": [], "path_b": []}, dtype=object)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def manifest_of(names, labels, **columns):
    return pd.DataFrame(
        {
            "path": names,
            "id": [digest(f"bytes {n}") for n in names],
            "pixels_sha256": [digest(f"pixels {n}") for n in names],
            "label": labels,
            **columns,
        }
    )


def groups_of(manifest, edges, columns):
    """What stage `group` would write."""
    import networkx as nx

    graph = nx.Graph(edges.itertuples(index=False, name=None))
    graph.add_nodes_from(manifest["path"])
    for column in (c for c in columns if c in manifest):
        graph.add_edges_from((p, (column, v)) for p, v in zip(manifest["path"], manifest[column], strict=True) if v)
    name = {node: min(map(str, part)) for part in nx.connected_components(graph) for node in part}
    return pd.DataFrame({"path": manifest["path"], "group": manifest["path"].map(name)})


def split(manifest, edges=NO_EDGES, columns=("photo",), memberships=NONE_YET, excluded=NOBODY, params=None):
    groups = groups_of(manifest, edges, columns)
    return split_images(manifest, groups, edges, columns, memberships, excluded, params or SplitParams())


def edges_of(*pairs):
    return pd.DataFrame({"path_a": [a for a, _ in pairs], "path_b": [b for _, b in pairs]}, dtype=object)


def sides_of(result):
    return dict(zip(result.splits["path"], result.splits["split"], strict=True))


@st.composite
def collections(draw_):
    rng = np.random.default_rng(draw_(st.integers(0, 2**32)))
    size = draw_(st.integers(60, 300))
    names = [f"{i}.jpg" for i in range(size)]
    photos = [f"p{n}" if n < 25 else "" for n in rng.integers(0, 60, size)]
    manifest = manifest_of(
        names,
        rng.choice(["with_helmet", "without_helmet"], size),
        photo=photos,
        site=rng.choice(["north", "south", ""], size, p=[0.6, 0.3, 0.1]),
    )
    count = draw_(st.integers(0, size // 8))
    pairs = rng.integers(0, size, (count, 2))
    return manifest, edges_of(*((names[a], names[b]) for a, b in pairs if a != b)), rng


class TestProperties:
    @settings(deadline=None, max_examples=40)
    @given(collections(), st.integers(0, 5))
    def test_nothing_that_belongs_together_is_parted(self, collection, seed):
        manifest, edges, _ = collection
        result = split(manifest, edges, params=SplitParams(seed=seed))
        side = sides_of(result)
        assert set(side) == set(manifest["path"])
        assert all(side[a] == side[b] for a, b in edges.itertuples(index=False))
        shown = manifest.assign(split=manifest["path"].map(side))
        assert (shown[shown["photo"] != ""].groupby("photo")["split"].nunique() == 1).all()
        assert (result.splits.groupby("group")["split"].nunique() == 1).all()

    @settings(deadline=None, max_examples=40)
    @given(collections(), st.integers(0, 5))
    def test_shares_are_within_the_size_of_a_group(self, collection, seed):
        manifest, edges, _ = collection
        result = split(manifest, edges, params=SplitParams(seed=seed))
        largest = result.splits["group"].value_counts().iloc[0]
        share = result.splits["split"].value_counts() / len(manifest)
        for side, wanted in zip(SIDES, (0.70, 0.15, 0.15), strict=True):
            assert abs(share[side] - wanted) <= (largest + 3) / len(manifest)

    @pytest.mark.slow
    @settings(deadline=None, max_examples=40)
    @given(collections(), st.data())
    def test_memberships_outlive_new_data(self, collection, data):
        manifest, edges, rng = collection
        old = manifest[rng.random(len(manifest)) < 0.7].reset_index(drop=True)
        known = edges[edges["path_a"].isin(old["path"]) & edges["path_b"].isin(old["path"])]
        try:
            first = split(old, known)
        except UserError:
            return  # too little left of a class
        second = split(manifest, edges, memberships=first.memberships)
        before, after = sides_of(first), sides_of(second)
        aside = set(second.set_aside["path"])
        assert set(after) | aside == set(manifest["path"])
        assert all(after[p] == before[p] for p in before if p not in aside), "nobody is moved"
        assert all(after[a] == after[b] for a, b in edges.itertuples(index=False) if not {a, b} & aside)
        shown = manifest[~manifest["path"].isin(aside)]
        photos = shown[shown["photo"] != ""].assign(split=lambda t: t["path"].map(after))
        assert (second.splits.groupby("group")["split"].nunique() == 1).all()
        assert (photos.groupby("photo")["split"].nunique() == 1).all()
        assert not {p for p in aside if before.get(p) == "test"}, "the test set gives way to nobody"
        merged = first.memberships.merge(second.memberships, on="key", suffixes=("", "_after"))
        assert len(merged) == len(first.memberships)
        assert (merged["side"] == merged["side_after"]).all()
        third = split(manifest, edges, memberships=second.memberships)
        assert sides_of(third) == after
        assert third.memberships.equals(second.memberships)


def balanced(count, **columns):
    names = [f"{i}.jpg" for i in range(count)]
    return manifest_of(names, ["with_helmet", "without_helmet"] * (count // 2), **columns)


def test_single_images_are_split_to_the_image():
    counts = split(balanced(200)).splits["split"].value_counts()
    assert counts.to_dict() == {"train": 140, "validation": 30, "test": 30}


def test_classes_and_sites_are_balanced():
    site = (["gate"] * 3 + ["tower"]) * 100
    manifest = balanced(400, site=site, photo=[f"p{i // 2}" for i in range(400)])
    shown = split(manifest).splits.merge(manifest[["path", "site"]], on="path")
    for column in ("label", "site"):
        share = shown.groupby(column)["split"].value_counts(normalize=True).unstack()
        assert (abs(share["test"] - 0.15) < 0.02).all()
        assert (abs(share["train"] - 0.70) < 0.02).all()


def test_another_seed_is_another_draw_and_the_same_seed_the_same():
    manifest = balanced(200)
    draws = [sides_of(split(manifest, params=SplitParams(seed=seed))) for seed in (0, 0, 1)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_the_order_of_the_manifest_does_not_matter_once_drawn():
    manifest = balanced(100)
    first = split(manifest)
    again = split(manifest.iloc[::-1].reset_index(drop=True), memberships=first.memberships)
    assert sides_of(first) == sides_of(again)


def grown(*news, sides=("train", "test"), **columns):
    """100 images drawn once; two of them on `sides`, named first and second; then `news` arrive."""
    old = balanced(100, **{name: [""] * 100 for name in columns})
    first = split(old)
    side = sides_of(first)
    anchors = [next(p for p in old["path"] if side[p] == wanted) for wanted in sides]
    fresh = manifest_of(list(news), ["with_helmet"] * len(news), **columns)
    return first, anchors, pd.concat([old, fresh], ignore_index=True)


def test_a_new_image_joins_the_side_of_its_group():
    first, (train, test), manifest = grown("new.jpg", "other.jpg")
    result = split(manifest, edges_of(("new.jpg", test), ("other.jpg", train)), memberships=first.memberships)
    assert sides_of(result)["new.jpg"] == "test"
    assert sides_of(result)["other.jpg"] == "train"
    assert result.set_aside.empty


def test_an_image_that_ties_two_sides_is_set_aside_and_named():
    first, (train, test), manifest = grown("tie.jpg", "near_train.jpg")
    edges = edges_of(("tie.jpg", test), ("tie.jpg", train), ("near_train.jpg", train))
    result = split(manifest, edges, memberships=first.memberships)
    assert result.set_aside["path"].tolist() == ["tie.jpg"]
    reason = result.set_aside["reason"].iat[0]
    assert train in reason
    assert test in reason
    assert sides_of(result)["near_train.jpg"] == "train"
    assert sides_of(result)[train] == "train"
    assert sides_of(result)[test] == "test"
    assert (result.splits.groupby("group")["split"].nunique() == 1).all()
    assert not set(result.memberships["key"]) & {digest("bytes tie.jpg")[:16]}, "it may join once the tie is gone"


def test_a_chain_of_new_images_between_two_sides_is_set_aside_whole():
    first, (train, test), manifest = grown("a.jpg", "b.jpg")
    edges = edges_of((train, "a.jpg"), ("a.jpg", "b.jpg"), ("b.jpg", test))
    result = split(manifest, edges, memberships=first.memberships)
    assert set(result.set_aside["path"]) == {"a.jpg", "b.jpg"}


def test_old_images_that_turn_out_to_be_copies_leave_the_test_set_whole():
    first, (train, test), manifest = grown()
    result = split(manifest, edges_of((train, test)), memberships=first.memberships)
    assert result.set_aside["path"].tolist() == [train]
    assert test in result.set_aside["reason"].iat[0]
    assert sides_of(result)[test] == "test"


def test_a_new_column_that_ties_old_images_sets_those_on_the_lesser_side_aside():
    first, (train, test), manifest = grown()
    manifest["photo"] = ["shared" if p in (train, test) else "" for p in manifest["path"]]
    result = split(manifest, memberships=first.memberships)
    assert result.set_aside["path"].tolist() == [train]


def test_the_same_pixels_under_new_bytes_stay_where_they_were():
    manifest = balanced(100)
    first = split(manifest)
    saved_again = manifest.assign(id=[digest(f"other {p}") for p in manifest["path"]])
    assert sides_of(split(saved_again, memberships=first.memberships)) == sides_of(first)


def test_new_crops_of_a_photograph_whose_crops_are_gone_join_its_side():
    old = balanced(100, photo=[f"p{i // 2}" for i in range(100)])
    first = split(old)
    side = sides_of(first)
    photo = next(v for p, v in zip(old["path"], old["photo"], strict=True) if side[p] == "test")
    rest = old[old["photo"] != photo]
    recut = manifest_of(["recut.jpg"], ["with_helmet"], photo=[photo])
    result = split(pd.concat([rest, recut], ignore_index=True), memberships=first.memberships)
    assert sides_of(result)["recut.jpg"] == "test"


def test_a_column_value_is_kept_as_a_digest():
    manifest = balanced(60, person=[f"Ann Example {i}" for i in range(60)])
    kept = split(manifest, columns=("person",)).memberships
    assert not kept["key"].str.contains("Ann").any()
    assert kept["key"].str.fullmatch("[0-9a-f]{16}").all()


def test_label_conflicts_are_on_no_side():
    manifest = balanced(60)
    excluded = pd.DataFrame({"path": ["3.jpg"], "reason": ["labelled both ways"]})
    result = split(manifest, excluded=excluded)
    assert "3.jpg" not in sides_of(result)
    assert result.set_aside[["path", "reason"]].to_numpy().tolist() == [["3.jpg", "labelled both ways"]]


@pytest.mark.parametrize("seed", range(5))
def test_a_rare_class_is_on_every_side(seed):
    manifest = manifest_of([f"{i}.jpg" for i in range(103)], ["common"] * 100 + ["rare"] * 3)
    table = split(manifest, params=SplitParams(seed=seed)).splits
    assert set(table[table["label"] == "rare"]["split"]) == set(SIDES)


def test_a_class_with_too_few_groups_is_refused_by_name():
    manifest = manifest_of([f"{i}.jpg" for i in range(42)], ["common"] * 40 + ["rare"] * 2)
    with pytest.raises(UserError, match="class 'rare' has 2 group"):
        split(manifest)


def test_where_everything_is_set_aside_it_is_said_in_one_sentence():
    manifest = manifest_of([f"{i}.jpg" for i in range(32)], ["red", "blue"] * 16)
    excluded = pd.DataFrame({"path": manifest["path"], "reason": "labelled red, its copy 1.jpg blue"})
    with pytest.raises(UserError, match=r"all 32 pictures are set aside.*0\.jpg, labelled red.*label_conflicts\.html"):
        split(manifest, excluded=excluded)
    with pytest.raises(UserError, match="names no picture"):
        split(manifest.iloc[:0])


def test_a_class_of_which_nothing_is_left_is_named():
    manifest = manifest_of([f"{i}.jpg" for i in range(30)], ["a", "b", "b;c"] * 10)
    excluded = pd.DataFrame({"path": manifest["path"][2::3], "reason": "was wrong"})
    with pytest.raises(UserError, match=r"all 10 pictures of class 'c' are set aside.*2\.jpg, was wrong"):
        split(manifest, excluded=excluded)
    split(manifest.assign(label=["a", "b", "b;a"] * 10), excluded=excluded)


def test_new_groups_make_up_for_what_is_missing():
    old = balanced(100)
    everything_in_train = pd.DataFrame({"key": [digest(f"bytes {p}")[:16] for p in old["path"]], "side": "train"})
    grown_ = balanced(200)
    counts = split(grown_, memberships=everything_in_train).splits["split"].value_counts()
    assert counts["train"] == pytest.approx(140, abs=2)


def test_drawing_takes_locked_groups_as_they_are():
    images = pd.DataFrame({"label": ["a", "b"] * 20})
    locked = np.full(40, -1)
    locked[:4] = 2
    side = draw(images, np.arange(40), locked, SplitParams())
    assert (side[:4] == 2).all()


def test_a_broken_memberships_file_is_refused(tmp_path):
    path = tmp_path / "seed-0.csv"
    path.write_text("key,side\nabc,tset\n")
    with pytest.raises(UserError, match=r"seed-0.csv is not a list.*git checkout"):
        read_memberships(path)
    assert read_memberships(tmp_path / "none.csv").empty


def test_fractions_must_sum_to_one():
    with pytest.raises(UserError, match="must sum to 1"):
        parse_section("split", {"fractions": {"train": 0.9, "validation": 0.2, "test": 0.1}}, SplitParams)


def test_photographs_without_a_box_may_be_missing_from_a_side():
    labels = ["helmet"] * 20 + ["head;helmet"] * 10 + ["background"]
    manifest = manifest_of([f"{n}.jpg" for n in range(31)], labels)
    with pytest.raises(UserError, match="class 'background' has 1 group"):
        split(manifest)
    counted = manifest.assign(box_count=[1] * 30 + [0])
    sides = split(counted).splits
    assert len(sides) == 31
    assert all((sides[sides["label"] == "head;helmet"]["split"] == side).any() for side in SIDES)
    aside = pd.DataFrame({"path": ["30.jpg"], "reason": ["x"]})
    assert len(split(counted, excluded=aside).splits) == 30
