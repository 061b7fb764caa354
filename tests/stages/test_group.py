"""Groups from pictures on disk: copies and columns, chains refused, opposite labels listed, audits of folders."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps
from recorded import WEIGHTS, backbone_json
from sklearn.datasets import load_digits

from drawn import scene, with_helmet, with_worker
from plumbline.common.errors import UserError
from plumbline.imaging.manifest import IngestParams, ingest
from plumbline.imaging.reading import load_rgb
from plumbline.imaging.settings import DataParams
from plumbline.leakage.chains import refuse_chain, weakest_links
from plumbline.leakage.columns import column_edges, moment_edges, sentence, tied_by_column
from plumbline.leakage.conflicts import conflict_table, conflicting_pairs, same_shot
from plumbline.leakage.copies import Edge, Joined
from plumbline.leakage.groups import (
    GroupParams,
    describe_pictures,
    edge_table,
    grey_reader,
    group_images,
    read_embeddings,
)
from plumbline.pages.certificate import conflicts_page


def write(root, pictures):
    """Write {path: picture}; a .jpg in quality 90."""
    for path, image in pictures.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        image.save(root / path, quality=90)


def grouped(root, **params):
    data = DataParams(root=root)
    found = ingest(data, IngestParams())
    grey = grey_reader(data, found.manifest["path"].to_numpy())
    pictures = describe_pictures(found.manifest, found.fingerprints, found.thumbnails, grey, None)
    return found.manifest, group_images(found.manifest, pictures, GroupParams(**params)), pictures


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Twelve strangers; 0 has a mirrored copy, 1 a resized one, 2 the same bytes again, 3 a copy labelled otherwise."""
    root = tmp_path_factory.mktemp("site")
    pictures = {f"{'with' if i % 2 else 'without'}_helmet/{i}.jpg": scene(i) for i in range(12)}
    pictures["without_helmet/0_mirrored.jpg"] = ImageOps.mirror(scene(0))
    pictures["with_helmet/1_small.jpg"] = scene(1).resize((160, 120))
    pictures["without_helmet/2_again.jpg"] = scene(2)
    pictures["without_helmet/3_other_label.jpg"] = scene(3).resize((300, 225))
    write(root, pictures)
    return root


def test_copies_share_a_group_and_strangers_do_not(site):
    manifest, found, _ = grouped(site)
    group = found.groups.set_index("path")["group"]
    assert group["without_helmet/0.jpg"] == group["without_helmet/0_mirrored.jpg"]
    assert group["with_helmet/1.jpg"] == group["with_helmet/1_small.jpg"]
    assert group["without_helmet/2.jpg"] == group["without_helmet/2_again.jpg"]
    assert group["with_helmet/3.jpg"] == group["without_helmet/3_other_label.jpg"]
    assert group.nunique() == 12
    kinds = {frozenset((e.path_a, e.path_b)): e.kind for e in found.edges.itertuples()}
    assert kinds[frozenset(("without_helmet/2.jpg", "without_helmet/2_again.jpg"))] == "same bytes"
    assert kinds[frozenset(("without_helmet/0.jpg", "without_helmet/0_mirrored.jpg"))] == "mirrored"
    assert list(found.edges.columns) == ["path_a", "path_b", "kind", "distance", "score", "verified"]
    smallest = manifest[manifest["path"].isin(["with_helmet/1.jpg", "with_helmet/1_small.jpg"])]["id"].min()
    assert group["with_helmet/1.jpg"] == "g" + smallest[:16]


def test_copies_with_opposite_labels_are_listed_side_by_side(site, tmp_path):
    manifest, found, pictures = grouped(site)
    pairs = conflicting_pairs(manifest, found.edges, pictures.grey)
    label = dict(zip(manifest["path"], manifest["label"], strict=True))
    conflicts = conflict_table(pairs, label)
    assert set(conflicts["path"]) == {"with_helmet/3.jpg", "without_helmet/3_other_label.jpg"}
    assert "its copy" in conflicts["reason"].iat[0]
    html = conflicts_page(pairs, label, lambda path: load_rgb(DataParams(root=site), path))
    assert html.count("data:image/jpeg;base64,") == 2
    assert "3_other_label.jpg" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_of_whole_photographs_only_the_same_pixels_conflict(site):
    """A photograph that was cropped has lost boxes, and perhaps a class: neither label is wrong."""
    manifest, found, pictures = grouped(site)
    whole = manifest.assign(box_count=1)
    assert conflicting_pairs(whole, found.edges, pictures.grey) == []
    same = found.edges.assign(kind=found.edges["kind"].replace("near", "same pixels"))
    assert len(conflicting_pairs(whole, same, pictures.grey)) == 1


