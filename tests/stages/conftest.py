"""The small projects that the tests of promotion promote."""

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
