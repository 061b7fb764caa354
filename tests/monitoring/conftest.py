"""A site, and a champion in a real registry."""

from __future__ import annotations

import shutil

import pytest
from made_up import PARAMS, Site, promote, write_version


@pytest.fixture(scope="session")
def registered(made_once, tmp_path_factory):
    """A project folder with a champion in its registry: each process has a copy, since tests promote there."""

    def make(root):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            write_version(root / "version")
            promote(root / "version")

    folder = tmp_path_factory.mktemp("registered")
    return shutil.copytree(made_once("registered", make), folder, dirs_exist_ok=True)


@pytest.fixture
def project(registered, tmp_path, monkeypatch):
    """A fresh folder on the registry with the champion; the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered}/registry/mlflow.db")
    (tmp_path / "params.yaml").write_text(PARAMS)
    return Site(tmp_path)
