"""The small projects that the tests of promotion promote."""

import os

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def tiny_projects(tmp_path_factory):
    """Projects up to the gate, exported beforehand, and an empty registry; made once for all of pytest's processes.

    `good`, `better` and `best` learnt; `bad` did not. Copied, never changed.
    """
    from benchmarks.tiny_project import export_project, write_project
    from plumbline.registry import versions as registry

    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "tiny"
    folder.mkdir(exist_ok=True)
    with FileLock(folder / ".lock"):
        if not (folder / "whole").exists():
            for seed, name in enumerate(("good", "better", "best", "bad")):
                write_project(folder / name, seed=seed, trained=name != "bad")
                export_project(folder / name)
            registry.open_registry(uri=f"sqlite:///{folder}/empty.db")
            (folder / "whole").touch()
    return folder
