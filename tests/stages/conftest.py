"""The small projects that the tests of promotion promote."""

import shutil

import pytest


@pytest.fixture(scope="session")
def tiny_projects(made_once):
    """Projects up to the gate, exported beforehand, and an empty registry, empty.db; copied, never changed.

    `good`, `better` and `best` learnt; `bad` did not.
    """
    from benchmarks.tiny_project import export_project, write_project
    from plumbline.registry import versions as registry

    def make(folder):
        for seed, name in enumerate(("good", "better", "best", "bad")):
            write_project(folder / name, seed=seed, trained=name != "bad")
            export_project(folder / name)
        registry.open_registry(uri=f"sqlite:///{folder}/empty.db")

    return made_once("tiny-projects", make)


@pytest.fixture
def empty_registry(tiny_projects, tmp_path, monkeypatch):
    """The working folder, whose registry holds nothing yet."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "registry").mkdir()
    shutil.copy(tiny_projects / "empty.db", tmp_path / "registry" / "mlflow.db")
    return tmp_path
