"""What is kept of answers: labels that outlive a kill, windows for monitoring, accuracy over time."""

import os
import signal
import sqlite3
import threading

import numpy as np
import pytest
from running import Project, until

from monitoring.drift import Settings, judge_site, load_champion
from monitoring.settings import DriftParams
from monitoring.site_state import NEW, SiteState
from plumbline.common.served import RECORD, accuracy_by_day, uncollected
from plumbline.imaging.manifest import IngestParams
from plumbline.imaging.settings import DataParams
from plumbline.leakage.groups import GroupParams

pytestmark = pytest.mark.slow


def feedback(service, identity, label):
    return service.client.post("/v1/feedback", json={"id": identity, "label": label})


def test_a_label_is_kept_and_shown_as_accuracy_with_its_interval(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "2") as service:
        right = 0
        for path, content in list(known.items())[:10]:
            answer = service.predict(content).json()["answers"][0]
            label = path.split("/")[0]
            right += answer["label"] == label
            assert feedback(service, answer["id"], label).status_code == 201
        day = service.client.get("/v1/accuracy").json()["days"][0]
        assert (day["version"], day["labelled"], day["right"]) == (1, 10, right)
        assert 0 < day["low"] < day["accuracy"] <= day["high"] <= 1
        assert feedback(service, answer["id"], "nonsense").status_code == 422
        assert feedback(service, "0" * 32, "with_helmet").status_code == 404
        assert service.client.post("/v1/feedback", json=[1]).status_code == 422
        assert (
            service.client.post("/v1/feedback", content=b"{", headers={"content-type": "application/json"}).status_code
            == 400
        )
    assert accuracy_by_day(project.root / "served" / RECORD)[0].labelled == 10


def test_no_acknowledged_label_is_lost_to_kills(tmp_path, registered, known):
    """Workers are killed again and again while labels are sent; what got a 201 must be in the record."""
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "2") as service:
        ids = [one["id"] for one in service.predict(*list(known.values())).json()["answers"]]
        until(lambda: feedback(service, ids[0], "with_helmet").status_code == 201)
        acknowledged, stop = [], threading.Event()

        def send():
            number = 0
            while not stop.is_set():
                number += 1
                client = type(service.client)(base_url=service.url, timeout=10)
                try:
                    answer = client.post("/v1/feedback", json={"id": ids[number % len(ids)], "label": "with_helmet"})
                    if answer.status_code == 201:
                        acknowledged.append(answer.json()["number"])
                except Exception:  # the worker died while it was asked
                    pass
                client.close()

        sender = threading.Thread(target=send)
        sender.start()
        for _ in range(4):
            until(lambda: len(acknowledged) % 7 == 6 or len(acknowledged) > 60)
            for worker in service.ready()[1]["workers"]:
                if "pid" in worker:
                    os.kill(worker["pid"], signal.SIGKILL)
            service.wait_ready()
        stop.set()
        sender.join()
    database = sqlite3.connect(project.root / "served" / RECORD)
    kept = {row[0] for row in database.execute("select number from labels")}
    assert acknowledged
    assert set(acknowledged) <= kept


def test_where_nothing_is_kept_nothing_is_written_and_labels_are_refused(tmp_path, registered, known):
    project = Project(tmp_path / "p", registered).champion(1).settings(record="none")
    with project.serving("--workers", "1") as service:
        answer = service.predict(known["with_helmet/0.png"]).json()["answers"][0]
        assert feedback(service, answer["id"], "with_helmet").status_code == 409
    assert not (project.root / "served" / RECORD).exists()


def test_a_full_disk_loses_no_answer_and_acknowledges_no_label(tmp_path, registered, known):
    """The record can't grow: a limit on the size of files, which the kernel reports as a full disk is."""
    project = Project(tmp_path / "p", registered).champion(1)
    with project.serving("--workers", "1") as service:
        identity = service.predict(known["with_helmet/0.png"]).json()["answers"][0]["id"]
        assert feedback(service, identity, "with_helmet").status_code == 201
        import resource

        pid = service.ready()[1]["workers"][0]["pid"]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, 1))
        assert feedback(service, identity, "with_helmet").status_code == 507
        assert service.predict(known["without_helmet/1.png"]).status_code == 200
        assert service.ready()[0] == 200


