"""The certificate counts what crosses the splits, prices the random split, and shows both."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from recorded import WEIGHTS, backbone_json

from drawn import scene
from plumbline.common.files import write_table
from plumbline.common.records import write_record
from plumbline.imaging.manifest import IngestParams, ingest, write_array
from plumbline.imaging.reading import load_rgb
from plumbline.imaging.settings import DataParams
from plumbline.leakage.certificate import Inputs, certificate, report, why_paired
from plumbline.leakage.crossings import crossing_pairs, group_sizes
from plumbline.leakage.groups import GroupParams, describe_pictures, grey_reader, group_images
from plumbline.leakage.price import price, sentence
from plumbline.leakage.records import ClassifierPrice, Grouping, Pair, Price
from plumbline.pages.certificate import page, price_bars
from stages import leakage

NO_EDGES = pd.DataFrame(
    {"path_a": [], "path_b": [], "kind": [], "distance": [], "score": [], "verified": np.array([], bool)}
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Ten strangers, and of the first two a crop each."""
    root = tmp_path_factory.mktemp("site")
    pictures = {f"{'ab'[i % 2]}/{i}.jpg": scene(i) for i in range(10)}
    pictures["a/0_crop.jpg"] = scene(0).crop((16, 12, 304, 228))
    pictures["b/1_crop.jpg"] = scene(1).crop((0, 0, 288, 216))
    for path, image in pictures.items():
        (root / path).parent.mkdir(exist_ok=True)
        image.save(root / path, quality=90)
    found = ingest(DataParams(root=root), IngestParams())
    return DataParams(root=root), found


def seen(data, found):
    grey = grey_reader(data, found.manifest["path"].to_numpy())
    return describe_pictures(found.manifest, found.fingerprints, found.thumbnails, grey, None)


def on_sides(manifest, **sides):
    """Everything in train but the paths given."""
    side = {path: name for name, paths in sides.items() for path in paths}
    return manifest.assign(split=[side.get(path, "train") for path in manifest["path"]])


class TestCrossing:
    def test_a_copy_on_the_other_side_is_found_without_any_recorded_edge(self, site):
        data, found = site
        sides = on_sides(found.manifest, test=["a/0_crop.jpg", "a/2.jpg"])
        pairs = crossing_pairs(sides, NO_EDGES, seen(data, found), [], GroupParams())
        assert pairs[["path_a", "path_b", "kind"]].to_numpy().tolist() == [["a/0.jpg", "a/0_crop.jpg", "near"]]

    def test_copies_on_one_side_are_no_leak(self, site):
        data, found = site
        sides = on_sides(found.manifest, test=["a/0.jpg", "a/0_crop.jpg"])
        assert crossing_pairs(sides, NO_EDGES, seen(data, found), [], GroupParams()).empty

    def test_a_recorded_edge_counts_once_and_an_unverified_one_not_at_all(self, site):
        data, found = site
        edges = pd.DataFrame(
            [
                ("a/0_crop.jpg", "a/0.jpg", "embedding", 0.1, 0.99, True),
                ("b/3.jpg", "b/5.jpg", "embedding", 0.1, 0.99, True),
                ("b/3.jpg", "b/7.jpg", "near", 5.0, np.nan, False),
            ],
            columns=NO_EDGES.columns,
        )
        sides = on_sides(found.manifest, test=["a/0_crop.jpg", "b/3.jpg"])
        pairs = crossing_pairs(sides, edges, seen(data, found), [], GroupParams())
        assert {frozenset(p) for p in pairs[["path_a", "path_b"]].itertuples(index=False)} == {
            frozenset(("a/0.jpg", "a/0_crop.jpg")),
            frozenset(("b/3.jpg", "b/5.jpg")),
        }

    def test_a_photograph_on_two_sides_is_a_leak(self, site):
        data, found = site
        manifest = found.manifest.assign(photo=["p" if i in (2, 5) else "" for i in range(len(found.manifest))])
        sides = on_sides(manifest, test=[manifest["path"].iat[5]])
        pairs = crossing_pairs(sides, NO_EDGES, seen(data, found), ["photo"], GroupParams())
        assert pairs["kind"].tolist() == ["photo"]

    def test_an_image_that_was_set_aside_leaks_nothing(self, site):
        data, found = site
        sides = on_sides(found.manifest, test=["a/2.jpg"])
        sides = sides[sides["path"] != "a/0_crop.jpg"]
        assert crossing_pairs(sides, NO_EDGES, seen(data, found), [], GroupParams()).empty


def clusters(copies, groups=60, seed=0):
    """Groups of near-equal points, each with the label of a coin: only who has seen a copy can tell."""
    rng = np.random.default_rng(seed)
    centres, labels = rng.normal(size=(groups, 16)), rng.integers(0, 2, groups)
    group = np.repeat(np.arange(groups), copies)
    return centres[group] + rng.normal(scale=0.01, size=(len(group), 16)), labels[group], group


def test_the_price_is_what_copies_are_worth():
    found = price(*clusters(4), repeats=4, most=1000, seed=0)
    nearest = found.classifiers["nearest_neighbour"]
    assert nearest.naive > 0.95
    assert 0.3 < nearest.grouped < 0.7
    assert nearest.low < nearest.points < nearest.high
    assert nearest.points == pytest.approx(100 * (nearest.naive - nearest.grouped))
    assert nearest.low > 20
    said = sentence(found)
    assert f"{nearest.naive:.3f}" in said
    assert f"honest is {nearest.grouped:.3f}" in said


def test_without_copies_the_price_is_nothing():
    found = price(*clusters(1, groups=240), repeats=4, most=1000, seed=0)
    for scores in found.classifiers.values():
        assert scores.low <= 0 <= scores.high or abs(scores.points) < 3


