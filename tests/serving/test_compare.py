"""Champion against challenger: looking every day must not raise the error, and a real difference must be found."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from running import Project, until

from plumbline.common.served import Labelled, accuracy_by_day, labelled
from plumbline.evidence.betting import bet, capital
from plumbline.registry.trial import read_verdict
from serving.compare import compare, pairs_of
from serving.record import Labels, Recorder, answer_row

ALPHA = 0.05


def differences(random, count, better, worse):
    """Pairs that are +1 with chance `better`, -1 with chance `worse`."""
    return random.choice([1, -1, 0], count, p=[better, worse, 1 - better - worse])


@pytest.mark.parametrize("chance", [0.02, 0.1, 0.4])
def test_two_equals_are_seldom_told_apart_though_one_looks_after_every_pair(chance):
    """Ville's inequality: at most 5% of runs may ever settle; a t-test looked at as often would in a third of them."""
    random = np.random.default_rng(0)
    runs = [differences(random, 1000, chance, chance).astype(float) for _ in range(400)]
    settled = sum(max(capital(run, 0.0).max(), capital(-run, 0.0).max()) >= 2 / ALPHA for run in runs)
    peeked = 0
    for run in runs:
        n = np.arange(1, len(run) + 1)
        mean = np.cumsum(run) / n
        spread = np.sqrt(np.maximum(np.cumsum(run**2) / n - mean**2, 1e-9) / n)
        peeked += bool((np.abs(mean / spread)[20:] > 1.96).any())
    assert settled <= 0.05 * len(runs) + 3 * np.sqrt(0.05 * 0.95 * len(runs))
    assert peeked > 0.2 * len(runs)  # what it protects from


def test_a_real_difference_is_found_on_the_right_side():
    random = np.random.default_rng(1)
    for _ in range(5):
        pairs = differences(random, 1000, 0.12, 0.04)
        assert bet(pairs, ALPHA).better >= 2 / ALPHA
        assert bet(-pairs, ALPHA).worse >= 2 / ALPHA
        assert bet(pairs, ALPHA).worse < 2 / ALPHA


@pytest.mark.slow
def test_the_interval_holds_the_truth_at_every_look():
    random = np.random.default_rng(2)
    missed = 0
    for _ in range(40):
        pairs = differences(random, 400, 0.25, 0.1)
        looks = [bet(pairs[:n], ALPHA) for n in (10, 50, 150, 400)]
        missed += any(not look.low <= 0.15 <= look.high for look in looks)
        assert all(look.low <= look.high for look in looks)
    assert missed <= 5


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([-1, 0, 1]), max_size=60))
def test_the_sides_are_treated_alike_and_more_pairs_never_take_evidence_back(pairs):
    found, other = bet(pairs, ALPHA), bet([-one for one in pairs], ALPHA)
    assert (found.better, found.worse) == pytest.approx((other.worse, other.better))
    assert (found.low, found.high) == pytest.approx((-other.high, -other.low))
    shorter = bet(pairs[:-1], ALPHA)
    assert shorter.better <= found.better * (1 + 1e-9)
    assert shorter.low <= found.low


def test_pairs_are_the_same_picture_or_one_of_each():
    def answer(number, identity, role, right):
        return Labelled(number, identity, role, right)

    both = [answer(1, "a", "challenger", True), answer(1, "a", "champion", False), answer(2, "b", "champion", True)]
    assert pairs_of(both) == ([1], "same picture")
    apart = [answer(1, "a", "champion", True), answer(2, "b", "champion", True), answer(3, "c", "challenger", False)]
    assert pairs_of(apart) == ([-1], "one of each")


