"""What a DVC user does, in a real Git and DVC repository: run, run again, change one thing, kill it, experiment."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from nbclient import NotebookClient

from samples.draw import write_sample

TOP = Path(__file__).parent.parent
CODE = ("plumbline", "stages", "monitoring", "dvc.yaml", ".dvcignore")
CANDIDATES = {
    "simple_cnn": {"architecture": "simple_cnn", "backbone": "pixels", "epochs": 2, "batch_size": 32},
    "mobilenet_v2": {
        "architecture": "transfer",
        "backbone": "mobilenet_v2",
        "head": {},
        "epochs": 3,
        "learning_rate": 0.001,
    },
}
BACKBONES = {
    "pixels": {"image_size": 32},
    "mobilenet_v2": {"image_size": 64, "weights": "auto", "pooling": "average", "views": 1},
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Workspace:
    """A repository in a temporary folder, and what a user would type there."""

    def __init__(self, path):
        self.path = path
        self.environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PLUMBLINE_OFFLINE": "1",
            "KERAS_HOME": str(path / "no-keras-cache"),
            "DVC_NO_ANALYTICS": "1",
            "GIT_AUTHOR_NAME": "t",
            "GIT_AUTHOR_EMAIL": "t@example.com",
            "GIT_COMMITTER_NAME": "t",
            "GIT_COMMITTER_EMAIL": "t@example.com",
        }
        # The last would give every test a process of its own that imports TensorFlow for its stages.
        for name in ("PLUMBLINE_WEIGHTS", "MLFLOW_TRACKING_URI", "PYTEST_CURRENT_TEST"):
            self.environment.pop(name, None)

    def run(self, *command, check=True, **environment):
        done = subprocess.run(
            command,
            cwd=self.path,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done

    def repro(self, **environment):
        """`dvc repro`; the names of the stages that ran, in order."""
        output = self.output = self.run("dvc", "repro", **environment).stdout
        return re.findall(r"^Running stage '([^']+)'", output, re.MULTILINE)

    def mend(self):
        """What a user is told to do when a kill tore dvc.lock."""
        self.run(sys.executable, "-m", "flows.mend", PYTHONPATH=str(TOP))

    def params(self):
        return yaml.safe_load((self.path / "params.yaml").read_text())

    def set_params(self, params):
        (self.path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def json(self, name):
        return json.loads((self.path / name).read_text())

    def lock(self):
        """md5 of every output by path, as dvc.lock has them."""
        stages = yaml.safe_load((self.path / "dvc.lock").read_text())["stages"]
        return {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A small sample, drawn once."""
    folder = tmp_path_factory.mktemp("drawn")
    write_sample(folder, seed=3, labelled=90, incoming=2)
    return folder / "data"


def create(path, data):
    for name in CODE:
        if (TOP / name).is_dir():
            shutil.copytree(TOP / name, path / name)  # with __pycache__, where Numba keeps what it compiled in seconds
        elif (TOP / name).exists():
            shutil.copy(TOP / name, path / name)
    workspace = Workspace(path)
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params |= {"backbones": BACKBONES, "candidates": CANDIDATES, "ensembles": {}}
    params["evaluate"] |= {"resamples": 200, "permutations": 100}
    params["gate"] |= {"resamples": 200}
    params["train"] |= {"folds": 2}
    params["leakage"] |= {"repeats": 2}
    params["probe"] |= {"pictures": 12, "attention_pictures": 4}
    workspace.set_params(params)
    shutil.copytree(data, path / "data")
    (path / ".gitignore").write_text("/build/\n/reports/\n/registry/\n/data\n__pycache__/\n")
    workspace.run("git", "init", "-q")
    workspace.run("dvc", "init", "-q")
    workspace.run("dvc", "add", "-q", "data")
    workspace.run("git", "add", "-A")
    workspace.run("git", "commit", "-qm", "start")
    return workspace


@pytest.fixture(scope="module")
def finished(tmp_path_factory, drawn):
    """A workspace as `dvc repro` left it, run to its end once in folder `place`; never changed."""
    folder = tmp_path_factory.mktemp("finished")
    workspace = create(folder / "work", drawn)
    ran = workspace.repro()
    kept = Workspace(folder / "kept")
    shutil.copytree(workspace.path, kept.path, symlinks=True)
    kept.place, kept.ran, kept.output = workspace.path, ran, workspace.output
    return kept


