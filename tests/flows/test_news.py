"""What is still to be told: once, and of nothing that never came to be."""

import pytest

from flows import news
from plumbline.common import artefacts
from plumbline.common.files import write_json


def decide(root, reason):
    write_json(root / artefacts.DECISION, {"verdict": "HOLD", "candidate": "p", "reason": reason, "rules": []})


@pytest.mark.usefixtures("server")
def test_a_batch_is_told_of_once_and_one_that_never_came_to_be_is_not(project, messages):
    said = []
    head = project.git("rev-parse", "HEAD").strip()
    news.keep_batch(project.root, head, "2 pictures", request_training=False)
    news.keep_batch(project.root, "0" * 40, "of a version that was dropped", request_training=False)
    for _ in range(2):
        news.tell_of_batches(project.root, said.append)
    assert [(one["what"], one["text"]) for one in messages] == [("intake", "2 pictures")]
    assert said == []


def test_a_decision_is_told_where_the_gate_ran_or_says_something_new(project, messages):
    root, said = project.root, []
    decide(root, "as before")
    news.tell_decision(root, True, said.append)
    assert messages == [], "no gate was about to run"
    news.expect_decision(root)
    news.tell_decision(root, False, said.append)
    assert messages == [], "it did not run, and says what it said"
    decide(root, "anew")
    news.expect_decision(root)  # by the run after a kill: what was said before is remembered
    news.tell_decision(root, False, said.append)
    news.tell_decision(root, True, said.append)
    assert [(one["what"], one["subject"], one["text"]) for one in messages] == [("refusal", "HOLD: p", "anew")]
    assert said == []


def test_a_message_that_can_not_be_sent_is_said(monkeypatch):
    monkeypatch.setenv("PLUMBLINE_NOTIFY", "http://127.0.0.1:9/")
    said = []
    news.send("failure", "train@p failed", "no reason", said.append)
    assert said[0].startswith("The message «train@p failed» could not be sent: ConnectError")