def test_the_next_shot_of_a_fixed_camera_is_grouped_but_no_conflict(tmp_path):
    room = scene(40, (640, 480))
    shots = {"with_helmet/a.jpg": with_worker(room, 1), "without_helmet/b.jpg": with_worker(room, 2)}
    strangers = {f"with_helmet/{i}.jpg": scene(i) for i in range(4)}
    write(tmp_path, {**shots, **strangers})
    manifest, found, pictures = grouped(tmp_path)
    group = found.groups.set_index("path")["group"]
    assert group["with_helmet/a.jpg"] == group["without_helmet/b.jpg"]
    assert not conflicting_pairs(manifest, found.edges, pictures.grey)


def test_a_copy_is_the_same_shot_and_two_crops_of_a_photograph_are_not():
    image = np.asarray(scene(5, (640, 480)).convert("L"))
    assert same_shot(image, np.ascontiguousarray(image[::2, ::2]))
    assert same_shot(image, np.ascontiguousarray(image[:, ::-1]))
    assert not same_shot(image[:, :400], image[:, 240:])


def table(**columns):
    size = len(next(iter(columns.values())))
    return pd.DataFrame({"path": [f"{i}.jpg" for i in range(size)], **columns})


def ends(edges):
    return {(e.a, e.b) for e in edges}


def test_images_that_share_a_value_are_tied_and_blanks_are_not():
    manifest = table(photo=["p", "", "p", None, "q", "p", ""], person=["", "", "", "Ann", "Ann", "", ""])
    assert ends(column_edges(manifest, ["photo", "video", "person"])) == {(0, 2), (2, 5), (3, 4)}


WORDS = ["nan", "NaN", "None", " none ", "-", "–", "unknown", "Unknown", "n/a", "N/A", "null", "<NA>", "?", "na"]


def test_words_for_nothing_tie_no_strangers_and_are_a_parameter():
    manifest = table(person=[*WORDS, *WORDS, "Ann", "Ann"])
    (tie,) = column_edges(manifest, ["person"])
    assert (tie.a, tie.b) == (len(manifest) - 2, len(manifest) - 1)
    assert len(column_edges(manifest, ["person"], blank_words=())) == 1 + len(WORDS)
    own = table(person=["Unbekannt", "unbekannt", "unbekannt", "nan", "nan"])
    assert ends(column_edges(own, ["person"], blank_words=["unbekannt"])) == {(3, 4)}
    missing = pd.DataFrame({"path": list("abc"), "person": [np.nan, None, np.nan]})
    assert column_edges(missing, ["person"]) == []
    # Cameras, too: shots of "unknown" are not of one camera.
    shots = table(captured_at=["2026-05-01T10:00:00"] * 4, camera=["unknown", "unknown", "c1", "c1"])
    assert ends(moment_edges(shots, "camera", 10)) == {(2, 3)}


@pytest.mark.parametrize(
    "word",
    [
        *(
            "N/A.",
            "n / a",
            "N.A",
            "‐",
            "‑",
            "‒",
            "―",
            "−",
            "－",
            "----",
            "——",
            "– –",
            "？",
            "？？",
            "…",
            "* *",
            "\u200b",
        ),
        *(
            "<unknown>",
            "[Unknown]",
            "'unknown'",
            "UNKNOWN?",
            "unknown ",
            "not  known",
            "Ｕｎｋｎｏｗｎ",
            "(null)",
            "none.",
        ),
        *("un\u200bknown", "#REF!", "\\N", "k.A.", "Not Set", "\xa0-\xa0", "未知", "\u3000"),
    ],
)
def test_a_word_for_nothing_is_one_in_any_dress(word):
    assert column_edges(table(person=[word, word]), ["person"]) == []


@pytest.mark.parametrize(
    "value", ["P-1", "-1", "0", "No. 7", "(3)", "a.", "unknown 2", "x", "none-such", "[a] [b]", "''"]
)
def test_a_value_in_brackets_or_with_marks_is_one(value):
    assert len(column_edges(table(person=[value, value]), ["person"])) == 1


def test_the_largest_groups_of_each_column_are_said():
    manifest = table(person=["Ann"] * 3 + ["Bob"] * 2 + ["nan", "", None], photo=[f"p{k}" for k in range(8)])
    photo, person = tied_by_column(manifest, ["photo", "video", "person"])
    assert (person.images, person.values, person.blank_words) == (5, 2, 1)
    assert person.largest == [("Ann", 3), ("Bob", 2)]
    assert sentence(person) == (
        "person: 2 values on 5 images, the largest Ann (3 images), Bob (2 images); 1 images have a word for no value, "
        "which ties nothing (group.blank_words)"
    )
    assert len(photo.largest) == 3


