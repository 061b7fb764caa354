"""What a trained model must do on real photographs: the tests a person would make by hand.

They need ../shared (631 crops and MobileNetV2's ImageNet weights) and are skipped, saying so, where it is missing.
"""

import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from plumbline.common.records import write_record
from plumbline.imaging.reading import iter_rgb
from plumbline.imaging.settings import DataParams
from plumbline.models.assemble import load_candidate
from plumbline.models.backbones import Backbone
from plumbline.models.candidates import Candidate, Head
from plumbline.models.extraction import featurize
from plumbline.models.features import open_features
from plumbline.models.training import train
from plumbline.models.weights import resolve_weights
from plumbline.tasks.one_label import ONE_LABEL

SHARED = Path(__file__).parents[3] / "shared"
HELMET = SHARED / "data" / "helmet"
SIZE = 160

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not HELMET.is_dir(), reason="needs ../shared/data/helmet and ../shared/weights"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """MobileNetV2 and a linear head, trained on two thirds of the photographs; returns the whole model and the rest."""
    top = tmp_path_factory.mktemp("behaviour")
    table = pd.read_csv(HELMET / "metadata.csv", dtype=str)[["path", "label", "photo"]]
    place = table["photo"].map(lambda photo: int(hashlib.sha256(photo.encode()).hexdigest(), 16) % 6)
    table = table.assign(
        id=[hashlib.sha256((HELMET / path).read_bytes()).hexdigest() for path in table["path"]],
        group=table["photo"],
        split=place.map(lambda n: "test" if n == 0 else "validation" if n == 1 else "train"),
    )
    entry = Backbone(image_size=SIZE, pooling="average", weights="imagenet")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLUMBLINE_WEIGHTS", str(SHARED / "weights"))
        weights = resolve_weights("mobilenet_v2", "mobilenet_v2", "imagenet")
    data = DataParams(root=HELMET)
    features = top / "features" / "mobilenet_v2"
    featurize(table, lambda p, i, s: iter_rgb(data, p, (s, s), i), "mobilenet_v2", entry, [weights], features)
    candidate = Candidate(architecture="transfer", backbone="mobilenet_v2", head=Head(), epochs=60)
    network, _, _, description = train("x", candidate, table, open_features(features), 0)
    folder = top / "candidates" / "x"
    folder.mkdir(parents=True)
    network.save_weights(folder / "head.weights.h5")
    write_record(folder / "model.json", description)
    test = table[table["split"] == "test"]
    pictures = np.stack(list(iter_rgb(data, list(test["path"]), (SIZE, SIZE))))
    whole = load_candidate(folder, features)

    def scores(images):
        """p(with_helmet) of pictures (N, S, S, 3)."""
        return ONE_LABEL.probabilities(whole.predict(np.asarray(images, np.float32), verbose=0))[:, 0]

    return scores, pictures, (test["label"] == "with_helmet").to_numpy()


def test_it_is_right_often_enough_to_be_asked_more(model):
    scores, pictures, helmet = model
    assert ((scores(pictures) > 0.5) == helmet).mean() > 0.9


def test_mirroring_changes_few_answers(model):
    scores, pictures, _ = model
    assert ((scores(pictures) > 0.5) == (scores(pictures[:, :, ::-1]) > 0.5)).mean() >= 0.95


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_a_little_more_or_less_light_changes_few_answers(model, factor):
    scores, pictures, _ = model
    changed = np.clip(pictures * factor, 0, 255)
    assert ((scores(pictures) > 0.5) == (scores(changed) > 0.5)).mean() >= 0.95


def test_painting_over_the_helmet_lowers_its_score(model):
    """The upper middle of the crop, where a helmet is, in grey; the same patch low on the body must matter less."""
    scores, pictures, helmet = model
    sure = pictures[helmet & (scores(pictures) > 0.5)]
    before = scores(sure)

    def painted(top):
        changed = sure.copy()
        changed[:, top : top + SIZE // 2, SIZE // 5 : -SIZE // 5] = 127
        return scores(changed)

    over, under = painted(0), painted(SIZE // 2)
    assert (over < before).mean() > 0.8
    assert (before - over).mean() > 2 * (before - under).mean()