# What DVC says of its own stages, and `make run` (`dvc repro --quiet`) does not show.
OF_DVC = re.compile(r"Running stage |> |(Upd|Gener)ating lock|Stage '|To (track|enable)|Use `dvc|\tgit add|\tdvc ")


def test_what_a_run_prints_is_for_people(finished):
    lines = [line for line in finished.output.splitlines() if line.strip() and not OF_DVC.match(line)]
    for noise in ("absl", "oneDNN", "cpu_feature_guard", "FutureWarning", "step - ", "Epoch "):
        assert not [line for line in lines if noise in line]
    for name in CANDIDATES:
        (told,) = [line for line in lines if line.startswith(f"{name}: ") and " epochs in " in line]
        assert "validation loss" in told
    # A whole run of 20 candidates and 11 backbones prints under 150: some 32 lines of theirs, and these.
    assert len(lines) < 110, "\n".join(lines)


@pytest.fixture
def workspace(finished):
    """What was finished, in the same folder for every test: the process that has TensorFlow loaded serves them all."""
    shutil.rmtree(finished.place)
    shutil.copytree(finished.path, finished.place, symlinks=True)
    return Workspace(finished.place)


def test_one_command_takes_photographs_to_a_decision(finished):
    assert finished.ran[-1] == "drift"
    decision = finished.json("build/decision.json")
    assert decision["verdict"] in {"PROMOTE", "HOLD", "REJECT"}
    assert decision["candidate"] in CANDIDATES
    assert all({"name", "value", "bound", "passed", "reason"} <= set(rule) for rule in decision["rules"])
    race = finished.json("build/race/race.json")
    assert decision["candidate"] in race["finalists"]
    assert set(race["finalists"]) | set(race["left"]) <= set(CANDIDATES)
    assert decision["race"] == race
    rows = {row["candidate"]: row for row in finished.json("build/leaderboard.json")}
    assert set(rows) == set(CANDIDATES)
    assert rows["mobilenet_v2"]["weights"] == "random", "no weights here, and the leaderboard says so"
    for row in rows.values():
        assert row["trainable_parameters"] <= row["parameters"]
        assert all(0 <= row["metrics"][split]["accuracy"] <= 1 for split in ("train", "validation", "test"))
    for page in ("reports/leaderboard.html", "reports/validation/index.html"):
        assert (finished.path / page).is_file()


def test_no_photograph_and_no_group_is_in_two_splits(finished):
    splits = pd.read_parquet(finished.path / "build/splits.parquet")
    manifest = pd.read_parquet(finished.path / "build/manifest.parquet")
    joined = splits.merge(manifest[["path", "photo"]], on="path")
    assert set(splits["split"]) == {"train", "validation", "test"}
    assert joined.groupby("photo")["split"].nunique().max() == 1
    assert splits.groupby("group")["split"].nunique().max() == 1


def test_the_corrupt_pictures_are_quarantined_with_their_reason(finished):
    quarantine = pd.read_csv(finished.path / "build/quarantine.csv")
    assert len(quarantine) == 2
    assert quarantine["reason"].str.len().min() > 0


def tour(project):
    """Run a copy of docs/tour.ipynb in a project's docs/; what it said, and the types of its outputs."""
    (project / "docs").mkdir()
    shutil.copy(TOP / "docs/tour.ipynb", project / "docs")
    notebook = nbformat.read(project / "docs/tour.ipynb", as_version=4)
    place = {"metadata": {"path": str(project / "docs")}}
    NotebookClient(notebook, kernel_name="python3", timeout=300, allow_errors=True, resources=place).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert [one["evalue"] for one in outputs if one["output_type"] == "error"] == []
    said = [one["text"] if "text" in one else one["data"]["text/plain"] for one in outputs]
    return "\n".join(said), {kind for one in outputs for kind in one.get("data", {})}