def test_the_last_label_counts_for_accuracy_and_comparison_alike(tmp_path):
    path = tmp_path / "record.sqlite"
    recorder, labels = Recorder(path), Labels(path)
    for role, version, label in (("champion", 1, "yes"), ("challenger", 2, "no")):
        content = {"softmax": {"yes": 0.5, "no": 0.5}, "labels": [label], "confidence": 0.5, "unsure": True}
        recorder.keep(answer_row("a", role, version, "d", "c", "p", content))
    recorder.close()
    for label, difference, right in (("no", 1.0, 0), ("yes", -1.0, 1), ("yes", -1.0, 1), ("no", 1.0, 0)):
        labels.add("a", label, "x")
        verdict = compare(path, 1, 2, ALPHA)
        assert (verdict.pairs, verdict.difference, verdict.better) == (1, difference, "not settled")
        assert [(day.labelled, day.right) for day in accuracy_by_day(path)] == [(1, right)]


def test_a_corrected_label_keeps_its_place(tmp_path):
    path = tmp_path / "record.sqlite"
    recorder, labels = Recorder(path), Labels(path)
    for name in "ab":
        content = {"softmax": {"yes": 1.0, "no": 0.0}, "labels": ["yes"], "confidence": 1.0, "unsure": False}
        recorder.keep(answer_row(name, "champion", 1, "d", "c", "p", content))
    recorder.close()
    for name, label in (("a", "no"), ("b", "yes"), ("a", "yes"), ("b", "no")):
        labels.add(name, label, "x")
    assert [(one.id, one.right) for one in labelled(path, 1, 2)] == [("a", True), ("b", False)]


@pytest.mark.slow
def test_a_shadow_is_compared_by_the_command(tmp_path, registered, known):
    """The challenger answers the other way round: silently, on every picture; the labels settle it."""
    project = Project(tmp_path / "p", registered).champion(1).alias("challenger", 2)
    project.settings(challenger={"mode": "shadow"}, cache=0)

    def command():
        done = subprocess.run(
            [sys.executable, "-m", "plumbline.cli", "compare", "--json", "verdict.json"],
            cwd=project.root, env=project.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    with project.serving("--workers", "1") as service:
        until(lambda: service.client.get("/v1/model").json()["challenger"] == 2)
        assert command()[0] == 2
        for path, content in known.items():
            answer = service.predict(content).json()
            assert (answer["version"], answer["model"]["role"]) == (1, "champion")
            label = {"id": answer["answers"][0]["id"], "label": path.split("/")[0]}
            assert service.client.post("/v1/feedback", json=label).status_code == 201
        until(lambda: json.loads((command(), (project.root / "verdict.json").read_text())[1])["pairs"] == len(known))
        status, said = command()
        assert status == 1, said
        assert "the CHAMPION is better, and that is settled" in said
    kept = read_verdict(project.root / "served", 1, 2)
    assert kept.content() == json.loads((project.root / "verdict.json").read_text()), "for promote"


@pytest.mark.slow
def test_a_share_of_the_clients_is_answered_by_the_challenger_always_the_same(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1).alias("challenger", 2)
    keys = {f"client-{n}": f"secret-{n}" for n in range(20)}
    from serving.keys import digest

    (project.root / "keys").write_text("".join(f"{name} {digest(key)}\n" for name, key in keys.items()))
    project.settings(challenger={"mode": "share", "share": 0.4}, keys="keys")
    with project.serving("--workers", "2") as service:
        first = {"Authorization": "Bearer secret-0"}
        until(lambda: service.client.get("/v1/model", headers=first).json().get("challenger") == 2)
        until(lambda: all(worker["challenger"] == 2 for worker in service.ready()[1]["workers"]))
        who = {}
        for name, key in list(keys.items()) * 3:
            answer = service.predict(known["with_helmet/0.png"], headers={"Authorization": f"Bearer {key}"})
            model = answer.json()["model"]
            assert answer.headers["plumbline-version"] == str(model["version"])
            who.setdefault(name, set()).add((model["role"], model["version"]))
        assert all(len(seen) == 1 for seen in who.values())
        assert {next(iter(seen)) for seen in who.values()} == {("champion", 1), ("challenger", 2)}
