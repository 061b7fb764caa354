"""Sites judged through drift's own eyes: a larger reference, windows together, and what is said without them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from made_up import PARAMS

from monitoring import drift
from monitoring.reference import load_reference
from monitoring.site_state import LOOKS, EarlierLooks, MeasuredImages, SiteState
from plumbline.leakage.groups import GroupParams
from plumbline.models.export import Embedder
from plumbline.registry import versions as registry

pytestmark = pytest.mark.slow

GATE = "GATE"


@pytest.fixture(autouse=True)
def _without_evidently(monkeypatch):
    monkeypatch.setattr(drift, "keep_history", lambda *_: [])


def judged(*arguments: str) -> dict:
    drift.main([GATE, *arguments])
    state = SiteState(Path("drift"), GATE)
    return state.result(state.windows()[-1])


def test_a_window_is_compared_with_all_the_data_set_through_eyes(site):
    site.send_many(GATE, 10_000, 60)
    result = judged()
    assert result["verdict"] == "OK"
    assert result["basis"].endswith("against 150 images of 75 in the reference")
    assert "places" in {test["name"] for test in result["tests"]}
    assert result["notes"] == []
    with np.load(f"drift/{GATE}/windows/0001/{LOOKS}") as kept:
        assert kept["seen"].shape == (60, 48)
        assert kept["seen"].dtype == np.float16
    champion = drift.load_champion("plumbline")
    assert isinstance(champion.eyes, Embedder)


def test_what_no_window_shows_is_drift_after_a_few_and_then_evidence_begins_anew(site):
    (site.root / "params.yaml").write_text(PARAMS.replace("4999, horizon: 10", "999, horizon: 5, minimum_images: 30"))
    verdicts = []
    for window in range(4):
        site.send_many(GATE, 10_400 + 100 * window, 40, folder=f"{window}/", dark=0.98)
        result = judged()
        verdicts.append(result["verdict"])
        if "DRIFT" in verdicts:
            break
    assert verdicts[0] != "DRIFT"
    assert verdicts[-1] == "DRIFT"
    assert {test["windows"] for test in result["tests"]} > {1}
    state = SiteState(Path("drift"), GATE)
    assert list(state.looks_before(result["champion"]["digest"])) == []


def test_a_champion_that_is_the_same_network_looks_once(site, registries, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registries[False])
    site.send_many(GATE, 10_000, 60)
    result = judged()
    assert result["basis"].endswith("against 150 images of 75 in the reference")
    assert drift.load_champion("plumbline").eyes is None


def test_without_eyes_it_says_what_it_may_not_see(project):
    project.send_many(GATE, 10_000, 60)
    result = judged()
    (note,) = result["notes"]
    assert note.startswith("The champion's version brings no network for drift, as new ones do.")
    assert "nor dirt on a lens" in note
    assert not Path(f"drift/{GATE}/windows/0001/{LOOKS}").exists()


def test_served_pictures_are_judged_through_the_champion_and_it_says_so(site):
    champion = drift.load_champion("plumbline")
    assert drift.blind(champion.reference, []) == []
    (note,) = drift.blind(champion.reference, None)
    assert note.startswith("Pictures that were served and not kept can't be looked at by mobilenet_v2.")


def test_only_the_newest_windows_keep_what_was_seen(site, monkeypatch):
    monkeypatch.setattr(drift, "POOLS", (1, 3))
    for window in range(4):
        site.send_many(GATE, 10_000 + 100 * window, 50, folder=f"{window}/")
        judged()
    kept = sorted(path.parent.name for path in Path(f"drift/{GATE}/windows").glob(f"*/{LOOKS}"))
    assert kept == ["0003", "0004"]


class Earlier:
    """A site whose earlier windows are these."""

    def __init__(self, *windows: EarlierLooks) -> None:
        self.windows = windows

    def looks_before(self, _: str):
        yield from self.windows


def test_images_of_a_video_that_goes_on_count_in_its_newest_window_only():
    random = np.random.default_rng(0)

    def window(first: int) -> EarlierLooks:
        videos = ["goes on"] * 4 + [f"{first + number}" for number in range(16)]
        table = pd.DataFrame({"path": videos, "video": videos, "brightness": random.random(20)})
        table["phash"] = random.integers(0, 2**63, 20).astype(np.uint64)
        return EarlierLooks(table, random.normal(size=(20, 8)), random.integers(0, 255, (20, 18, 24)).astype(np.uint8))

    new, before = window(0), window(100)
    arrays = {"seen": new.seen, "small": new.small}
    champion = SimpleNamespace(digest="x")
    settings = SimpleNamespace(group=GroupParams())
    found = drift.looks_of(
        Earlier(before),
        champion,
        new.table,
        MeasuredImages(new.table, arrays),
        settings,
        "metadata.csv",
        {"0001": window(200), "0002": before},
    )
    assert [len(one) for one in found.windows] == [20, 16]
    assert [len(set(one.groups)) for one in found.windows] == [17, 16]
    np.testing.assert_array_equal(found.windows[1].seen, before.seen[4:])
    assert {name: len(one) for name, one in found.accepted.items()} == {"0001": 16}, "and none of what is evidence"


def test_the_eyes_of_a_version_are_read_back(site):
    version = registry.load_version()
    reference = load_reference(version)
    assert (reference.eyes.network, reference.eyes.through) == ("mobilenet_v2", "its own network")
    assert len(reference.through_eyes.looks) == 150
    assert len(reference.observations) == 90
    assert reference.through_eyes.labels.min() >= 0
