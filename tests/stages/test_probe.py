"""A model that reads background or framing is caught by the probes, one that looks at the head is not."""

import json

import cv2
import numpy as np
import pandas as pd
import pytest
from recorded import backbone_json

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import write_record
from plumbline.evidence import probes
from plumbline.evidence import rules as gate
from plumbline.evidence.candidates import read_candidates
from plumbline.evidence.disturbances import (
    BOX,
    ProbeParams,
    conditions,
    disturb,
    disturbed_features,
    drawn_rows,
    elsewhere,
    extract_with,
    head_boxes,
    partners,
)
from plumbline.evidence.probing import head_mass, probe
from plumbline.models.candidates import Candidate
from plumbline.models.features import open_features
from plumbline.models.training import train

pytestmark = pytest.mark.slow

SIZE = 32
CLASSES = ["with_helmet", "without_helmet"]
HEAD = (0.25, 0.1, 0.75, 0.6)
PARAMS = ProbeParams(pictures=60, attention_pictures=20, zooms=(0.7, 1.3), head=HEAD)


def draw(rule: str, labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Heads before clutter (N, 32, 32, 3); what tells the label is the head's colour, the border's, or the zoom."""
    random = np.random.default_rng(seed)
    pictures = []
    for label in labels:
        tell = label if rule == "head" else random.integers(2)
        side = 48
        clutter = random.integers(60, 190, (12, 12, 3)).astype(np.uint8)
        picture = cv2.resize(clutter, (side, side), interpolation=cv2.INTER_NEAREST)
        colour = (230, 200, 40) if tell == 0 else (60, 40, 30)
        cv2.circle(picture, (side // 2, side // 2 - 4), 6, colour, -1)
        keep = 24 if rule == "zoom" and label else 40 if rule == "zoom" else 32
        start = (side - keep) // 2
        picture = picture[start : start + keep, start : start + keep]
        picture = cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        if rule == "border":
            picture[-5:] = picture[-5:] // 3 + (20, 20, 150) if label else picture[-5:] // 3 + (20, 150, 20)
        pictures.append(picture)
    return np.stack(pictures).astype(np.uint8)


def trained_on(rule: str, root) -> dict:
    """A small network trained on such pictures and probed as the stages do; returns its evaluated probes."""
    groups = np.repeat(np.arange(120), 2)
    labels = (groups // 5) % 2
    names = [f"{number:04d}.png" for number in range(len(groups))]
    table = pd.DataFrame({"path": names, "id": names, "label": np.asarray(CLASSES)[labels]})
    splits = table.assign(
        group=[f"g{g}" for g in groups], split=np.array(["train"] * 3 + ["validation", "test"])[groups % 5]
    )
    pictures = draw(rule, labels)
    folder = root / "build/features/pixels"
    folder.mkdir(parents=True)
    np.save(folder / "features.npy", pictures[:, None])
    table[["path", "id"]].to_parquet(folder / "index.parquet")
    backbone = backbone_json(image_size=SIZE, shape=[SIZE, SIZE, 3])
    (folder / "backbone.json").write_text(json.dumps(backbone))
    features = open_features(folder)
    settings = Candidate(
        architecture="lenet5",
        backbone="pixels",
        epochs=6,
        batch_size=16,
        learning_rate=0.003,
        early_stopping_patience=12,
    )
    network, history, predictions, model = train("x", settings, splits, features, 0)
    candidate = root / "build/candidates/x"
    candidate.mkdir(parents=True)
    network.save_weights(candidate / "head.weights.h5")
    history.to_csv(candidate / "history.csv", index=False)
    predictions.to_parquet(candidate / "predictions.parquet")
    write_record(candidate / "model.json", model)

    def read(paths, size):
        return (pictures[names.index(path)] for path in paths)

    rows = drawn_rows(splits, PARAMS)
    boxes = head_boxes(rows, table, PARAMS)
    disturbed = root / "build/disturbed/pixels"
    disturbed.mkdir(parents=True)
    values = disturbed_features(rows, boxes, read, extract_with(features), SIZE, PARAMS)
    np.save(disturbed / "features.npy", values)
    rows[["path", "id"]].assign(**dict(zip(BOX, boxes.T, strict=True))).to_parquet(disturbed / "index.parquet")
    (disturbed / artefacts.CONDITIONS).write_text(json.dumps(conditions(PARAMS)))
    answers, attention = probe(candidate, features, disturbed, read, PARAMS)
    out = root / "build/probes/x"
    out.mkdir(parents=True)
    answers.to_parquet(out / "answers.parquet")
    attention.to_parquet(out / "attention.parquet")
    found, _ = read_candidates(root / "build/candidates", ["x"])
    one = probes.read_probes(root / "build", found)["x"]
    return probes.evaluate_probe(one, found["x"].sample("test"), 500, 0)


@pytest.mark.parametrize(("rule", "fails"), [("head", set()), ("border", {"head", "background"}), ("zoom", {"zoom"})])
def test_what_a_model_learnt_to_read_is_told(rule, fails, tmp_path):
    found = trained_on(rule, tmp_path)
    assert found.right.value > 0.85, "it learnt what there was to learn"
    rules = {one.name.removeprefix("probe: "): one for one in gate.probe_rules(found, gate.Looks())}
    failed = {name for name, one in rules.items() if not one.passed}
    assert fails <= failed, {name: one.reason for name, one in rules.items()}
    if rule == "head":
        assert failed == set(), {name: one.reason for name, one in rules.items()}
        assert rules["head"].reason.startswith("covering the head changes")
    if rule == "border":
        assert "this model looks elsewhere" in rules["head"].reason
        assert "this model reads the background" in rules["background"].reason
    if rule == "zoom":
        assert "this model reads the framing" in rules["zoom"].reason


def test_null_switches_a_rule_off_and_what_was_not_probed_is_said():
    everything_off = gate.Looks(head=None, background=None, zoom=None, attention=None)
    assert gate.probe_rules(None, everything_off) == []
    rules = gate.probe_rules(None, gate.Looks(zoom=None))
    assert [rule.name for rule in rules] == ["probe: head", "probe: background"]
    assert {rule.reason for rule in rules} == {"not probed in this run, so not judged"}


def test_each_disturbance_leaves_what_it_should():
    random = np.random.default_rng(0)
    picture, other = random.integers(0, 256, (2, 100, 100, 3)).astype(np.uint8)
    box = np.array([0.3, 0.1, 0.7, 0.5])
    head, corner = np.s_[20:40, 40:60], np.s_[90:, 90:]
    shown = {name: disturb(picture, other, box, name) for name in conditions(ProbeParams(head_columns=tuple("abcd")))}
    for name in (probes.BLURRED, probes.SWAPPED, probes.ELSEWHERE):
        assert np.array_equal(shown[name][head], picture[head]), name
    assert np.array_equal(shown[probes.SWAPPED][corner], other[corner])
    assert shown[probes.BLURRED][corner].std() < 0.3 * picture[corner].std()
    assert (shown[probes.COVERED][head] == 127).all()
    assert np.array_equal(shown[probes.COVERED][corner], picture[corner])
    inside = elsewhere(box) * 100
    assert (shown[probes.ELSEWHERE][int(inside[1]) + 15 : int(inside[3]) - 15, 15:25] == 127).all()


def test_zoom_and_the_same_framing_put_the_head_where_they_say():
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[30:50, 60:80] = 255
    larger = np.argwhere(disturb(picture, picture, np.zeros(4), "zoom 1.3")[:, :, 0] > 127)
    assert larger.min(axis=0) == pytest.approx([24, 63], abs=1)
    assert np.ptp(larger, axis=0) == pytest.approx([25, 25], abs=1)
    framed = np.argwhere(disturb(picture, picture, np.array([0.6, 0.3, 0.8, 0.5]), probes.REFRAMED)[:, :, 0] > 127)
    assert framed.min(axis=0) == pytest.approx([15, 30], abs=1)
    assert framed.max(axis=0) == pytest.approx([55, 70], abs=1)


def test_a_background_comes_from_another_group_with_another_label():
    rows = pd.DataFrame({"label": list("aabbab"), "group": list("uvwwxy"), "path": list("123456")})
    lender = partners(rows, 0)
    assert all(rows["label"][lender] != rows["label"].to_numpy())
    with pytest.raises(UserError, match=r"build/splits\.parquet: of the test pictures .* than \d, .*probe\.pictures"):
        partners(rows[rows["label"] == "a"].reset_index(drop=True), 0)


def test_heads_come_from_metadata_where_it_knows_them():
    rows = pd.DataFrame({"path": ["a", "b"]})
    manifest = pd.DataFrame(
        {"path": ["b", "a"], "l": ["", "0.1"], "t": ["", "0.2"], "r": ["", "0.3"], "d": ["", "0.4"]}
    )
    params = ProbeParams(head=HEAD, head_columns=("l", "t", "r", "d"))
    assert head_boxes(rows, manifest, params) == pytest.approx(np.array([[0.1, 0.2, 0.3, 0.4], HEAD]))
    with pytest.raises(UserError, match="no box in shares of the picture"):
        head_boxes(rows, manifest.assign(r=["", "0.05"]), params)
    for wrong in ("0,3", "", "inf", "left"):
        with pytest.raises(UserError, match=rf"the head of a \(l, t, r, d\) is 0\.1, 0\.2, {wrong}, 0\.4: write four"):
            head_boxes(rows, manifest.assign(r=["", wrong]), params)
    with pytest.raises(UserError, match=r"probe\.head_columns names d"):
        head_boxes(rows, manifest.drop(columns="d"), params)


def test_grad_cams_mass_is_shared_out_by_area():
    heat = np.zeros((2, 4, 4), np.float32)
    heat[0, 0, 0] = 2.0
    table = head_mass(heat, np.array([[0.0, 0.0, 0.5, 0.5]] * 2))
    assert table["mass"][0] > 0.85
    assert np.isnan(table["mass"][1]), "nothing spoke there"
    assert table["area"][0] == pytest.approx(0.25, abs=0.03)
