"""A registry with two versions of one tiny network, and the real service over HTTP before it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from export import known_paths
from filelock import FileLock
from running import Project, png

from benchmarks.tiny_project import pictures
from plumbline.models.export import PROBABILITIES
from plumbline.registry import bundle
from plumbline.registry import versions as registry


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A folder that all of pytest's processes of one run share, and its lock."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "serving"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def exported(shared):
    """Two exported versions' folders: the second answers the other way round. Made once, whoever asks first."""
    with FileLock(shared / ".lock"):
        if not (shared / "two").is_dir():
            # In a process of its own: what is tested here must not have TensorFlow loaded.
            subprocess.run([sys.executable, str(Path(__file__).with_name("export.py")), str(shared)], check=True)
            shutil.copytree(shared / "project" / "exported", shared / "one")
            shutil.copytree(shared / "one", shared / "two.part")
            turn_round(shared / "two.part" / bundle.ONNX)
            (shared / "two.part").rename(shared / "two")
    return shared / "one", shared / "two"


def turn_round(path):
    """Swap the two probabilities of an ONNX file: a version that can be told from the first by every answer."""
    import onnx

    model = onnx.load(str(path))
    place = next(n for n, node in enumerate(model.graph.node) if PROBABILITIES in node.output)
    model.graph.node[place].output[0] = "before"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 0]), "order"))
    model.graph.node.insert(place + 1, onnx.helper.make_node("Gather", ["before", "order"], [PROBABILITIES], axis=1))
    onnx.save(model, str(path))


@pytest.fixture(scope="session")
def registered(shared, exported):
    """A folder `registry` with both versions and no alias, to be copied."""
    home = shared / "registered"
    with FileLock(shared / ".lock"):
        if not (home / "whole").exists():
            opened = registry.open_registry(uri=f"sqlite:///{home}/registry/mlflow.db")
            for number, folder in enumerate(exported):
                copy = home / f"version-{number}"
                shutil.copytree(folder, copy)
                digest = bundle.seal(copy)
                registry.register(opened, copy, digest, "tiny", {}, {"accuracy": 0.9}, {"seed": "0"}, "A page.")
            (home / "whole").touch()
    return home / "registry"


@pytest.fixture(scope="module")
def project(tmp_path_factory, registered):
    """A project whose champion is version 1."""
    return Project(tmp_path_factory.mktemp("project"), registered).champion(1)


@pytest.fixture(scope="module")
def service(project):
    """It, served by two workers."""
    with project.serving("--workers", "2") as running:
        yield running


@pytest.fixture(scope="session")
def known():
    """Pictures of the tiny project: PNG bytes by path."""
    paths = known_paths()
    return {path: png(one) for path, one in zip(paths, pictures(paths), strict=True)}
