"""A compressed candidate beside its original, on the frontier or not, and chosen where gate.prefer asks for it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from fabricated import predictions, split_table, write_candidate, write_project

from plumbline.common.errors import UserError
from plumbline.evidence.candidates import read_candidate
from plumbline.evidence.compressed import against_original, frontier, paired
from plumbline.evidence.intervals import draw_weights
from plumbline.evidence.rules import cost_of
from plumbline.evidence.slices import Slicing
from plumbline.models.records import Cost
from plumbline.pages.compressed_card import make_compressed_card, sides
from stages import evaluate, gate, leaderboard, race

SPEED = {"one_ms": 2.0, "sixteen_ms": 16.0}
SLOWER = {"one_ms": 5.0, "sixteen_ms": 64.0}


def compress(folder, of, share=0.25):
    """Make the candidate of `folder` a copy of `of`, with a quarter of its bytes and two and a half times its speed."""
    model, cost = json.loads((folder / "model.json").read_text()), json.loads((folder / "cost.json").read_text())
    original = 4 * model["parameters"]
    made = {"of": of, "how": "int8", "recipe": "int8, per channel, min-max"}
    made |= {"bytes": round(share * original), "original_bytes": original}
    (folder / "model.json").write_text(json.dumps(model | {"compressed": made}))
    (folder / "cost.json").write_text(json.dumps(cost | {"speed": SPEED, "original_speed": SLOWER}))


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A candidate and its copy, which errs on some more pictures; where the original is right and it is not."""
    root, table = tmp_path_factory.mktemp("pair"), predictions(split_table(), 3.0)
    flipped = table.copy()
    test = np.flatnonzero((table["split"] == "test").to_numpy())
    lost = test[:: len(test) // 4][:4]
    flipped.loc[lost, ["p_with_helmet", "p_without_helmet"]] = table.loc[
        lost, ["p_without_helmet", "p_with_helmet"]
    ].to_numpy()
    for name, rows in (("one", table), ("one_int8", flipped)):
        write_candidate(root / name, rows, 1000)
    compress(root / "one_int8", "one")
    return read_candidate(root / "one"), read_candidate(root / "one_int8"), lost


def test_what_a_copy_lost_is_paired_by_picture(pair):
    original, copy, lost = pair
    sample = original.sample("test")
    draws = draw_weights(sample.codes, 300, 0)
    column = np.where(np.arange(len(sample.truth)) % 2, "odd", "even").astype(object)
    found = against_original(copy, original, [Slicing("side", column)], draws, 5)
    right = sample.right
    gain = copy.sample("test").right.astype(float) - right
    assert found.of == "one"
    assert found.agreement.value == pytest.approx(1 - len(lost) / len(right))
    assert found.accuracy.value == pytest.approx(gain.mean())
    assert found.accuracy.low < found.accuracy.value < found.accuracy.high
    assert {part.value: part.accuracy.value for part in found.slices} == pytest.approx(
        {"even": gain[::2].mean(), "odd": gain[1::2].mean()}
    )
    shares = sample.truth.mean(axis=0)
    together = sum(share * found.by_class[name].value for share, name in zip(shares, copy.classes, strict=True))
    assert together == pytest.approx(gain.mean()), "the classes' recalls make up the accuracy"
    assert against_original(copy, original, [Slicing("side", column)], draws, 10_000).slices == ()


def test_a_card_shows_the_pictures_that_are_answered_otherwise(pair):
    original, copy, lost = pair

    def pictures(paths, size):
        return (np.full((size, size, 3), 90, np.uint8) for _ in paths)

    page = make_compressed_card(original, copy, Cost(speed=copy.speed, original_speed=copy.original_speed), pictures)
    assert f"{len(lost)} of {len(original.sample('test').truth)} test pictures get another answer than from one" in page
    right = original.sample("test").right
    assert page.count("now taken for") == sum(
        right[np.searchsorted(original.sample("test").paths, path_of(original, lost))]
    )
    assert [side.agreement for side in sides(original, copy)[:2]] == [1.0, 1.0]
    with pytest.raises(UserError, match="one and one were not asked about the same pictures"):
        make_compressed_card(original, original, Cost(), pictures)


def path_of(candidate, rows):
    return candidate.table["path"].to_numpy()[rows]


def test_two_that_agree_on_all_have_not_shown_that_they_always_do():
    codes = np.arange(50)
    found = paired(np.zeros(50), np.full(50, True), codes, draw_weights(codes, 100, 0))
    assert (found.value, found.high) == (0.0, pytest.approx(1.96 / 50, rel=1e-3))


def test_the_frontier_is_who_nobody_beats_in_everything():
    figures = {"exact": (0.1, 9.0), "small": (0.2, 3.0), "both": (0.1, 3.0), "twin": (0.1, 3.0), "worse": (0.3, 4.0)}
    assert frontier(figures) == {"both", "twin"}
    assert frontier({name: figures[name] for name in ("exact", "small", "worse")}) == {"exact", "small"}


def test_what_is_preferred_orders_the_candidates(pair):
    original, copy, _ = pair
    assert cost_of(original, "accuracy", {}) == cost_of(copy, "accuracy", {}) == (1000,)
    assert (cost_of(original, "size", {}), cost_of(copy, "size", {})) == ((4000,), (1000,))
    assert cost_of(copy, "latency", {"one_int8": 2.5}) == (2.5,)
    with pytest.raises(UserError, match="did not measure how fast one is"):
        cost_of(original, "latency", {"one_int8": 2.5})


def decided(root, monkeypatch, **settings):
    monkeypatch.chdir(root)
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["gate"] |= settings
    (root / "params.yaml").write_text(yaml.safe_dump(params))
    race.main()
    gate.main()
    leaderboard.main()
    return json.loads((root / "build/decision.json").read_text()), (root / "reports/leaderboard.html").read_text()


@pytest.mark.slow
def test_the_smallest_is_taken_where_it_is_asked_for_and_the_page_shows_both(tmp_path, monkeypatch):
    write_project(tmp_path, {"one": 4.0, "one_int8": 4.0}, groups=400)
    candidates = tmp_path / "build/candidates"
    model, table = candidates / "one/model.json", candidates / "one/predictions.parquet"
    (candidates / "one_int8/predictions.parquet").write_bytes(table.read_bytes())
    copied = json.loads(model.read_text()) | {"candidate": "one_int8"}
    (candidates / "one_int8/model.json").write_text(json.dumps(copied))
    compress(candidates / "one_int8", "one")
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params |= {"candidates": {"one": {}}, "compressed": {"one_int8": {"of": "one", "backbone": "pixels"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    evaluate.main()
    entry = json.loads((tmp_path / "build/evaluation.json").read_text())["candidates"]["one_int8"]
    assert entry["original"]["agreement"]["value"] == 1.0
    plain, page = decided(tmp_path, monkeypatch, margin=0.05)
    assert (plain["candidate"], "prefer" in plain) == ("one", False)
    section = page[page.index('id="smaller"') :]
    assert section.count(">frontier<") == 1
    assert section.index("one_int8 <span") < section.index(">frontier<")
    small, page = decided(tmp_path, monkeypatch, margin=0.05, prefer="size")
    assert (small["candidate"], small["prefer"]) == ("one_int8", "size")
    assert "one_int8 is the most accurate candidate, and no other of the finalists is smaller" in page


@pytest.mark.slow
def test_a_copy_whose_accuracy_collapsed_fails_the_gate_for_it(tmp_path, monkeypatch):
    write_project(tmp_path, {"one_int8": 0.0})
    compress(tmp_path / "build/candidates/one_int8", "one")
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params |= {"candidates": {"one": {}}, "compressed": {"one_int8": {"of": "one", "backbone": "pixels"}}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.chdir(tmp_path)
    evaluate.main()
    found, _ = decided(tmp_path, monkeypatch)
    assert found["verdict"] == "REJECT"
    accuracy = next(rule for rule in found["rules"] if rule["name"] == "accuracy")
    assert not accuracy["passed"]
    assert "is not above the floor" in accuracy["reason"]
