"""Every subset of a hybrid's networks is judged, on pictures disturbed the same way every time."""

import numpy as np
import pandas as pd
import pytest

from plumbline.evidence.ablation import (
    CONDITIONS,
    Ablation,
    ablate,
    build_extractor,
    disturb,
    disturbed_features,
    subsets,
    verdict,
)
from plumbline.evidence.records import AblationResult, SubsetAccuracy
from plumbline.models.backbones import Backbone
from plumbline.models.candidates import Candidate, Head
from plumbline.models.extraction import featurize
from plumbline.models.features import open_features
from plumbline.models.weights import Weights
from plumbline.pages.ablation import page

pytestmark = pytest.mark.slow

SIZE = 32
NETWORKS = ("mobilenet", "mobilenet_v2")
PARAMS = Ablation(backbone="hybrid", seeds=1)


def picture(path):
    number = int(path.split(".")[0])
    image = np.random.default_rng(number).integers(80, 100, (SIZE, SIZE, 3))
    image += 90 * (number % 2)
    return image.astype(np.uint8)


def read(paths, size):
    return (picture(path) for path in paths)


@pytest.fixture(scope="module")
def splits():
    places = ("train", "validation", "train", "test", "test")
    rows = [(f"{n}.png", f"id{n}", "ab"[n % 2], places[n % 5]) for n in range(60)]
    return pd.DataFrame(rows, columns=["path", "id", "label", "split"])


@pytest.fixture(scope="module")
def features(splits, tmp_path_factory):
    out = tmp_path_factory.mktemp("features") / "hybrid"
    entry = Backbone(networks=NETWORKS, image_size=SIZE, pooling="average")
    featurize(
        splits,
        lambda paths, ids, size: read(paths, size),
        "hybrid",
        entry,
        [Weights("hybrid", "random", "random", None, None, None)] * 2,
        out,
    )
    return open_features(out)


def test_every_subset_is_named_once():
    assert subsets(["a", "b", "c"]) == [("a",), ("b",), ("c",), ("a", "b"), ("a", "c"), ("b", "c"), ("a", "b", "c")]


def test_disturbances_do_what_they_say_and_repeat():
    image = picture("0.png")
    assert disturb(image, "id", "clean", PARAMS) is image
    assert disturb(image, "id", "dark", PARAMS).mean() == pytest.approx(0.3 * image.mean(), abs=0.6)
    covered = (disturb(image, "id", "occluded", PARAMS) != image).any(axis=2)
    rows, columns = np.where(covered)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (round(SIZE * 0.35), round(SIZE * 0.35))
    turned = disturb(image, "id", "rotated", PARAMS)
    assert not np.array_equal(turned, image)
    assert {disturb(image, f"id{n}", "rotated", PARAMS).tobytes() for n in range(20)} >= {turned.tobytes()}
    assert len({disturb(image, f"id{n}", "rotated", PARAMS).tobytes() for n in range(20)}) == 2, "either way"
    np.testing.assert_array_equal(image, picture("0.png"))


def test_the_table_has_every_subset_under_every_condition(splits, features):
    test = splits[splits["split"] == "test"]
    extract = build_extractor(features)
    clean = extract(np.stack(list(read(list(test["path"]), SIZE))).astype(np.float32))
    cached = features.values[features.rows_of(list(test["path"])), 0]
    np.testing.assert_allclose(clean, cached, rtol=2e-3, atol=2e-3)
    disturbed = disturbed_features(test, read, extract, SIZE, PARAMS, batch=5)
    assert {name: values.shape for name, values in disturbed.items()} == dict.fromkeys(CONDITIONS[1:], cached.shape)
    candidate = Candidate(
        architecture="transfer", backbone="hybrid", head=Head(), batch_size=8, epochs=20, learning_rate=0.003
    )
    candidate = candidate.model_copy(update={"early_stopping_patience": 20, "plateau_patience": 20})
    table = ablate(candidate, splits, features, disturbed, PARAMS, 0)
    assert [row.networks for row in table] == subsets(list(NETWORKS))
    assert table[0].parameters + table[1].parameters == table[2].parameters + 1
    assert all(row.accuracy["clean"][0] > 0.85 for row in table)
    result = AblationResult(
        candidate="hybrid",
        weights=dict.fromkeys(NETWORKS, "random"),
        test_images=len(test),
        seeds=1,
        conditions={"dark": 0.3, "occluded": 0.35, "rotated": 20},
        rows=table,
        verdict=verdict(table, len(test)),
    )
    text = page(result)
    assert "mobilenet + mobilenet_v2" in text
    assert "mobilenet has random weights" in text


def test_the_verdict_asks_for_more_than_chance():
    def row(networks, accuracy):
        by_condition = {condition: [accuracy] for condition in CONDITIONS}
        return SubsetAccuracy(networks=networks, parameters=1, accuracy=by_condition)

    table = [row(["a"], 0.90), row(["b"], 0.85), row(["a", "b"], 0.92)]
    assert all("not told apart from a alone (0.900)" in sentence for sentence in verdict(table, 100))
    assert all("better than a alone" in sentence for sentence in verdict(table, 10_000))
