"""A site, and a champion in a real registry."""

from __future__ import annotations

import shutil

import pytest
from made_up import PARAMS, Site, open_their_eyes, promote, write_version


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


@pytest.fixture(scope="session")
def registries(tmp_path_factory):
    """By whether the eyes are the version's own, the address of a registry whose champion has eyes: none is changed."""
    addresses = {}
    for own in (True, False):
        root = tmp_path_factory.mktemp("eyes")
        addresses[own] = f"sqlite:///{root}/mlflow.db"
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(root)
            patch.setenv("MLFLOW_TRACKING_URI", addresses[own])
            write_version(root / "version")
            open_their_eyes(root / "version", own)
            promote(root / "version")
    return addresses


@pytest.fixture
def site(registries, tmp_path, monkeypatch):
    """A project whose champion has eyes of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registries[True])
    (tmp_path / "params.yaml").write_text(PARAMS.replace("4999", "999"))
    return Site(tmp_path)
