"""A site, and a champion in a real registry."""

from __future__ import annotations

import pytest
from made_up import PARAMS, Site, promote, write_version


@pytest.fixture(scope="session")
def registered(tmp_path_factory):
    """A project folder with a champion in its registry."""
    root = tmp_path_factory.mktemp("registered")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        write_version(root / "version")
        promote(root / "version")
    return root


@pytest.fixture
def project(registered, tmp_path, monkeypatch):
    """A fresh folder on the registry with the champion; the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registered}/registry/mlflow.db")
    (tmp_path / "params.yaml").write_text(PARAMS)
    return Site(tmp_path)