def judged(project, monkeypatch, minimum=20):
    monkeypatch.chdir(project.root)
    drift = DriftParams(minimum_images=minimum, minimum_groups=5, permutations=99, horizon=1)
    settings = Settings(drift, DataParams(), GroupParams(), IngestParams(min_side=1))
    return judge_site("served", load_champion("plumbline"), settings)


def varied(count):
    """Pictures that are no copies of each other."""
    from running import png

    random = np.random.default_rng(5)
    for n in range(count):
        small = random.integers(0, 256, (6, 6, 3)).astype(np.uint8)
        yield png(np.kron(small, np.ones((8, 8, 1), np.uint8)) // (1 + n % 2))


def test_what_was_served_is_judged_as_a_site_without_its_pictures(tmp_path, registered, monkeypatch):
    project = Project(tmp_path / "p", registered).champion(1).settings(record="descriptors")
    contents = list(varied(24))
    with project.serving("--workers", "2") as service:
        answers = [answer for one in contents for answer in service.predict(one).json()["answers"]]
    record = project.root / "served" / RECORD
    assert len(uncollected(record, 100).ids) == 24
    result = judged(project, monkeypatch)
    assert result["window"] == "0001", result["reasons"]
    images = SiteState(project.root / "drift", "served").images("0001")
    assert sorted(path.split(".")[0] for path in images["path"]) == sorted(answer["id"] for answer in answers)
    by_id = {answer["id"]: answer for answer in answers}
    for _, image in images.iterrows():
        answer = by_id[image["path"].split(".")[0]]
        assert image["p_with_helmet"] == pytest.approx(answer["probabilities"]["with_helmet"], abs=1e-6)
    assert {"brightness", "noise", "blockiness", "phash"} <= set(images.columns)
    assert uncollected(record, 100).ids == []
    assert not list((project.root / "served").rglob("*.png"))
    assert judged(project, monkeypatch)["counts"]["new"] == 0  # each counts once


def test_pictures_are_kept_on_request_only_and_come_back_to_be_labelled(tmp_path, registered, monkeypatch):
    project = Project(tmp_path / "p", registered).champion(1).settings(record="pictures", site="served")
    contents = list(varied(24))
    with project.serving("--workers", "1") as service:
        for one in contents:
            service.predict(one)
    kept = list((project.root / "incoming" / "served").glob("*.png"))
    assert sorted(path.read_bytes() for path in kept) == sorted(contents)
    result = judged(project, monkeypatch)
    assert result["counts"]["new"] == 24
    assert result["verdict"] != "OK"  # checkered squares are unlike all it knows
    to_label = project.root / "incoming" / "served" / "to_label" / "0001"
    assert (to_label / "labels.csv").is_file()
    assert list(to_label.glob("*.png"))


def test_descriptors_are_those_that_monitoring_measures(tmp_path, registered, known):
    """The same picture as a site's file and as a client's upload: the same row."""
    from monitoring.collect import File, Source, measure_all

    project = Project(tmp_path / "p", registered).champion(1).settings(record="descriptors")
    content = known["with_helmet/0.png"]
    with project.serving("--workers", "1") as service:
        service.predict(content)
    row = uncollected(project.root / "served" / RECORD, 1).rows[0]
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "x.png").write_bytes(content)
    measured = next(measure_all(Source(str(tmp_path / "site")), [File("x.png", len(content), "")], 16, DataParams(), 1))
    theirs = {key: value for key, value in measured.row.items() if key not in ("path", "stamp", "listed")}
    assert {**{key: value for key, value in row.items() if key != "path"}, "phash": int(row["phash"])} == theirs
    assert NEW == "new"
