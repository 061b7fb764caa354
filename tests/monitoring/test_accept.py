"""A person says that a window is fine: its pictures join the reference of later verdicts, until that is revoked."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from made_up import open_their_eyes, picture, promote, write_version
from PIL import Image

from monitoring import accept, drift
from monitoring.acceptance import Statement, in_force, keep_statement, read_statements
from monitoring.judge import strongest
from monitoring.looks import Known, Looks, read_classes, statistics_of
from monitoring.permutation import Found, p_values
from monitoring.reference import eyes_called
from monitoring.site_state import JOINED, STATEMENTS, SiteState
from plumbline.common.errors import UserError
from plumbline.registry.eyes import EyesRecord

GATE = "GATE"
TOP = Path(drift.__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def _without_evidently(monkeypatch):
    monkeypatch.setattr(drift, "keep_history", lambda *_: [])


# ------------------------------------------------------------------------------------------------------- statements


def statement(window: str, said: str = "accepted", **other: str) -> Statement:
    values = {"at": "2026-10-12T08:00:00+00:00", "by": "ana", "verdict": "DRIFT", "digest": "c0ffee", "eyes": "keen"}
    return Statement.model_validate({"window": window, "said": said, "version": 1, "images": 60, **values, **other})


def test_what_was_said_last_counts_and_nothing_said_is_ever_rewritten(tmp_path):
    said = [("0001", "accepted"), ("0002", "accepted"), ("0001", "revoked"), ("0003", "accepted"), ("0001", "accepted")]
    first = keep_statement(tmp_path, statement(*said[0]))
    before = first.read_bytes()
    for one in said[1:]:
        keep_statement(tmp_path, statement(*one))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"000{k}.json" for k in range(1, 6)]
    assert first.read_bytes() == before
    found = read_statements(tmp_path)
    assert [(one.window, one.said) for one in found] == said
    assert list(in_force(found)) == ["0002", "0003", "0001"]
    assert list(in_force(found[:3])) == ["0002"]


def test_statements_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("9999", "10000"):
        (tmp_path / f"{name}.json").write_text(json.dumps(statement(name).content()))
    assert keep_statement(tmp_path, statement("0001", "revoked")).name == "10001.json"
    assert [one.window for one in read_statements(tmp_path)] == ["9999", "10000", "0001"]


def test_a_damaged_statement_is_named_with_the_way_out(tmp_path):
    keep_statement(tmp_path, statement("0001"))
    (tmp_path / "0002.json").write_text('{"window": "0002"}')
    with pytest.raises(UserError, match=r"0002\.json can't be read \(said: Field required\): restore it, or remove it"):
        read_statements(tmp_path)


def test_eyes_are_called_by_what_they_see():
    theirs = EyesRecord(
        network="mobilenet_v2", origin="imagenet", sha256="ab", image_size=224, through="its own network"
    )
    same = theirs.model_copy(update={"through": "the champion's, which is the same network"})
    assert eyes_called(theirs) == eyes_called(same), "the same weights, whoever brings them"
    assert eyes_called(theirs) != eyes_called(theirs.model_copy(update={"sha256": "cd"}))
    unnamed = theirs.model_copy(update={"sha256": None})
    assert eyes_called(unnamed) != eyes_called(unnamed.model_copy(update={"through": same.through}))


# ----------------------------------------------------------------------------------------------------------- kinds


def looks(seed: int, images: int, kind: float = 0.0, moved: float = 0.0) -> tuple[Looks, np.ndarray]:
    """Pictures of two classes; `kind` shifts one direction of what is seen, `moved` another."""
    import pandas as pd

    random = np.random.default_rng(seed)
    labels = np.arange(images) % 2
    seen = random.normal(size=(images, 24)) + 4 * labels[:, None] * np.eye(24)[0]
    seen += kind * np.eye(24)[1] + moved * np.eye(24)[2]
    return Looks(pd.DataFrame({"brightness": random.random(images)}), seen, None, np.arange(images)), labels


def known(accepted: int = 60, kinds: bool = True) -> Known:
    """200 pictures of the data set, and accepted ones that looked different."""
    (ours, labels), (theirs, _) = looks(0, 200), looks(1, accepted, kind=4.0)
    both = Looks(ours.measures, np.concatenate([ours.seen, theirs.seen]), None, np.arange(200 + accepted))
    both = Looks(looks(2, 200 + accepted)[0].measures, both.seen, None, both.groups)
    numbers = np.repeat([0, 1], [200, accepted])
    return Known(both, np.concatenate([labels, np.full(accepted, -1)]), numbers if kinds else None)


def smallest(reference: Known, window: Looks) -> float:
    layout, statistics = statistics_of(reference, [window], ["brightness"])
    return min(one.adjusted for one in p_values(layout, statistics, (1,), 999).values())


def test_a_window_like_the_accepted_ones_differs_from_the_mixture_but_not_within_its_kind():
    again = [looks(seed, 60, kind=4.0)[0] for seed in range(10, 15)]
    assert max(smallest(known(kinds=False), one) for one in again) <= 0.002, "joining alone would change nothing"
    found = [smallest(known(), one) for one in again]
    assert min(found) > 0.05, found


def test_windows_like_the_data_set_or_partly_like_accepted_ones_stay_as_they_were():
    plain = [smallest(known(), looks(seed, 60)[0]) for seed in range(20, 23)]
    assert min(plain) > 0.01, plain
    (ours, _), (theirs, _) = looks(30, 60), looks(31, 30, kind=4.0)
    half = Looks(looks(32, 90)[0].measures, np.concatenate([ours.seen, theirs.seen]), None, np.arange(90))
    assert smallest(known(), half) > 0.05


def test_another_change_is_found_beside_the_accepted_one():
    assert smallest(known(), looks(40, 60, kind=4.0, moved=2.0)[0]) <= 0.002
    assert smallest(known(), looks(41, 60, moved=2.0)[0]) <= 0.002


def test_the_reference_is_thinned_to_the_mix_that_a_window_shows():
    def compared(window: Looks) -> tuple[int, int]:
        layout, _ = statistics_of(known(), [window], ["brightness"])
        groups = np.unique(layout.group[layout.age == 0])
        assert len(groups) == np.sum(layout.age == 0)
        return int(np.sum(layout.age == 0)), int(np.sum(layout.age == 1))

    assert compared(looks(10, 60, kind=4.0)[0]) == (60, 60)
    assert compared(looks(40, 60)[0])[0] >= 200


def test_pools_that_were_tested_apart_are_corrected_for_their_number():
    pools = [{"a": Found(0.01, 0.02, 1), "b": Found(0.5, 0.6, 1)}, {"a": Found(0.2, 0.3, 3), "b": Found(0.01, 0.01, 3)}]
    assert strongest(pools) == {"a": Found(0.01, 0.04, 1), "b": Found(0.01, 0.02, 3)}


def test_a_picture_without_a_label_is_read_and_not_learnt_from():
    ours, labels = looks(3, 100)
    hidden = np.where(np.arange(100) < 60, labels, -1)
    fold = np.arange(100) % 5
    read = read_classes(ours.seen, hidden, fold, ours.seen[:5], np.arange(5))
    assert set(read) == {0, 1}
    assert np.mean(read[60:100] == labels[60:]) > 0.9


# --------------------------------------------------------------------------------------------------------- a site


def lighter(seed: int, label: int, by: int = 60) -> bytes:
    """A picture in a light that the champion doesn't mind: the difference of its halves is the same."""
    pixels = np.asarray(Image.open(io.BytesIO(picture(seed, label)))).astype(int)
    out = io.BytesIO()
    Image.fromarray(np.clip(pixels + by * np.array([1, 0, 0]), 0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def send(site, window: int, count: int = 60, by: int = 0) -> dict:
    """Have the site send a window of pictures, redder by so many grey levels, and judge it."""
    for number in range(count):
        seed = 10_000 + 500 * window + number
        site.send(GATE, f"{window}/{number}.jpg", lighter(seed, number % 2, by))
    drift.main([GATE])
    return state().result(state().windows()[-1])


def state() -> SiteState:
    return SiteState(Path("drift"), GATE)


def plumbline(*arguments: str) -> tuple[int, str, str]:
    """Run the real command in the current folder."""
    done = subprocess.run(
        [sys.executable, "-m", "plumbline.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TOP), "COLUMNS": "100", "TERM": "dumb"},
    )
    return done.returncode, done.stdout, done.stderr


def contents(root: Path) -> dict[str, bytes]:
    """Every file below `root` but locks."""
    return {str(path): path.read_bytes() for path in root.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.slow
def test_an_accepted_window_joins_the_reference_and_its_like_is_no_drift_any_more(site):
    (site.root / "params.yaml").write_text((site.root / "params.yaml").read_text().replace("999", "1999"))
    first = send(site, 0, by=60)
    assert first["verdict"] == "DRIFT"
    assert (first["accepted"], first["basis"][-12:]) == ({"windows": [], "images": 0}, "in the reference"[-12:])
    stored = contents(Path("drift/GATE/windows"))
    began = datetime.now(UTC).replace(microsecond=0)
    code, out, err = plumbline("drift", "accept", "--reason", "new <lamps>", GATE, "0001")
    assert (code, err) == (0, "")
    assert out == "GATE: window 0001 is accepted: what its 60 pictures look like joined the reference of GATE\n"
    assert contents(Path("drift/GATE/windows")) == stored, "what was judged stays as it was"
    said = state().accepted()["0001"]
    assert (said.verdict, said.version, said.images, said.reason) == ("DRIFT", 1, 60, "new <lamps>")
    assert said.by
    assert began <= datetime.fromisoformat(said.at) <= datetime.now(UTC)
    page = Path("reports/drift/index.html").read_text()
    assert f"Window 0001 was accepted {said.at[:10]}" in page
    assert "new &lt;lamps&gt;" in page
    again = send(site, 1, by=60)
    assert again["verdict"] != "DRIFT", again["reasons"]
    assert again["accepted"] == {"windows": ["0001"], "images": 60}
    assert again["basis"].endswith("against 210 images of 135 in the reference, 60 of them accepted at this site")
    recorded = drift.record_of([again])["sites"][GATE]
    assert recorded["accepted_images"] == 60
    assert send(site, 2, by=-60)["verdict"] == "DRIFT", "another change is found as ever"
    code, out, err = plumbline("drift", "accept", "--revoke", GATE, "0001")
    assert (code, err) == (0, "")
    assert "is no longer accepted" in out
    assert "accepted 2" not in Path("reports/drift/index.html").read_text()
    last = send(site, 3, by=60)
    assert (last["verdict"], last["accepted"]["images"]) == ("DRIFT", 0)
    assert [one.said for one in read_statements(Path("drift/GATE") / STATEMENTS)] == ["accepted", "revoked"]


@pytest.mark.slow
def test_accepted_windows_are_no_evidence_and_outlast_what_is_forgotten(site, monkeypatch):
    monkeypatch.setattr(drift, "POOLS", (1, 4))
    digest = {send(site, window)["champion"]["digest"] for window in range(3)}.pop()
    assert len(list(state().looks_before(digest))) == 3
    for window in ("0003", "0002"):
        drift_of_it = state().result(window)["verdict"]
        assert drift_of_it != "DRIFT"
        accept.main([GATE, window])
    assert [len(one) for one in state().looks_before(digest)] == [60], "0001 is what is left of evidence"
    result = send(site, 3)
    assert result["accepted"] == {"windows": ["0003", "0002"], "images": 120}
    assert {test["windows"] for test in result["tests"]} <= {1, 2}
    for window in (4, 5, 6):
        send(site, window)
    assert not Path("drift/GATE/windows/0001/looks.npz").exists()
    shutil.rmtree("drift/GATE/windows/0002")
    shutil.rmtree("incoming/GATE/1")  # else its pictures are new once more
    assert send(site, 7)["accepted"] == {"windows": ["0003", "0002"], "images": 120}, "it outlasts its window"
    accept.main(["--revoke", GATE, "0002"])
    with pytest.raises(UserError, match="GATE has no judged window '0002'"):
        accept.main(["--revoke", GATE, "0002"])
    shutil.rmtree(f"drift/GATE/{JOINED}/0003")
    with pytest.raises(UserError, match=r"0003/looks\.npz is missing, of an accepted window.*--revoke GATE 0003"):
        send(site, 8)


@pytest.mark.slow
def test_what_can_not_be_accepted_is_one_sentence_and_nothing_is_changed(site, monkeypatch):
    send(site, 0)
    for number in range(9):
        site.send(GATE, f"few/{number}.jpg", picture(90_000 + number, 0))
    drift.main([GATE])
    Path("drift/GATE/windows/0002").mkdir()
    outside = sorted(site.root.parent.iterdir())
    before = contents(site.root)
    mistakes = {
        (GATE, "0002"): "GATE has no judged window '0002': it has 0001 to 0001",
        (GATE, "1"): "GATE has no judged window '1'",
        (GATE, "../../GATE/windows/0001"): "GATE has no judged window '../../GATE/windows/0001'",
        ("../GATE", "0001"): "'../GATE' can't be a site's name",
        ("YARD", "0001"): "YARD has no judged window '0001': none is in drift/YARD",
        ("--revoke", GATE, "0001"): "Window 0001 of GATE is not accepted: there is nothing to revoke",
        ("--revoke", "../..", "0001"): "'../..' can't be a site's name",
    }
    for arguments, why in mistakes.items():
        code, out, err = plumbline("drift", "accept", *arguments)
        assert (code, out, err.startswith(f"error: {why}"), len(err.splitlines())) == (3, "", True, 1), (arguments, err)
    assert contents(site.root) == before
    assert sorted(site.root.parent.iterdir()) == outside
    assert not Path("drift/YARD").exists()
    accept.main([GATE, "0001"])
    before = contents(Path("drift"))
    with pytest.raises(UserError, match=r"Window 0001 of GATE was accepted 2.*`plumbline drift accept --revoke` takes"):
        accept.main([GATE, "0001"])
    accept.main(["--revoke", GATE, "0001"])
    Path("drift/GATE/windows/0001/looks.npz").unlink()
    accept.main([GATE, "0001"])
    accept.main(["--revoke", GATE, "0001"])
    shutil.rmtree(f"drift/GATE/{JOINED}/0001")
    with pytest.raises(UserError, match=r"What drift's eyes saw of window 0001 of GATE is not kept"):
        accept.main([GATE, "0001"])
    assert state().accepted() == {}
    assert not Path(f"drift/GATE/{JOINED}/0001").exists()


@pytest.mark.slow
def test_a_killed_acceptance_is_none_and_can_be_said_again(site, monkeypatch):
    send(site, 0)

    def dies(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SiteState, "say", dies)
        with pytest.raises(KeyboardInterrupt):
            accept.main([GATE, "0001"])
    assert state().accepted() == {}
    assert send(site, 1)["accepted"]["images"] == 0
    accept.main([GATE, "0001"])
    assert state().accepted()["0001"].images == 60


@pytest.mark.slow
def test_a_new_champion_keeps_what_the_same_eyes_saw_and_says_what_others_did(site, registries, monkeypatch, tmp_path):
    shutil.copytree(Path(registries[True].removeprefix("sqlite:///")).parent, tmp_path / "own")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own/mlflow.db")
    send(site, 0)
    accept.main([GATE, "0001"])
    send(site, 1)
    write_version(tmp_path / "second", first_seed=500)
    open_their_eyes(tmp_path / "second")
    promote(tmp_path / "second")
    with pytest.raises(UserError, match="Window 0002 of GATE was judged by version 1, and version 2 is champion"):
        accept.main([GATE, "0002"])
    result = send(site, 2)
    assert (result["champion"]["version"], result["accepted"]["images"], result["notes"]) == (2, 60, [])
    write_version(tmp_path / "third", first_seed=700)
    open_their_eyes(tmp_path / "third", own=False)
    promote(tmp_path / "third")
    result = send(site, 3)
    assert (result["champion"]["version"], result["accepted"]["images"]) == (3, 0)
    assert result["notes"] == [
        "Accepted and no part of the reference, since other eyes than this version's saw their pictures: windows 0001."
    ]
    accept.main(["--revoke", GATE, "0001"])
    assert send(site, 4)["notes"] == []


@pytest.mark.slow
def test_without_eyes_of_its_own_nothing_can_join(project, registered):
    project.send_many(GATE, 10_000, 60)
    drift.main([GATE])
    with pytest.raises(UserError, match="Version 1 brings no eyes of its own for drift"):
        accept.main([GATE, "0001"])
    assert not Path("drift/GATE", STATEMENTS).exists()


@pytest.mark.slow
def test_accepted_images_are_bounded_the_newest_first(site):
    params = site.root / "params.yaml"
    params.write_text(params.read_text().replace("drift: {", "drift: {most_images: 100, "))
    for window in range(2):
        send(site, window)
        accept.main([GATE, f"000{window + 1}"])
    result = send(site, 2)
    assert result["accepted"] == {"windows": ["0002"], "images": 60}
    assert "Of accepted windows the oldest 1 are left out: drift.most_images is 100." in result["notes"]


@pytest.mark.slow
def test_sites_called_like_commands_are_judged_and_the_short_form_stays(site):
    for name in (GATE, "accept"):
        for number in range(9):
            site.send(name, f"{number}.jpg", picture(10_000 + number, 0))
    for arguments in (["drift", GATE], ["drift", "judge", "accept"], ["drift", "--", "accept"]):
        code, out, err = plumbline(*arguments)
        assert (code, out.startswith(f"{arguments[-1]}: NOT ENOUGH IMAGES")) == (2, True), (arguments, err)
    code, out, _ = plumbline("drift", "--help")
    assert code == 0
    assert {"judge", "accept"} <= {line.split()[0] for line in out.split("Commands:")[1].splitlines() if line.strip()}
