"""Promotion brings drift's eyes along where pretrained weights are at hand, and says so where they are not."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks.tiny_project import pictures, whole_project
from monitoring import drift
from monitoring.reference import load_reference
from monitoring.site_state import LOOKS, SiteState
from plumbline.common.errors import UserError
from plumbline.models.export import Embedder, OnnxModel
from plumbline.models.networks import NETWORKS
from plumbline.models.weights import Weights
from plumbline.registry import bundle, eyes, folder
from plumbline.registry import versions as registry
from plumbline.registry.eyes import alike, read_eyes
from plumbline.registry.folder import build_folder, sample_reference
from plumbline.registry.promotion import PromoteParams, Wish, promote

pytestmark = pytest.mark.slow

PARAMS = PromoteParams(minimum_unseen_groups=3)
SIDE = 32


@pytest.fixture
def project(tiny_projects, empty_registry, monkeypatch):
    """A project with a candidate to promote, which drift will look at through eyes of SIDE pixels."""
    shutil.copytree(tiny_projects / "good" / "build", empty_registry / "build")
    for module, name in ((eyes, "SIZE"), (folder, "EYES_SIZE")):
        monkeypatch.setattr(module, name, SIDE)
    return whole_project(empty_registry)


def promoted(project, network: str = "mobilenet_v2") -> Path:
    result = promote(PARAMS, Wish(), replace(project, export=partial(build_folder, eyes=network)))
    assert result.outcome == "promoted"
    return registry.load_version().folder / bundle.HOME / "reference"


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Weights of MobileNetV2 as if they were published, drawn at random."""
    import keras

    (tmp_path / "weights").mkdir()
    keras.utils.set_random_seed(0)
    network = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    network.save_weights(tmp_path / "weights" / NETWORKS["mobilenet_v2"].local_file)
    monkeypatch.setenv("PLUMBLINE_WEIGHTS", str(tmp_path / "weights"))


def test_eyes_travel_in_the_version_and_a_site_is_judged_through_them(project, weights, tmp_path, monkeypatch):
    home = promoted(project)
    record = read_eyes(home)
    assert (record.network, record.origin, record.through) == ("mobilenet_v2", "imagenet", "its own network")
    pool = pd.read_parquet(home / "pool.parquet")
    splits = pd.read_parquet("build/splits.parquet")
    assert sorted(pool["path"]) == sorted(splits["path"])
    assert set(pd.read_parquet(home / "images.parquet")["split"]) == {"validation", "test"}
    seen = np.load(home / "pool_seen.npy")
    assert seen.shape == (len(pool), 1280)
    few = np.stack(list(pictures(list(pool["path"][:3]), SIDE)))
    network = Embedder(home / "eyes.onnx")
    np.testing.assert_allclose(seen[:3], network(few), rtol=0.01, atol=1e-3)

    (tmp_path / "params.yaml").write_text(
        "data: {}\ngroup: {}\npromote: {}\nsites: {}\n"
        "drift: {permutations: 199, label_first: 0, minimum_groups: 5, minimum_images: 30}\n"
    )
    for number in range(40):
        label = ("with_helmet", "without_helmet")[number % 2]
        (picture,) = pictures([f"{label}/{1000 + number}.png"], SIDE)
        path = tmp_path / "incoming" / "GATE" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        out = io.BytesIO()
        Image.fromarray(picture).save(out, "PNG")
        path.write_bytes(out.getvalue())
    monkeypatch.setattr(drift, "keep_history", lambda *_: [])
    drift.main(["GATE"])
    result = SiteState(tmp_path / "drift", "GATE").result("0001")
    assert f"against {len(pool)} images" in result["basis"]
    assert "places" in {test["name"] for test in result["tests"]}
    with np.load(tmp_path / "drift/GATE/windows/0001" / LOOKS) as kept:
        assert kept["seen"].shape == (40, 1280)


def test_without_weights_the_version_says_so_and_monitoring_what_it_may_miss(project, monkeypatch):
    monkeypatch.delenv("PLUMBLINE_WEIGHTS", raising=False)
    monkeypatch.setenv("PLUMBLINE_OFFLINE", "1")
    monkeypatch.setenv("KERAS_HOME", str(Path("nothing").absolute()))
    home = promoted(project)
    record = read_eyes(home)
    assert (record.origin, record.through) == ("random", "the champion's")
    assert not (home / "eyes.onnx").exists()
    assert not (home / "pool_seen.npy").exists()
    (note,) = drift.blind(load_reference(registry.load_version()), None)
    assert note.startswith("No pretrained weights of mobilenet_v2 were at hand at its promotion.")


def test_a_network_that_nobody_knows_is_refused(project):
    with pytest.raises(UserError, match="no network is called 'mobilnet'"):
        promoted(project, "mobilnet")


def test_a_champion_that_sees_the_same_embeds_for_drift_too(project, tmp_path, monkeypatch):
    home = promoted(project, eyes.OWN)
    champion = OnnxModel(home.parent.parent / bundle.ONNX)
    monkeypatch.setattr(eyes, "Embedder", lambda _: lambda batch: champion(batch)[1])
    monkeypatch.setattr(eyes, "export_eyes", lambda *_: (tmp_path / "eyes.onnx").write_bytes(b"x"))
    found = Weights("mobilenet_v2", "auto", "imagenet", "file", "0", tmp_path / "file")
    monkeypatch.setattr(eyes, "resolve_weights", lambda *_: found)
    sample = np.stack(list(pictures(["with_helmet/1.png"], champion.image_size)))
    record = eyes.make_eyes(tmp_path, "mobilenet_v2", champion, sample)
    assert record.through == "the champion's, which is the same network"
    assert not (tmp_path / "eyes.onnx").exists()


def test_embeddings_are_alike_up_to_rounding():
    ours = np.random.default_rng(0).normal(size=(4, 8))
    assert alike(ours, ours + 1e-5)
    assert not alike(ours, ours + 0.1)
    assert not alike(ours, ours[:, :5])


class Split:
    """What sample_reference reads of a chosen candidate: groups of two images, 30, 10 and 10 of them on the sides."""

    def __init__(self) -> None:
        paths = [f"{number:03d}.png" for number in range(100)]
        split = ["train"] * 60 + ["validation"] * 20 + ["test"] * 20
        groups = [f"g{number // 2}" for number in range(100)]
        self.splits = pd.DataFrame({"path": paths, "id": paths, "label": "a", "group": groups, "split": split})
        self.manifest = pd.DataFrame({"path": paths, "width": 5})


def test_the_reference_is_whole_groups_half_of_them_unseen_and_always_the_same():
    drawn = sample_reference(Split(), 50)
    assert len(drawn) == 50
    assert (drawn["split"] == "train").sum() == 26
    assert set(drawn["group"].value_counts()) == {2}
    pd.testing.assert_frame_equal(drawn, sample_reference(Split(), 50))
    assert len(sample_reference(Split(), 1000)) == 100