def contents(folder):
    """The sha256 of every file below a folder, by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_tour_shows_a_run_and_leaves_it_as_it_is(workspace, monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    before = contents(workspace.path / "build")
    said, kinds = tour(workspace.path)
    assert contents(workspace.path / "build") == before
    assert f"The project is {workspace.path}." in said
    pictures = len(pd.read_parquet(workspace.path / "build/manifest.parquet"))
    assert f"{pictures} pictures of 2 classes" in said
    decision, drift = workspace.json("build/decision.json"), workspace.json("build/drift.json")
    assert f"{decision['verdict']}: {decision['candidate']} " in said
    groups, leakage = workspace.json("build/group.json"), workspace.json("build/leakage.json")
    assert f"{pictures} pictures in {groups['groups']} groups" in said
    assert "A group of near-duplicates" in said
    assert leakage["price_sentence"] in said
    for words in ("with_helmet", "without_helmet", "2 in quarantine", *CANDIDATES, drift["reason"]):
        assert words in said
    for site in drift["sites"].values():
        assert site["said"] in said
    assert {"image/png", "text/html"} <= kinds


def test_the_tour_says_what_is_missing(monkeypatch, tmp_path):
    """Where no stage has run, each part says so in the sentence of who reads the file, and the next one is tried."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYTHONPATH", str(TOP))
    (tmp_path / "dvc.yaml").touch()
    said, _ = tour(tmp_path)
    for name, stage in (
        ("manifest.parquet", "ingest"),
        ("group.json", "group"),
        ("leakage.json", "leakage"),
        ("leaderboard.json", "evaluate"),
        ("drift.json", "drift"),
    ):
        assert f"build/{name} is missing: run `dvc repro {stage}`." in said
    assert not (tmp_path / "build").exists()


def test_running_again_does_nothing(workspace):
    before = workspace.lock()
    assert workspace.repro() == ["weights"], "only the look for weights, which takes a moment, runs every time"
    assert workspace.lock() == before


def test_another_learning_rate_and_a_new_candidate_are_a_training_each_and_what_follows(workspace):
    """Both changes at once: what either would train or measure in vain, it would of simple_cnn too."""
    params = workspace.params()
    params["candidates"]["mobilenet_v2"]["learning_rate"] = 0.002
    params["candidates"]["pooled"] = {**CANDIDATES["mobilenet_v2"], "learning_rate": 0.01}
    workspace.set_params(params)
    ran = workspace.repro()
    assert [stage for stage in ran if "@" in stage] == [s for s in ran if s.endswith(("@mobilenet_v2", "@pooled"))]
    assert {stage for stage in ran if stage.startswith(("train", "featurize"))} == {
        "train@mobilenet_v2",
        "train@pooled",
    }
    assert not {"ingest", "validate", "group", "split"} & set(ran)
    assert ran.index("train@pooled") < ran.index("race") < ran.index("gate")
    assert {row["candidate"] for row in workspace.json("build/leaderboard.json")} == {*CANDIDATES, "pooled"}


def test_other_weights_are_noticed(workspace, tmp_path):
    """A weights file appears in PLUMBLINE_WEIGHTS: its backbone runs again, and what reads it, nothing else."""
    backbone = workspace.path / "build/features/mobilenet_v2/backbone.weights.h5"
    (tmp_path / "weights").mkdir()
    shutil.copy(backbone, tmp_path / "weights" / "mobilenet_v2_1.0_224_notop.weights.h5")
    ran = workspace.repro(PLUMBLINE_WEIGHTS=str(tmp_path / "weights"))
    assert {"featurize@mobilenet_v2", "train@mobilenet_v2"} <= set(ran)
    assert not {"featurize@pixels", "train@simple_cnn", "split"} & set(ran)
    rows = {row["candidate"]: row["weights"] for row in workspace.json("build/leaderboard.json")}
    assert rows["mobilenet_v2"] == "imagenet"


def test_metrics_and_plots_work(workspace):
    workspace.run("git", "add", "-A")
    workspace.run("git", "commit", "-qm", "run")
    assert "mobilenet_v2" in workspace.run("dvc", "metrics", "show").stdout
    assert "file://" in workspace.run("dvc", "plots", "show").stdout
    page = (workspace.path / "dvc_plots/index.html").read_text()
    assert "vega" in page
    workspace.run("dvc", "metrics", "diff")


