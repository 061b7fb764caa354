"""`plumbline similar`: the nearest known pictures, and whether likeness tells who belongs together."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from plumbline.commands.similar import default_space
from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.files import write_table
from plumbline.models.backbones import Backbone, resolve_entry
from plumbline.models.extraction import featurize, read_pictures
from plumbline.models.similar import most_similar, open_space, unit_vectors, verify

pytestmark = pytest.mark.slow

TOP = Path(__file__).resolve().parents[3]
SIZE, SCENES, SHOTS = 64, 10, 4


def scene(number, shot):
    """Shot `shot` of scene `number`: the same blocks of colour, a little noise."""
    coarse = np.random.default_rng(number).uniform(0, 255, (4, 4, 3))
    noise = np.random.default_rng([number, shot]).normal(0, 8, (SIZE, SIZE, 3))
    return (coarse.repeat(16, 0).repeat(16, 1) + noise).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with pictures, splits, features of an untrained network and a triplet candidate on them."""
    folder = tmp_path_factory.mktemp("project")
    before = Path.cwd()
    os.chdir(folder)
    try:
        make_project()
    finally:
        os.chdir(before)
    return folder


def make_project():
    from plumbline.imaging.settings import DataParams
    from stages import train

    rows = []
    for number in range(SCENES):
        label = "ab"[number % 2]
        Path("data", label).mkdir(parents=True, exist_ok=True)
        for shot in range(SHOTS):
            path = f"{label}/{number}_{shot}.png"
            Image.fromarray(scene(number, shot)).save(Path("data", path))
            rows.append((path, label, f"g{number}", ("train", "train", "validation", "test", "test")[number // 2]))
    splits = pd.DataFrame(rows, columns=["path", "label", "group", "split"])
    import hashlib

    splits["id"] = [hashlib.sha256(Path("data", path).read_bytes()).hexdigest() for path in splits["path"]]
    write_table(artefacts.SPLITS, splits)
    backbone = {"network": "efficientnet_lite0", "image_size": SIZE, "pooling": "average"}
    triplet = {"architecture": "triplet", "backbone": "lite", "epochs": 2, "triplet": {"units": 8}}
    params = {
        "data": {"root": "data"},
        "group": {"embedding": "lite"},
        "backbones": {"lite": backbone, "pixels": {"image_size": SIZE}},
        "candidates": {"near": triplet},
        "train": {"seed": 0},
    }
    Path("params.yaml").write_text(yaml.safe_dump(params))
    data = DataParams.model_validate({"root": "data"})
    for name, entry in params["backbones"].items():
        made = Backbone(**entry)
        featurize(
            splits,
            lambda paths, ids, size: read_pictures(data, paths, ids, size),
            name,
            made,
            resolve_entry(name, made),
            artefacts.FEATURES / name,
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train", "near"])
        train.main()


def similar(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "plumbline.cli", "similar", *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(TOP), "COLUMNS": "120", "TERM": "dumb"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_new_shot_of_a_scene_finds_the_others(project, tmp_path):
    Image.fromarray(scene(3, 99)).save(tmp_path / "new.png")
    code, out, err = similar(project, tmp_path / "new.png", "--count", 4)
    assert code == 0, err
    lines = [line.split() for line in out.splitlines()]
    assert [line[2] for line in lines] == ["g3"] * SHOTS
    assert all(line[1] == "b" and line[3].startswith("data/b/3_") for line in lines)
    cosines = [float(line[0]) for line in lines]
    assert cosines == sorted(cosines, reverse=True)
    assert cosines[-1] > 0.9


def test_verification_by_a_triplet_candidate(project):
    code, out, err = similar(project, "--verify", "--by", "near")
    assert code == 0, err
    assert f"of one group ({4 * 6}) against others ({16 * 15 // 2 - 24})" in out
    curve = pd.read_csv(project / "build/verification/near.csv")
    assert {"threshold", "false_positive_rate", "true_positive_rate"} == set(curve)


def test_mistakes_are_one_sentence(project, tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("no picture")
    code, _, err = similar(project, tmp_path / "text.png")
    assert code == 1
    assert "text.png can't be read as a picture (" in err.splitlines()[-1]
    monkeypatch.chdir(project)
    with pytest.raises(UserError, match="pixels reads the pictures themselves"):
        open_space("pixels")
    with pytest.raises(UserError, match="no_such"):
        open_space("no_such")
    assert default_space() == "lite"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("group: {embedding: pixels}")
    with pytest.raises(UserError, match="say --by BACKBONE"):
        default_space()


def test_verification_counts_every_pair():
    random = np.random.default_rng(0)
    centres = random.normal(size=(8, 6))
    groups = np.repeat(np.arange(8), 3)
    vectors = unit_vectors(centres[groups] + random.normal(0, 0.05, (24, 6)), None)
    found = verify(vectors, groups)
    assert (found.same, found.different) == (24, 24 * 23 // 2 - 24)
    assert found.area > 0.99
    assert found.error < 0.05
    by_chance = verify(unit_vectors(random.normal(size=(200, 6)), None), np.arange(200) // 2)
    assert abs(by_chance.area - 0.5) < 0.12
    for alike in (np.zeros(24), np.arange(24)):
        with pytest.raises(UserError, match="there is nothing to tell apart"):
            verify(vectors, alike)


def test_the_nearest_come_first_and_ties_by_path(project, monkeypatch):
    monkeypatch.chdir(project)
    space = open_space("lite")
    path = space.paths[5]
    nearest = most_similar(space, space.vectors[5], 3)
    assert nearest[0][0] == path
    assert nearest[0][1] == pytest.approx(1)
    assert path not in [one for one, _ in most_similar(space, space.vectors[5], 3, without=path)]
