"""What people were not told yet is told by the next run, once."""

import json

import pytest

from flows import news


@pytest.mark.slow
def test_a_decision_is_told_once_and_only_where_the_gate_ran(project, monkeypatch):
    sent = []
    monkeypatch.setattr(news, "send", lambda *message: sent.append(message))
    news.expect_decision(project.root)
    news.tell_decision(project.root, False, print)
    assert sent == [], "there is no decision, and the gate did not run"
    (project.root / "build").mkdir(exist_ok=True)
    decision = {"verdict": "PROMOTE", "candidate": "p", "reason": "better", "rules": []}
    (project.root / "build/decision.json").write_text(json.dumps(decision))
    news.expect_decision(project.root)
    news.tell_decision(project.root, True, print)
    news.tell_decision(project.root, True, print)
    assert [message[0] for message in sent] == ["promotion"]


@pytest.mark.slow
def test_a_batch_that_never_became_a_version_is_dropped(project, monkeypatch):
    sent = []
    monkeypatch.setattr(news, "send", lambda *message: sent.append(message))
    news.keep_batch(project.root, "0" * 40, "3 pictures", False)
    news.tell_of_batches(project.root, print)
    assert sent == []
    news.keep_batch(project.root, project.git("rev-parse", "HEAD").strip(), "3 pictures", False)
    news.tell_of_batches(project.root, print)
    assert [message[:3] for message in sent] == [("intake", "New labelled pictures", "3 pictures")]
    assert not list(news.folder_of(project.root).glob("batch-*.json"))


def test_news_of_a_batch_wait_where_git_itself_fails(project, monkeypatch):
    sent, said = [], []
    monkeypatch.setattr(news, "send", lambda *given: sent.append(given))
    commit = project.git("rev-parse", "HEAD").strip()
    news.keep_batch(project.root, commit, "3 new pictures", request_training=False)
    (project.root / ".git" / "HEAD").rename(project.root / ".git" / "away")
    news.tell_of_batches(project.root, said.append)
    assert sent == []
    assert said == [f"Git does not answer in {project.root}, so the news of 1 batches wait for the next run."]
    (project.root / ".git" / "away").rename(project.root / ".git" / "HEAD")
    news.tell_of_batches(project.root, said.append)
    assert len(sent) == 1
    assert not list(news.folder_of(project.root).glob("batch-*.json"))
