"""A frozen backbone runs once per picture: rows are reused, equal everywhere, and precise enough."""

import json

import numpy as np
import pandas as pd
import pytest

from plumbline.common.errors import UserError
from plumbline.models.backbones import Backbone
from plumbline.models.extraction import build_extractor, describe_backbone, featurize, to_half
from plumbline.models.features import open_features
from plumbline.models.networks import NETWORKS
from plumbline.models.weights import Weights

pytestmark = pytest.mark.slow  # networks run and are trained

RANDOM = Weights("mobilenet", "random", "random", None, None, None)
ENTRY = Backbone(image_size=32, weights="random", pooling="average", views=1)


@pytest.fixture
def pictures():
    """Eight pictures by path, the last a copy of the first (same bytes, same id)."""
    random = np.random.default_rng(0)
    images = {f"{n}.jpg": random.integers(0, 256, (32, 32, 3), dtype=np.uint8) for n in range(7)}
    return {**images, "7.jpg": images["0.jpg"]}


def manifest_of(paths):
    return pd.DataFrame({"path": paths, "id": ["id0" if path == "7.jpg" else f"id{path[0]}" for path in paths]})


class Reader:
    """Yields pictures as imaging.iter_rgb does and remembers which were asked for."""

    def __init__(self, pictures):
        self.pictures, self.asked = pictures, []

    def __call__(self, paths, ids, size):
        self.asked += paths
        return (self.pictures[path] for path in paths)


def run(out, pictures, paths, entry=ENTRY, weights=RANDOM, channels=None):
    reader = Reader(pictures)
    featurize(manifest_of(paths), reader, "mobilenet", entry, [weights], out, channels=channels)
    return open_features(out), reader.asked


def test_rows_follow_the_manifest_and_copies_share_a_row(tmp_path, pictures):
    features, asked = run(tmp_path / "f", pictures, list(pictures))
    assert features.values.shape == (8, 2, 1024)
    assert asked == list(pictures)[:7]
    np.testing.assert_array_equal(features.values[7], features.values[0])
    assert not np.array_equal(features.values[0], features.values[1])
    assert not np.array_equal(features.values[0, 0], features.values[0, 1]), "an augmented view differs"


def test_a_new_picture_costs_one_picture(tmp_path, pictures):
    first, _ = run(tmp_path / "f", pictures, list(pictures)[:5])
    first = np.array(first.values)
    second, asked = run(tmp_path / "f", pictures, list(pictures)[1:6])
    assert asked == ["5.jpg"]
    np.testing.assert_array_equal(second.values[:4], first[1:5])


def test_rows_of_other_settings_or_weights_are_not_taken_over(tmp_path, pictures):
    run(tmp_path / "f", pictures, ["0.jpg"])
    other = ENTRY.model_copy(update={"seed": 1})
    _, asked = run(tmp_path / "f", pictures, ["0.jpg"], entry=other)
    assert asked == ["0.jpg"]
    _, asked = run(tmp_path / "f", pictures, ["0.jpg"], entry=other, channels="rgb")
    assert asked == ["0.jpg"]


def test_rows_made_by_other_code_are_not_taken_over(tmp_path, pictures):
    run(tmp_path / "f", pictures, ["0.jpg"])
    record = tmp_path / "f" / "backbone.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "code": "older"}))
    assert run(tmp_path / "f", pictures, ["0.jpg"])[1] == ["0.jpg"]


def test_the_same_pictures_give_the_same_bytes(tmp_path, pictures):
    for folder in ("one", "two"):
        run(tmp_path / folder, pictures, list(pictures))
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name


def test_a_row_does_not_depend_on_its_neighbours(tmp_path, pictures):
    """The batch a picture falls into must not show in its features beyond float16 rounding."""
    together, _ = run(tmp_path / "f", pictures, list(pictures)[:7])
    alone, _ = run(tmp_path / "g", pictures, ["3.jpg"])
    np.testing.assert_allclose(alone.values[0], together.values[3], rtol=2e-3, atol=1e-4)