def test_shots_of_one_camera_close_in_time_are_tied():
    at = ["2026-05-01T10:00:00", "2026-05-01T10:00:04", "2026-05-01T10:00:30", "", "2026-05-01T10:00:05Z"]
    manifest = table(captured_at=at, camera=["n", "n", "n", "n", "s"])
    edges = moment_edges(manifest, "camera", 10)
    assert ends(edges) == {(0, 1)}
    assert edges[0].distance == 4
    assert not moment_edges(manifest, "camera", 0)


def test_a_time_that_is_none_is_named():
    manifest = table(captured_at=["2026-05-01", "yesterday"], camera=["n", "n"])
    with pytest.raises(UserError, match=r"1\.jpg: captured_at 'yesterday'"):
        moment_edges(manifest, "camera", 10)
    with pytest.raises(UserError, match="no column 'cam'"):
        moment_edges(manifest, "cam", 10)


def chain_of(size, weakest=7):
    edges = [Edge(i, i + 1, "near", 9, 0.60 if i == weakest else 0.95) for i in range(size - 1)]
    joined = Joined(40)
    for edge in edges:
        joined.union(edge.a, edge.b)
    return edges, joined.labels()


def test_a_chain_that_swallows_the_data_stops_the_run_and_names_its_weakest_link():
    edges, component = chain_of(20)
    paths = [f"{i}.jpg" for i in range(40)]
    with pytest.raises(UserError, match=r"20 of 40 images \(50%.*7\.jpg - 8\.jpg \(near, 9 bits, score 0\.60\)"):
        refuse_chain(paths, component, edges, [], 0.25)
    refuse_chain(paths, component, edges, [], 0.5)


@pytest.mark.slow
def test_the_radius_that_the_message_names_works_on_this_very_set(tmp_path):
    """Without evidence asked for, pictures of little detail chain: as 300 handwritten digits did."""
    digits = load_digits()
    for number in range(60):
        image = Image.fromarray((digits.images[number] * 15).astype(np.uint8))
        write(tmp_path, {f"{digits.target[number]}/{number}.png": image.resize((28, 28), Image.Resampling.BICUBIC)})
    lax = {"min_evidence": 0}
    with pytest.raises(UserError, match="images") as refused:
        grouped(tmp_path, **lax)
    named = re.search(r"group\.candidate_radius: (\d+) and group\.join_radius: (\d+)", str(refused.value))
    radii = {"candidate_radius": int(named[1]), "join_radius": int(named[2])}
    sizes = grouped(tmp_path, **lax, **radii)[1].groups["group"].value_counts()
    assert sizes.iloc[0] <= 15
    assert radii["candidate_radius"] < 16


def test_one_file_many_times_over_is_called_that(tmp_path):
    write(tmp_path, {f"a/{number}.jpg": scene(number) for number in range(18)})
    write(tmp_path, {f"b/same_{number:02}.jpg": scene(99) for number in range(12)})
    with pytest.raises(UserError, match=r"12 of 30 images \(40%.* one and the same picture, such as b/same_00\.jpg"):
        grouped(tmp_path)


def test_red_and_blue_helmets_in_the_same_scene_are_no_copies_and_no_conflict(tmp_path):
    for number in range(6):
        for label, colour in (("red", (220, 30, 30)), ("blue", (30, 60, 220))):
            write(tmp_path, {f"{label}/{number}.jpg": with_helmet(scene(number), colour)})
    # A helmet so small that the pictures are tied together, as shots of one scene: still no contradiction.
    for label, colour in (("red", (220, 30, 30)), ("blue", (30, 60, 220))):
        write(tmp_path, {f"{label}/small.jpg": with_helmet(scene(20), colour, 12)})
    manifest, found, _ = grouped(tmp_path)
    group = found.groups.set_index("path")["group"]
    assert all(group[f"red/{number}.jpg"] != group[f"blue/{number}.jpg"] for number in range(6))
    assert group["red/small.jpg"] == group["blue/small.jpg"]
    rgb = [load_rgb(DataParams(root=tmp_path), path) for path in manifest["path"]]
    assert not conflicting_pairs(manifest, found.edges, rgb.__getitem__)


def test_a_large_group_of_the_users_own_is_the_users_word():
    edges, component = chain_of(20)
    given = [Edge(i, i + 1, "video", 0, 1) for i in range(19)]
    refuse_chain([f"{i}.jpg" for i in range(40)], component, [], given, 0.25)
    refuse_chain([f"{i}.jpg" for i in range(40)], component, edges[:3], given, 0.25)
    with pytest.raises(UserError):
        refuse_chain([f"{i}.jpg" for i in range(40)], component, edges, given[:9], 0.25)


def test_bridges_are_the_weakest_links():
    square = [Edge(0, 1, "near", 1, 0.5), Edge(1, 2, "near", 1, 0.9), Edge(0, 2, "near", 1, 0.9)]
    bridge = Edge(2, 3, "near", 1, 0.8)
    assert weakest_links([*square, bridge])[0] == bridge