@pytest.mark.parametrize(
    ("figures", "says"),
    [
        ((-0.6, -1.9, 0.7), "chance of the draw: the interval holds 0, no price was found"),
        ((-3.0, -4.1, -2.2), "lower by more than chance of the draw (the interval lies below 0)"),
        ((0.4, -0.8, 1.5), None),
        ((0.0, 0.0, 0.0), None),
        ((-0.04, -1.0, 1.0), None),
    ],
)
def test_a_negative_price_is_explained_and_only_that(figures, says):
    points, low, high = figures
    scores = ClassifierPrice(naive=0.9 + points / 100, grouped=0.9, points=points, low=low, high=high)
    found = Price(images=9, repeats=2, folds=5, classifiers={"nearest_neighbour": scores})
    (bar,) = price_bars(found)
    assert "-0.0" not in sentence(found)
    if says is None:
        assert (bar["why"], "lower" in sentence(found)) == (None, False)
        assert bar["says"].endswith("points too much")
    else:
        assert says in bar["why"]
        assert sentence(found).endswith(bar["why"])
        assert bar["says"] == f"{points:.1f} points"


def test_the_price_is_the_same_twice_and_drawn_from_whole_groups():
    first, second = (price(*clusters(4), repeats=2, most=100, seed=3) for _ in range(2))
    assert first == second
    assert first.images == 100


def test_too_few_groups_have_no_price():
    assert price(*clusters(4, groups=6), repeats=2, most=100, seed=0) is None
    assert "can't be told" in sentence(None)


def test_groups_are_counted_by_size():
    sizes = group_sizes(pd.Series(["g", "g", "h", "i", "i"]))
    assert [(size.images, size.groups) for size in sizes] == [(1, 1), (2, 2)]


def test_evidence_reads_as_a_person_would_say_it():
    def said(kind, distance=3.0):
        return why_paired(Pair(a="x", b="y", kind=kind, distance=distance, score=0.91))

    assert said("near") == "near, 3 bits, alike 0.91"
    assert said("embedding", 0.25) == "embedding, cosine 0.75, alike 0.91"
    assert said("photo") == "same photo"
    assert said("same bytes") == "same bytes"


class TestCertificate:
    @pytest.fixture
    def inputs(self, site):
        data, found = site
        grouped = group_images(found.manifest, seen(data, found), GroupParams())
        sides = on_sides(found.manifest, test=["a/0_crop.jpg", "a/2.jpg"]).merge(grouped.groups, on="path")
        return Inputs(
            title="Leakage certificate",
            sides=sides,
            edges=grouped.edges,
            apart=grouped.apart,
            crossing=crossing_pairs(sides, grouped.edges, seen(data, found), [], GroupParams()),
            set_aside=pd.DataFrame({"path": ["b/<odd>.jpg"], "reason": ["ties two sides"]}),
            price=price(*clusters(4), repeats=2, most=1000, seed=0),
            features="test features",
            embeddings="none asked for",
        )

    def test_a_leak_is_counted_and_named(self, inputs, tmp_path):
        result = certificate(inputs)
        assert result.pairs_across_splits == 1
        assert {result.pairs[0].a, result.pairs[0].b} == {"a/0.jpg", "a/0_crop.jpg"}
        assert result.sides["test"].images == 2
        assert [(size.images, size.groups) for size in result.group_sizes] == [(1, 8), (2, 2)]
        assert {k.kind: k.groups for k in result.kinds} == {"near": 1, "cropped": 1}
        assert "LEAKS: 1 pairs" in report(result, tmp_path / "page.html")

    def test_the_page_is_one_file_and_escapes_names(self, inputs, site):
        data, _ = site
        html = page(inputs, certificate(inputs), lambda path: load_rgb(data, path))
        assert "1 pair of pictures" in html
        assert "&lt;odd&gt;" in html
        assert "<odd>" not in html
        assert "data:image/jpeg;base64," in html
        assert 'src="http' not in html
        assert html.count("<h1") == 1
        assert html.count("<img") == html.count("alt=")


@pytest.mark.slow
def test_the_stage_reads_and_writes_its_files(site, tmp_path, monkeypatch, capsys):
    data, found = site
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(
        f"data: {{root: {data.root}}}\ngroup: {{embedding: net}}\nleakage: {{features: net, repeats: 2}}\n"
    )
    grouped = group_images(found.manifest, seen(data, found), GroupParams())
    splits = on_sides(found.manifest, test=["a/2.jpg"]).merge(grouped.groups, on="path")
    write_table("build/manifest.parquet", found.manifest)
    write_table("build/splits.parquet", splits[["path", "id", "label", "group", "split"]])
    write_table("build/edges.parquet", grouped.edges)
    write_table("build/apart.parquet", grouped.apart)
    write_table("build/set_aside.csv", pd.DataFrame({"path": [], "reason": []}))
    write_array(Path("build/fingerprints.npy"), found.fingerprints)
    write_array(Path("build/thumbnails.npy"), found.thumbnails)
    grouping = Grouping(images=0, groups=0, edges={}, looked_at={}, embeddings="none", label_conflicts=0)
    write_record("build/group.json", grouping)
    net = Path("build/features/net")
    net.mkdir(parents=True)
    np.save(net / "features.npy", np.zeros((len(found.manifest), 1, 4), np.float16))
    write_table(net / "index.parquet", found.manifest[["path", "id"]])
    (net / "backbone.json").write_text(json.dumps(backbone_json(weights={**WEIGHTS, "origin": "random"})))
    leakage.main()
    assert "no pair across the splits" in capsys.readouterr().out
    assert '"pairs_across_splits": 0' in Path("build/leakage.json").read_text()
    assert "raw 16x16 pixels" in Path("reports/leakage.html").read_text()