@pytest.mark.timeout(1800)
def test_experiments_promote_nothing_until_they_are_applied_and_committed(workspace):
    """README's own words, then the way back: one champion, moved by the project alone, never by what was tried."""
    params = workspace.params()
    # Whatever 90 pictures are worth: this is about who may promote.
    for rule in ("accuracy_floor", "recall_floor", "false_alarm_ceiling", "calibration_tolerance", "slice_floor"):
        params["gate"][rule] = None
    nothing = {"minimum_test_groups": None, "beat": [], "shortcut_auc": {}, "probes": dict.fromkeys(LOOKS)}
    params["gate"] |= nothing
    params["promote"] |= {"minimum_unseen_groups": 1, "score_tolerance": 0.4}
    workspace.set_params(params)
    workspace.repro()
    workspace.run("git", "add", "-A")
    workspace.run("git", "commit", "-qm", "first")
    first = workspace.json("build/promotion.json")
    assert (first["outcome"], first["champion"]) == ("promoted", 1)
    before = snapshot(workspace.path / "registry")

    faster = ["-n", "faster", "-S", "candidates.mobilenet_v2.learning_rate=0.003"]
    tried = workspace.run("dvc", "exp", "run", *faster).stdout
    assert "not here: This is a DVC experiment, which promotes nothing" in tried
    assert "Not judged: this is a DVC experiment" in tried
    shown = workspace.run("dvc", "exp", "show", "--csv").stdout
    assert "faster" in shown
    assert "0.003" in shown
    workspace.run("git", "checkout", "-q", "--", ".")
    other = workspace.run("dvc", "exp", "run", "--temp", "-n", "other", "-S", "train.seed=6").stdout
    assert "not here: This is a DVC experiment, which promotes nothing" in other
    assert snapshot(workspace.path / "registry") == before

    workspace.run("dvc", "exp", "apply", "other")
    workspace.run("git", "commit", "-qam", "other")
    assert workspace.repro()[:2] == ["weights", "promote"], "what the experiment left unpromoted is due"
    second = workspace.json("build/promotion.json")
    assert (second["outcome"], second["champion"]) == ("promoted", 2)

    workspace.run("git", "commit", "-qam", "promoted")
    workspace.run("git", "checkout", "-q", "HEAD~2")
    back = workspace.run("dvc", "repro").stdout
    assert "not here: This is the detached commit" in back
    history = workspace.run("python", "-m", "stages.promote", "history").stdout
    assert "version 2 champion" in history
    assert "version 3" not in history


LOOKS = ("head", "background", "zoom", "attention")


def snapshot(root):
    return {path: path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file() and "lock" not in path.name}


def test_killed_at_any_moment_the_next_run_ends_as_an_undisturbed_one(finished, drawn, tmp_path):
    """SIGKILL to dvc and its stage together, again and again, at random moments of a run from nothing."""
    disturbed = create(tmp_path, drawn)
    moments = random.Random(0)
    for _ in range(8):
        process = subprocess.Popen(
            ["dvc", "repro"],
            cwd=disturbed.path,
            env=disturbed.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(1, 12))
        if process.returncode:  # it stopped by itself, at what the last kill left
            disturbed.mend()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = disturbed.run("dvc", "repro", check=False)
    if done.returncode:
        assert "dvc.lock" in done.stdout, done.stdout
        disturbed.mend()
        disturbed.repro()
    for name in ("leaderboard", "decision"):
        assert disturbed.json(f"build/{name}.json") == finished.json(f"build/{name}.json")
    # Data Docs and cards carry times, cost.json seconds, promotion the registry's own history.
    passing = ("reports/", "build/promotion.json", "build/drift.json", "build/candidates", "build/ensembles")
    mine, theirs = (
        {path: md5 for path, md5 in w.lock().items() if not path.startswith(passing)} for w in (disturbed, finished)
    )
    assert mine == theirs
    for name in CANDIDATES:
        for file in ("head.weights.h5", "model.json", "history.csv", "predictions.parquet"):
            path = f"build/candidates/{name}/{file}"
            assert (disturbed.path / path).read_bytes() == (finished.path / path).read_bytes(), path