def test_pixels_are_kept_as_they_are(tmp_path, pictures):
    reader = Reader(pictures)
    none = Weights("pixels", "random", "none", None, None, None)
    record = featurize(manifest_of(["0.jpg"]), reader, "pixels", Backbone(image_size=32), [none], tmp_path / "f")
    features = open_features(tmp_path / "f")
    np.testing.assert_array_equal(features.values[0, 0], pictures["0.jpg"])
    assert features.values.dtype == np.uint8
    assert record.parameters == 0


def test_a_missing_picture_is_named(tmp_path, pictures):
    features, _ = run(tmp_path / "f", pictures, ["0.jpg"])
    with pytest.raises(UserError, match=r"9\.jpg has no features of mobilenet"):
        features.rows_of(["0.jpg", "9.jpg"])


def test_features_beyond_float16_are_refused_not_stored_as_infinity():
    with pytest.raises(UserError, match="more than float16 holds"):
        to_half(np.array([1.0, 1e6]))


@pytest.mark.parametrize("network", sorted(name for name, network in NETWORKS.items() if network.bfloat16))
def test_bfloat16_features_stay_within_cosine_0_999(network):
    """Pooled features under mixed_bfloat16 against float32, on structured pictures, as the gate for using it."""
    random = np.random.default_rng(1)
    coarse = random.uniform(0, 255, (4, 7, 7, 3))
    images = np.kron(coarse, np.ones((1, 16, 16, 1))).astype(np.float32)
    weights = Weights(network, "random", "random", None, None, None)
    pooled = {}
    for precision in ("float32", "mixed_bfloat16"):
        entry = Backbone(image_size=112, weights="random", pooling="average", precision=precision)
        pooled[precision] = build_extractor(describe_backbone(network, entry, [weights]), [None]).extract(images)
    exact, rounded = (values.astype(np.float64) for values in pooled.values())
    assert not np.array_equal(exact, rounded), "bfloat16 was not used at all"
    cosine = (exact * rounded).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(rounded, axis=1)
    assert cosine.min() >= 0.999


def test_random_weights_that_nobody_asked_for_run_once_and_are_said_to_be_worthless_first(tmp_path, pictures, capsys):
    found = Weights("mobilenet", "auto", "random", None, None, None)
    entry = ENTRY.model_copy(update={"weights": "auto"})

    class Aloud(Reader):
        def __call__(self, paths, ids, size):
            self.said = capsys.readouterr().err
            return super().__call__(paths, ids, size)

    reader = Aloud(pictures)
    featurize(manifest_of(list(pictures)), reader, "mobilenet", entry, [found], tmp_path / "f")
    features = open_features(tmp_path / "f")
    assert features.values.shape == (8, 1, 1024)
    assert features.backbone.views_left_out == 1
    assert "NO PRETRAINED WEIGHTS" in reader.said
    assert "its 1 augmented views are left out" in reader.said
    asked_for, _ = run(tmp_path / "asked", pictures, list(pictures))
    # With its views a picture lies in another batch, which may round otherwise.
    np.testing.assert_allclose(features.values[:, 0], asked_for.values[:, 0], rtol=2e-3, atol=1e-4)
    assert asked_for.backbone.views_left_out == 0


def test_the_size_of_a_batch_changes_no_row(tmp_path, pictures):
    small, _ = run(tmp_path / "small", pictures, list(pictures), ENTRY.model_copy(update={"batch_size": 4}))
    again, _ = run(tmp_path / "again", pictures, list(pictures), ENTRY.model_copy(update={"batch_size": 4}))
    large, _ = run(tmp_path / "large", pictures, list(pictures), ENTRY.model_copy(update={"batch_size": 64}))
    np.testing.assert_array_equal(small.values, again.values)
    np.testing.assert_allclose(small.values, large.values, rtol=0.02, atol=0.02)
