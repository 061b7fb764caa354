"""What a site sends is counted once and judged by the registry's champion, whatever comes late, twice or broken."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import CLASSES, PARAMS, picture, promote, write_version

from monitoring import collect, drift
from monitoring.collect import FetchError, Source
from monitoring.site_state import SiteState

pytestmark = pytest.mark.slow

GATE = "GATE"


def run(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["drift", *arguments])
    with pytest.raises(SystemExit) as ended:
        drift.command()
    return int(ended.value.code)


@pytest.fixture(autouse=True)
def _without_evidently(monkeypatch, request):
    """Evidently takes seconds to import: its pages have tests of their own."""
    if "evidently" not in request.keywords:
        monkeypatch.setattr(drift, "keep_history", lambda *_: [])


def results(site: str = GATE) -> list[dict]:
    store = SiteState(Path("drift"), site)
    return [store.result(name) for name in store.windows()]


def test_images_like_the_reference_are_ok(project, monkeypatch, capsys):
    project.send_many(GATE, 10_000, 80)
    assert run(monkeypatch, GATE) == 0
    assert capsys.readouterr().out.startswith("GATE: OK in window 0001, champion version")
    (result,) = results()
    assert result["counts"]["new"] == 80
    assert result["reasons"] == ["nothing that chance does not explain in 80 images"]
    assert 0 <= result["accuracy"]["low"] <= result["accuracy"]["value"] <= result["accuracy"]["high"] <= 1
    assert not Path("incoming/GATE/to_label").exists()
    page = Path("reports/drift/index.html").read_text()
    assert "No site looks different" in page


def test_a_dark_site_is_drift_and_says_why(project, monkeypatch, capsys):
    project.send_many(GATE, 10_000, 80, dark=0.4)
    assert run(monkeypatch, GATE) == 1
    out = capsys.readouterr().out
    assert out.startswith("GATE: DRIFT in window 0001")
    assert "darker" in out
    (result,) = results()
    strongest = {test["name"] for test in result["tests"] if test["adjusted"] <= result["level"]}
    assert {"brightness", "embeddings (MMD)"} <= strongest
    assert len(result["furthest"]) == 8
    assert result["furthest"][0]["picture"].startswith("data:image/jpeg")


def test_more_of_one_class_is_watched_not_cried_over(project, monkeypatch, capsys):
    for number in range(80):
        project.send(GATE, f"{number}.jpg", picture(20_000 + number, int(number % 8 == 0)))
    assert run(monkeypatch, GATE) == 0
    assert "GATE: WATCH" in capsys.readouterr().out
    (result,) = results()
    assert result["reasons"][0].startswith("more with_helmet than usual: about 8")
    share = result["shares"][0]
    assert share["low"] <= 7 / 8 <= share["high"]


def test_too_few_images_wait_and_count_later(project, monkeypatch, capsys):
    project.send_many(GATE, 10_000, 30)
    assert run(monkeypatch, GATE) == 2
    assert "30 new images, drift.minimum_images asks for 50" in capsys.readouterr().out
    assert results() == []
    project.send_many(GATE, 10_030, 30)
    assert run(monkeypatch, GATE) == 0
    assert results()[0]["counts"]["new"] == 60
    assert run(monkeypatch, GATE) == 2
    assert len(results()) == 1


def test_frames_of_a_few_videos_are_too_few_however_many(project, monkeypatch, capsys):
    project.send_many(GATE, 10_000, 80)
    rows = [{"path": f"{10_000 + k:05d}.jpg", "video": f"v{k // 10}"} for k in range(80)]
    pd.DataFrame(rows).to_csv("incoming/GATE/metadata.csv", index=False)
    assert run(monkeypatch, GATE) == 2
    assert "come from only 8 independent photographs or videos" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("header", "path", "mark"),
    [
        ("path,video", "cam\\{}.JPG", ","),
        ("Path;Video", "GATE/cam/{}.jpg", ";"),
        ("file_name\tvideo_id", "C:\\upload\\gate\\CAM\\{}.jpg", "\t"),
    ],
)
def test_metadata_as_people_write_it_still_ties_the_frames_of_a_video(project, monkeypatch, capsys, header, path, mark):
    project.send_many(GATE, 10_000, 80, folder="cam/")
    rows = [mark.join([path.format(f"{10_000 + k:05d}"), f"v{k // 10}"]) for k in range(80)]
    Path("incoming/GATE/metadata.csv").write_text("\n".join([header, *rows, mark, ""]))
    assert run(monkeypatch, GATE) == 2
    told = capsys.readouterr().out
    assert "come from only 8 independent photographs or videos" in told
    assert "80 of 80 rows of" in told
    assert "match no picture" not in told


def test_metadata_that_matches_nothing_is_said_in_the_verdict_and_on_the_page(project, monkeypatch, capsys):
    project.send_many(GATE, 10_000, 60)
    rows = "".join(f"YARD/{10_000 + k:05d}.jpg,v{k // 10}\n" for k in range(60))
    Path("incoming/GATE/metadata.csv").write_text("path,video\n" + rows)
    assert run(monkeypatch, GATE) == 0
    lost = "60 of 60 rows of metadata.csv match no picture (the first: YARD/10000.jpg), and 60 of 60 new images have no"
    assert lost in capsys.readouterr().out
    (result,) = results()
    assert (result["verdict"], result["metadata"]["rows"], result["metadata"]["unmatched"]) == ("WATCH", 60, 60)
    assert lost in Path("reports/drift/index.html").read_text()
    # Rows of pictures that were counted and cleared away since are no loss.
    rows = "".join(f"{10_000 + k:05d}.jpg,v{k}\n" for k in range(120))
    Path("incoming/GATE/metadata.csv").write_text("path,video\n" + rows)
    for number in range(10_000, 10_060):
        Path(f"incoming/GATE/{number}.jpg").unlink()
    project.send_many(GATE, 10_060, 60)
    assert run(monkeypatch, GATE) == 0
    assert results()[1]["metadata"]["unmatched"] == 0


def test_words_for_nothing_tie_no_strangers(project, monkeypatch):
    project.send_many(GATE, 10_000, 60)
    words = ["nan", "None", "-", "Unknown", "n/a", "NULL"]
    rows = "".join(f"{10_000 + k:05d}.jpg,{words[k % 6]}\n" for k in range(60))
    Path("incoming/GATE/metadata.csv").write_text("path,person\n" + rows)
    assert run(monkeypatch, GATE) == 0
    assert results()[0]["counts"]["groups"] == 60


@pytest.mark.parametrize("limit", [1_000, 20_000, 45_000])
def test_a_full_disk_is_one_sentence_and_loses_nothing(project, monkeypatch, capsys, limit):
    """Wherever it strikes: while images wait, when the window is kept, on the page."""
    import resource

    project.send_many(GATE, 10_000, 60, dark=0.4)
    project.send(GATE, "torn.jpg", picture(1, 0)[:300])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        code = run(monkeypatch, GATE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("GATE: new images")]
    assert code == 3
    assert len([line for line in told if line]) == 1
    assert told[-1].startswith("error: ")
    assert "can't be written (File too large)" in told[-1]
    assert not [path for path in project.root.rglob("*") if ".tmp-" in path.name or path.name.startswith(".00")]
    kept = len(results())
    assert run(monkeypatch, GATE) == (2 if kept else 1)
    (result,) = results()
    assert (result["verdict"], result["counts"]["new"], result["counts"]["quarantined"]) == ("DRIFT", 60, 1)


def test_a_run_waits_for_another_that_judges_the_site_and_goes_on(project):
    import subprocess

    from plumbline.common.locks import held

    project.send_many(GATE, 10_000, 10)
    root = str(Path(drift.__file__).resolve().parents[1])
    command = [sys.executable, "-u", "-m", "monitoring.drift", GATE]
    with held(Path("drift/GATE/.lock"), 0, "a test holds it"):
        late = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
        )
        assert late.stderr is not None
        said = next(line for line in late.stderr if "waiting" in line)
    assert said == "GATE is being judged by another run: waiting for it, 600 seconds at most\n"
    out, _ = late.communicate(timeout=120)
    assert (late.returncode, out.splitlines()[0][:23]) == (2, "GATE: NOT ENOUGH IMAGES")


def test_late_repeated_and_broken_files_do_no_harm(project, monkeypatch, capsys):
    project.send_many(GATE, 10_000, 60)
    project.send(GATE, "torn.jpg", picture(1, 0)[:300])
    project.send(GATE, "again/other_name.jpg", picture(10_001, 1))
    project.send(GATE, "training.jpg", picture(4, 0))
    assert run(monkeypatch, GATE) == 0
    (result,) = results()
    assert result["counts"] | {"groups": 0} == {
        "new": 60,
        "groups": 0,
        "copies of training images": 1,
        "repeats": 1,
        "delivered again": 0,
        "quarantined": 1,
    }
    assert result["quarantined"][0]["path"] == "torn.jpg"
    # The upload is finished, an old batch is sent again under other names, late ones come with old names.
    project.send(GATE, "torn.jpg", picture(30_000, 0))
    for number in range(10_000, 10_030):
        project.send(GATE, f"resent/{number}.jpg", picture(number, number % 2))
    project.send_many(GATE, 9_000, 55)
    assert run(monkeypatch, GATE) == 0
    second = results()[1]
    assert (second["counts"]["new"], second["counts"]["delivered again"], second["counts"]["quarantined"]) == (
        56,
        30,
        0,
    )
    store = SiteState(Path("drift"), GATE)
    counted = pd.concat([store.images(name) for name in store.windows()])
    assert counted.loc[counted["status"] == "new", "id"].is_unique


def test_a_stuck_camera_is_a_finding(project, monkeypatch, capsys):
    project.send_many(GATE, 10_000, 60)
    for number in range(40):
        project.send(GATE, f"stuck/{number}.jpg", picture(10_000, 0, quality=70 + number % 20))
    assert run(monkeypatch, GATE) == 0
    assert "40 of 100 pictures repeat others: is a camera stuck?" in capsys.readouterr().out
    assert results()[0]["verdict"] == "WATCH"


def test_a_run_killed_anywhere_is_taken_up(project, monkeypatch):
    """Killed while measuring, before the window is kept, and between that and clearing what waited."""
    project.send_many(GATE, 10_000, 60)
    monkeypatch.setattr(drift, "CHUNK", 16)
    whole = SiteState.add_pending
    calls = []

    def dies_at_third(self, batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        whole(self, batch)

    monkeypatch.setattr(SiteState, "add_pending", dies_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, GATE)
    monkeypatch.setattr(SiteState, "add_pending", whole)
    measured = []
    real = drift.measure_all
    monkeypatch.setattr(drift, "measure_all", lambda s, files, *a: measured.append(len(files)) or real(s, files, *a))
    close = SiteState.close_window
    monkeypatch.setattr(SiteState, "close_window", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, GATE)
    assert measured == [60 - 32]
    monkeypatch.setattr(SiteState, "close_window", close)
    forget = SiteState.forget_pending
    monkeypatch.setattr(SiteState, "forget_pending", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, GATE)
    monkeypatch.setattr(SiteState, "forget_pending", forget)
    assert len(results()) == 1
    assert run(monkeypatch, GATE) == 2
    assert len(results()) == 1
    assert results()[0]["counts"]["new"] == 60
    assert measured == [28, 0, 0]


def test_a_file_that_the_source_does_not_give_is_no_broken_camera_and_is_tried_again(project, monkeypatch):
    project.send_many(GATE, 10_000, 80)
    read = Source.read

    def mostly_away(self, path):
        if int(Path(path).stem) >= 10_060:
            raise FetchError("can't be read: Connection reset by peer")
        return read(self, path)

    monkeypatch.setattr(Source, "read", mostly_away)
    assert run(monkeypatch, GATE) == 0
    (first,) = results()
    assert (first["verdict"], first["counts"]["new"], first["counts"]["quarantined"]) == ("WATCH", 60, 0)
    assert first["reasons"] == [
        "20 files were not to be had from the source (the first: 10060.jpg can't be read: Connection reset by peer): "
        "they are tried again in the next run"
    ]
    monkeypatch.setattr(Source, "read", read)
    project.send_many(GATE, 11_000, 40)
    assert run(monkeypatch, GATE) == 0
    assert results()[1]["counts"]["new"] == 60


@pytest.mark.parametrize("step", ["keep_quarantine", "close_window"])
def test_an_unreadable_file_counts_in_one_window_wherever_a_run_is_killed(project, monkeypatch, step):
    project.send_many(GATE, 10_000, 60)
    project.send(GATE, "torn.jpg", picture(1, 0)[:300])
    whole, calls = getattr(SiteState, step), []

    def dies(self, *arguments):
        calls.append(1)
        if step == "close_window" or len(calls) == 2:  # the first only notes what was found
            raise KeyboardInterrupt
        whole(self, *arguments)

    monkeypatch.setattr(SiteState, step, dies)
    with pytest.raises(KeyboardInterrupt):
        run(monkeypatch, GATE)
    monkeypatch.setattr(SiteState, step, whole)
    if not results():
        run(monkeypatch, GATE)
    project.send_many(GATE, 11_000, 60)
    run(monkeypatch, GATE)
    assert [result["counts"]["quarantined"] for result in results()] == [1, 0]


def test_a_store_that_says_nothing_of_changes_is_said_to(project, monkeypatch):
    project.send_many(GATE, 10_000, 60)
    monkeypatch.setattr(collect, "STAMPS", ())
    assert run(monkeypatch, GATE) == 0
    _, note = results()[0]["notes"]  # the first is on the eyes that this version lacks
    assert note.endswith("gives no time of change of its files: one that changes and keeps its size is not noticed.")


def test_a_new_champion_looks_at_the_last_window_again(project, registered, monkeypatch, tmp_path):
    shutil.copytree(registered / "registry", tmp_path / "own")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/own/mlflow.db")
    project.send_many(GATE, 10_000, 60)
    assert run(monkeypatch, GATE) == 0
    write_version(tmp_path / "second", first_seed=500)
    promote(tmp_path / "second")
    assert run(monkeypatch, GATE) == 0
    first, second = results()
    assert (first["champion"]["version"], second["champion"]["version"]) == (1, 2)
    assert second["counts"]["new"] == 60
    assert run(monkeypatch, GATE) == 2


def test_without_a_champion_the_command_fails_and_the_stage_says_so(project, monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/none.db")
    project.send_many(GATE, 10_000, 60)
    assert run(monkeypatch, GATE) == 3
    assert "has no champion" in capsys.readouterr().err
    assert run(monkeypatch, "--every-site", "--record", "build/drift.json") == 0
    recorded = json.loads(Path("build/drift.json").read_text())
    assert recorded["reason"].startswith("Not judged: the registry")
    assert "has no champion" in Path("reports/drift/index.html").read_text()


def test_errors_end_with_three_for_one_means_drift(project, monkeypatch, capsys):
    assert run(monkeypatch, "NOWHERE") == 3
    assert "NOWHERE is missing" in capsys.readouterr().err
    (project.root / "params.yaml").write_text(PARAMS.replace("horizon", "horizont"))
    assert run(monkeypatch, GATE) == 3
    assert "horizont" in capsys.readouterr().err


def test_every_site_is_recorded_and_drift_is_a_result_of_the_stage(project, monkeypatch):
    project.send_many(GATE, 10_000, 60)
    project.send_many("YARD", 20_000, 60, dark=0.4)
    assert run(monkeypatch, "--every-site", "--record", "build/drift.json") == 0
    recorded = json.loads(Path("build/drift.json").read_text())
    assert recorded["verdict"] == "DRIFT"
    assert {name: site["verdict"] for name, site in recorded["sites"].items()} == {"GATE": "OK", "YARD": "DRIFT"}


def test_images_behind_an_fsspec_url(project, monkeypatch):
    import fsspec

    memory = fsspec.filesystem("memory")
    for number in range(60):
        memory.pipe(f"/bucket/GATE/{number}.jpg", picture(10_000 + number, number % 2))
    (project.root / "params.yaml").write_text(PARAMS.replace("drift: {", 'drift: {source: "memory://bucket", '))
    try:
        assert run(monkeypatch, GATE) == 0
        assert results()[0]["counts"]["new"] == 60
        assert run(monkeypatch, GATE) == 2
    finally:
        memory.rm("/bucket", recursive=True)


def test_intake_takes_back_what_was_given_out_to_label(project, monkeypatch):
    from flows.batch import read_folder
    from flows.label_studio import read_label_studio
    from plumbline.imaging.manifest import IngestParams
    from plumbline.imaging.settings import DataParams

    project.send_many(GATE, 10_000, 80, dark=0.4)
    rows = [{"path": f"{10_000 + k:05d}.jpg", "photo": f"p{k // 2}"} for k in range(80)]
    pd.DataFrame(rows).to_csv("incoming/GATE/metadata.csv", index=False)
    assert run(monkeypatch, GATE) == 1
    folder = Path(results()[0]["to_label"])
    assert folder == Path("incoming/GATE/to_label/0001")
    labels = pd.read_csv(folder / "labels.csv", dtype=str)
    assert len(labels) == 6
    assert labels["photo"].is_unique, "one of a photograph"
    # A person fills all but one.
    labels["label"] = [CLASSES[0]] * 3 + [CLASSES[1]] * 2 + [None]
    labels.to_csv(folder / "labels.csv", index=False)
    batch = read_folder(folder, DataParams(), IngestParams())
    assert sorted(batch.table["label"]) == [CLASSES[0]] * 3 + [CLASSES[1]] * 2
    assert set(batch.table["site"]) == {GATE}
    assert [one.path for one in batch.refused] == [labels["path"].iloc[5]]
    # Another uses Label Studio: its export is the tasks with annotations.
    tasks = json.loads((folder / "label_studio.json").read_text())
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    Path("export.json").write_text(json.dumps(tasks))
    Path("scratch").mkdir()
    assert read_label_studio(Path("export.json"), folder, Path("scratch")) == []
    assert len(read_folder(Path("scratch"), DataParams(), IngestParams()).table) == 6
    # The folder is not a source of new images, and a second look leaves what was filled in.
    assert run(monkeypatch, GATE) == 2
    assert pd.read_csv(folder / "labels.csv", dtype=str)["label"].notna().sum() == 5


def test_labels_that_come_later_check_the_promise(project, monkeypatch):
    project.send_many(GATE, 10_000, 60)
    assert run(monkeypatch, GATE) == 0
    images = SiteState(Path("drift"), GATE).images("0001")
    labelled = images.head(20).assign(label=["with_helmet", "without_helmet"] * 10)
    Path("build").mkdir()
    labelled[["id", "label"]].to_parquet("build/manifest.parquet")
    assert run(monkeypatch, GATE) == 2
    page = Path("reports/drift/index.html").read_text()
    right = np.mean(labelled["predicted"] == labelled["label"])
    assert f"Labelled since: 20 images of these windows. The champion was right on {right:.0%}" in page


def test_what_is_labelled_first_is_uncertain_far_and_diverse():
    from monitoring.labelling import choose

    embeddings = np.array([[1, 0], [1, 0.01], [0, 1], [0.7, 0.7]])
    confidence = np.array([0.5, 0.51, 0.6, 0.99])
    distance = np.array([0.9, 0.8, 0.7, 0.1])
    assert choose(confidence, distance, embeddings, np.array([0, 1, 2, 3]), 2).tolist() == [0, 2]
    assert choose(confidence, distance, embeddings, np.array([0, 0, 0, 1]), 4).tolist() == [0, 3]


def test_nothing_heavy_is_needed_for_a_verdict(project, monkeypatch):
    import subprocess

    project.send_many(GATE, 10_000, 10)
    code = (
        "import sys; sys.argv = ['drift', 'GATE']\nfrom monitoring import drift\ncode = drift.main()\n"
        "assert not {'tensorflow', 'prefect', 'evidently'} & set(sys.modules), 'heavy'\nsys.exit(code)"
    )
    root = str(Path(drift.__file__).resolve().parents[1])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 2, done.stderr


def test_times_are_ordered_as_times():
    table = pd.DataFrame({"captured_at": ["2026-10-01T00:30Z", "2026-10-01T01:00+02:00", None, "yesterday"]})
    assert drift.captured_between(table) == ["2026-09-30T23:00:00+00:00", "2026-10-01T00:30:00+00:00"]
    assert drift.captured_between(pd.DataFrame({"captured_at": [None, ""]})) is None
    assert drift.captured_between(pd.DataFrame({"path": ["a"]})) is None