def test_random_weights_bring_no_neighbours_and_it_is_said(tmp_path):
    folder = tmp_path / "net"
    folder.mkdir()
    manifest = table(id=["a", "b"])
    np.save(folder / "features.npy", np.ones((2, 1, 3, 3, 5), np.float16))
    manifest[["path", "id"]].to_parquet(folder / "index.parquet")
    for origin, expected in (("random", None), ("imagenet", (2, 5))):
        (folder / "backbone.json").write_text(json.dumps(backbone_json(weights={**WEIGHTS, "origin": origin})))
        vectors, said = read_embeddings(folder, manifest)
        assert (None if vectors is None else vectors.shape) == expected
        assert origin in said
        assert ("SKIPPED" in said) is (expected is None)


def test_edges_keep_their_evidence_as_a_table():
    paths = np.array(["a.jpg", "b.jpg"], object)
    shown = edge_table(paths, [Edge(0, 1, "near", 3, 0.9)])
    assert shown.to_numpy().tolist() == [["a.jpg", "b.jpg", "near", 3.0, 0.9, True]]
    assert edge_table(paths, []).empty


def audit(*arguments, cwd):
    top = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "stages.group", "audit", "--no-embeddings", *map(str, arguments)],
        cwd=cwd,
        env={"PATH": "", "PYTHONPATH": str(top)},
        capture_output=True,
        text=True,
        check=False,
    )


class TestAudit:
    @pytest.fixture
    def folders(self, tmp_path):
        write(tmp_path, {f"train/{'ab'[i % 2]}/{i}.jpg": scene(i) for i in range(8)})
        write(tmp_path, {f"test/{'ab'[i % 2]}/{i}.jpg": scene(i + 50) for i in range(4)})
        return tmp_path

    @pytest.mark.slow
    def test_a_clean_split_exits_with_0(self, folders):
        done = audit("train", "test", cwd=folders)
        assert done.returncode == 0, done.stderr
        assert "no pair across the splits" in done.stdout
        assert (folders / "reports/audit.html").is_file()

    @pytest.mark.slow
    def test_a_copy_on_the_other_side_exits_with_1_and_is_named(self, folders):
        write(folders, {"test/a/stolen.jpg": scene(3).crop((10, 8, 310, 232))})
        done = audit("train", "test", "--page", "out/found.html", cwd=folders)
        assert done.returncode == 1
        assert "train/b/3.jpg - test/a/stolen.jpg" in done.stdout
        assert "stolen.jpg" in (folders / "out/found.html").read_text()
        assert '"pairs_across_splits": 1' in (folders / "out/found.json").read_text()

    @pytest.mark.slow
    def test_every_pair_is_in_a_table_with_what_to_drop(self, folders):
        write(folders, {"test/a/stolen.jpg": scene(3).crop((10, 8, 310, 232)), "test/b/again.png": scene(3)})
        write(folders, {"train/a/twin.jpg": scene(3).resize((300, 225))})
        done = audit("train", "test", cwd=folders)
        assert done.returncode == 1
        assert "2 pictures of train): reports/audit_pairs.csv" in done.stdout
        table = pd.read_csv(folders / "reports/audit_pairs.csv")
        drops = ["train/b/3.jpg", "train/a/twin.jpg"]
        expected = {(drop, keep) for drop in drops for keep in ("test/a/stolen.jpg", "test/b/again.png")}
        assert set(zip(table["drop"], table["keep"], strict=True)) == expected
        assert set(table["drop_from"]) == {"train"}
        assert table["score"].is_monotonic_decreasing
        for path in table["drop"].unique():
            (folders / path).unlink()
        done = audit("train", "test", "--pairs", "out/left.parquet", cwd=folders)
        assert done.returncode == 0, done.stdout
        assert pd.read_parquet(folders / "out/left.parquet").empty
        assert audit("train", "test", "--pairs", "left.txt", cwd=folders).returncode == 2

    @pytest.mark.slow
    def test_folders_without_classes_are_audited_too(self, folders):
        write(folders, {"flat_a/x.jpg": scene(1), "flat_a/y.jpg": scene(2), "flat_b/z.png": scene(1)})
        done = audit("flat_a", "flat_b", cwd=folders)
        assert done.returncode == 1
        assert "flat_a/x.jpg - flat_b/z.png" in done.stdout

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["train", "nowhere"], "nowhere is not a folder"),
            (["train"], "two or more"),
            (["train", "train"], "two or more"),
            (["train", "train/a"], "lies inside"),
            (["train", "empty"], "holds no picture"),
            ([], "FOLDER"),
        ],
    )
    def test_bad_input_exits_with_2_and_says_why(self, folders, arguments, said):
        (folders / "empty").mkdir()
        done = audit(*arguments, cwd=folders)
        assert done.returncode == 2
        assert said in done.stderr
        assert "Traceback" not in done.stderr
