"""A candidate learns, repeats itself exactly, and comes back from disk as the same model."""

import functools
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from plumbline.common import artefacts
from plumbline.common.errors import UserError
from plumbline.common.records import write_record
from plumbline.models.architectures import simple_cnn as architecture
from plumbline.models.assemble import load_candidate, whole_of
from plumbline.models.backbones import Backbone, resolve_entry
from plumbline.models.candidates import Candidate, FineTuning, Head
from plumbline.models.extraction import featurize
from plumbline.models.features import open_features, read_rows
from plumbline.models.fitting import balanced_weights, targets_of
from plumbline.models.folds import FoldAnswers, folds_of
from plumbline.models.networks import kernel_layers
from plumbline.models.trainable import cut_networks
from plumbline.models.training import TrainingSet, train
from plumbline.models.weights import Weights
from plumbline.tasks.one_label import ONE_LABEL
from stages import train as stage

pytestmark = pytest.mark.slow

SIZE = 32


def split_table(count, classes=("with_helmet", "without_helmet")):
    labels = [classes[n % len(classes)] for n in range(count)]
    splits = ["train" if n % 10 < 6 else "validation" if n % 10 < 8 else "test" for n in range(count)]
    ids = [f"id{n}" for n in range(count)]
    paths = [f"{label}/{n}.png" for n, label in enumerate(labels)]
    return pd.DataFrame({"path": paths, "id": ids, "label": labels, "split": splits, "group": ids})


def draw(label, random):
    """A class is a colour in the upper half of a noisy picture: easy, but nothing else tells it."""
    image = random.integers(80, 100, (SIZE, SIZE, 3))
    image[: SIZE // 2, :, 0 if label == "with_helmet" else 2] += 90
    return image.astype(np.uint8)


def resized(image, size):
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.NEAREST))


def read(images, paths, ids, size):
    return (resized(images[path], size) for path in paths)


@pytest.fixture(scope="module")
def splits():
    return split_table(100)


@pytest.fixture(scope="module")
def images(splits):
    random = np.random.default_rng(0)
    return {path: draw(label, random) for path, label in zip(splits["path"], splits["label"], strict=True)}


@pytest.fixture(scope="module")
def features(tmp_path_factory, splits, images):
    """Features of every backbone these tests use, by name: the folder."""
    top = tmp_path_factory.mktemp("features")
    entries = {
        "pixels": Backbone(image_size=SIZE),
        "pixels_67": Backbone(network="pixels", image_size=67),
        "mobilenet": Backbone(image_size=SIZE, views=1),
        "hybrid": Backbone(networks=("mobilenet", "mobilenet_v2"), image_size=2 * SIZE, pooling="average"),
        "tuned": Backbone(network="mobilenet", image_size=SIZE, freeze="last_4", pooling="average"),
        "hybrid_tuned": Backbone(networks=("mobilenet", "mobilenet_v2"), image_size=SIZE, freeze="last_4"),
        "all": Backbone(network="mobilenet", image_size=SIZE, freeze="all", pooling="average"),
    }
    for name, entry in entries.items():
        reader = functools.partial(read, images)
        featurize(splits, reader, name, entry, resolve_entry(name, entry), top / name)
    return top


def from_scratch(architecture, backbone="pixels", **settings):
    usual = {"batch_size": 16, "epochs": 12, "learning_rate": 0.003, "early_stopping_patience": 20}
    return Candidate(architecture=architecture, backbone=backbone, plateau_patience=20, **{**usual, **settings})


def on(backbone, head, **settings):
    return from_scratch("transfer", backbone, **{"epochs": 30, **settings}, head=head)


CANDIDATES = {
    "simple_cnn": from_scratch("simple_cnn", learning_rate=0.001),
    "compact_cnn": from_scratch("compact_cnn", width=0.25, schedule="cosine", weight_decay=0.001),
    "custom_cnn": from_scratch("custom_cnn", width=0.125, mirror=True, brightness=0.1),
    "lenet5": from_scratch("lenet5"),
    "alexnet": from_scratch("alexnet", "pixels_67", width=0.05, learning_rate=0.001),
    "se_resnet": from_scratch("se_resnet", width=0.25),
    "inception_small": from_scratch("inception_small", width=0.5),
    "densenet_small": from_scratch("densenet_small", width=0.5),
    "transfer": Candidate(
        architecture="transfer",
        backbone="mobilenet",
        head=Head(hidden=(16,), dropout=0.2),
        augmented=True,
        batch_size=16,
        epochs=40,
        learning_rate=0.003,
        early_stopping_patience=40,
        plateau_patience=40,
    ),
    "hybrid": on("hybrid", Head(hidden=(64,), output="softmax")),
    "part_of_hybrid": on("hybrid", Head(), networks=("mobilenet_v2",)),
    "tuned": on("tuned", Head(), epochs=10, fine_tuning=FineTuning(epochs=3, learning_rate=1e-4)),
    "hybrid_tuned": on("hybrid_tuned", Head(), epochs=10, fine_tuning=FineTuning(epochs=2, learning_rate=1e-4)),
    "all": on("all", Head(), epochs=1, fine_tuning=FineTuning(epochs=1, learning_rate=1e-4)),
}


@functools.cache
def trained_once(name, splits, features, seed):
    """Training is deterministic, which a test below proves, so that the others may share its result."""
    return train(name, CANDIDATES[name], splits.table, open_features(features / CANDIDATES[name].backbone), seed)


def trained(name, splits, features, seed=1):
    return trained_once(name, Hashable(splits), features, seed)


class Hashable:
    """A table as a key of the cache: two tables are the same key where their contents are the same."""

    def __init__(self, table):
        self.table = table
        self.key = table.to_csv()

    def __eq__(self, other):
        return self.key == other.key

    def __hash__(self):
        return hash(self.key)


@pytest.mark.parametrize("name", [name for name in CANDIDATES if name != "all"])  # a whole network takes its time
def test_it_fits_a_tiny_set(name, splits, features):
    _, history, predictions, model = trained(name, splits, features)
    right = predictions["p_without_helmet"].gt(0.5) == predictions["label"].eq("without_helmet")
    assert right[predictions["split"] == "train"].mean() > 0.95
    assert list(history.columns) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    assert model.epochs_run == len(history)
    np.testing.assert_allclose(predictions[["p_with_helmet", "p_without_helmet"]].sum(axis=1), 1)


@pytest.mark.parametrize("name", ["custom_cnn", "transfer", "tuned"])
def test_the_same_seed_gives_the_same_weights_and_predictions(name, splits, features):
    candidate = CANDIDATES[name]
    one, _, first, _ = trained(name, splits, features)
    (two, _, second, _), (_, _, other, _) = (
        train(name, candidate, splits, open_features(features / candidate.backbone), seed) for seed in (1, 4)
    )
    for left, right in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)
    pd.testing.assert_frame_equal(first, second)
    assert not first["p_with_helmet"].equals(other["p_with_helmet"])


@pytest.mark.parametrize("name", CANDIDATES)
def test_the_whole_model_comes_back_from_disk(name, splits, features, images, tmp_path):
    network, _, predictions, model = trained(name, splits, features)
    network.save_weights(tmp_path / "head.weights.h5")
    write_record(tmp_path / "model.json", model)
    whole = load_candidate(tmp_path, features / CANDIDATES[name].backbone)
    assert whole.count_params() == model.parameters
    size = whole.input_shape[1]
    pixels = np.stack([resized(images[path], size) for path in predictions["path"]]).astype(np.float32)
    again = ONE_LABEL.probabilities(np.asarray(whole(pixels, training=False)))
    # features are stored in float16; the whole model runs in float32 throughout
    np.testing.assert_allclose(again[:, 1], predictions["p_without_helmet"], atol=5e-3)
    # What has just been trained, as compressing takes it in the race.
    fresh = whole_of(CANDIDATES[name], features / CANDIDATES[name].backbone, network, len(model.classes), ONE_LABEL)
    np.testing.assert_allclose(fresh.predict(pixels[:4], verbose=0), whole.predict(pixels[:4], verbose=0), atol=1e-5)


def test_bfloat16_training_ends_in_a_float32_model(splits, features):
    """Where the processor has no such units TensorFlow computes bfloat16 all the same, only slowly."""
    candidate = CANDIDATES["simple_cnn"].model_copy(update={"precision": "mixed_bfloat16", "epochs": 2})
    network, _, _, model = train("x", candidate, splits, open_features(features / "pixels"), 0)
    assert model.training_precision == "mixed_bfloat16"
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}


def test_several_labels_at_once_are_learnt_each_by_itself(splits, features):
    """with_helmet pictures also carry a vest: a sigmoid each, and probabilities that need not sum to 1."""
    several = splits.assign(label=splits["label"].replace("with_helmet", "with_helmet;vest"))
    _, _, predictions, model = train("x", CANDIDATES["custom_cnn"], several, open_features(features / "pixels"), 0)
    assert list(model.classes) == ["vest", "with_helmet", "without_helmet"]
    assert model.several_labels
    train_rows = predictions[predictions["split"] == "train"]
    for name in model.classes:
        truth = train_rows["label"].str.split(";").map(lambda parts, name=name: name in parts)
        assert (train_rows[f"p_{name}"].gt(0.5) == truth).mean() > 0.95
    assert train_rows[["p_vest", "p_with_helmet", "p_without_helmet"]].sum(axis=1).gt(1.5).any()


def test_more_than_two_classes_are_learnt(splits, features):
    three = splits.assign(label=splits["label"].where(splits.index % 3 > 0, "nobody"))
    _, _, predictions, model = train("x", CANDIDATES["lenet5"], three, open_features(features / "pixels"), 0)
    columns = [f"p_{name}" for name in model.classes]
    assert list(model.classes) == ["nobody", "with_helmet", "without_helmet"]
    np.testing.assert_allclose(predictions[columns].sum(axis=1), 1)


def test_balanced_classes_weigh_the_same():
    targets = targets_of(pd.Series(["a"] * 6 + ["b"] * 2 + ["a"] * 4))
    rows = np.arange(12) < 8
    weights = balanced_weights(targets, rows)
    assert weights[rows & (targets.values == 0)].sum() == pytest.approx(4)
    assert weights[rows & (targets.values == 1)].sum() == pytest.approx(4)
    with pytest.raises(UserError, match="class_weights: balanced is for pictures of one label each"):
        balanced_weights(targets_of(pd.Series(["a;b", "a"])), np.array([True, True]))


def test_balanced_training_is_given_the_weights(splits, features):
    opened = open_features(features / "pixels")
    few = splits.drop(splits.index[(splits["label"] == "with_helmet") & (splits["split"] == "train")][6:])
    candidate = CANDIDATES["lenet5"].model_copy(update={"class_weights": "balanced", "batch_size": 100})
    lesson = TrainingSet.of(few, opened).lesson(candidate, 0)
    _, labels, weights = next(lesson.train.dataset().as_numpy_iterator())
    assert weights[labels == 0].sum() == pytest.approx(weights[labels == 1].sum())
    assert len(lesson.validation.dataset().element_spec) == 2, "what is measured is not weighed"
    assert lesson.chance_loss == pytest.approx(np.log(2)), "weighed so, the classes are as if equally frequent"


def test_decay_divides_the_learning_rate(splits, features):
    candidate = CANDIDATES["lenet5"].model_copy(update={"epochs": 3, "decay": 0.1})
    _, history, _, _ = train("x", candidate, splits, open_features(features / "pixels"), 0)
    steps = -(-(splits["split"] == "train").sum() // 16)
    expected = [0.003 / (1 + 0.1 * steps * epoch) for epoch in range(3)]
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5)


def test_cosine_lets_the_learning_rate_fall_to_nothing(splits, features):
    _, history, _, _ = trained("compact_cnn", splits, features)
    expected = 0.003 * (1 + np.cos(np.pi * np.arange(12) / 12)) / 2
    np.testing.assert_allclose(history["learning_rate"], expected, rtol=1e-5)


def test_a_backbone_cut_before_its_end_is_fine_tuned_after_the_head(splits, features):
    network, history, _, model = trained("tuned", splits, features)
    assert list(history["epoch"]) == list(range(1, len(history) + 1))
    assert history["learning_rate"].iloc[-1] <= 1e-4 < history["learning_rate"].iloc[0]
    backbone = open_features(features / "tuned").backbone
    start = cut_networks(backbone, str(features / "tuned" / "backbone.weights.h5"))["mobilenet"][1]
    upper = network.get_layer(start.name)
    kernel = kernel_layers(upper)[0].name
    assert not np.array_equal(upper.get_layer(kernel).get_weights()[0], start.get_layer(kernel).get_weights()[0])
    assert model.trainable_parameters > sum(layer.count_params() for layer in kernel_layers(upper))
    assert model.parameters == 3_228_864 + 1_025


def test_a_part_of_several_networks_counts_only_what_it_uses(splits, features):
    assert trained("part_of_hybrid", splits, features)[3].parameters == 2_257_984 + 1_281
    model = trained("hybrid", splits, features)[3]
    assert model.parameters == 3_228_864 + 2_257_984 + (1_024 + 1_280 + 1) * 64 + 65 * 2
    candidate = CANDIDATES["part_of_hybrid"].model_copy(update={"networks": ("vgg16",)})
    with pytest.raises(UserError, match=r"backbones\.hybrid has no network 'vgg16': it has mobilenet, mobilenet_v2"):
        train("x", candidate, splits, open_features(features / "hybrid"), 0)


def test_the_test_pictures_are_never_trained_on(splits, features):
    """Other labels on the test pictures change nothing but the labels."""
    flipped = splits.copy()
    test = flipped["split"] == "test"
    flipped.loc[test, "label"] = flipped.loc[test, "label"].map(
        {"with_helmet": "without_helmet", "without_helmet": "with_helmet"}
    )
    honest, peeking = (trained("lenet5", table, features)[2] for table in (splits, flipped))
    np.testing.assert_array_equal(honest["p_with_helmet"], peeking["p_with_helmet"])


def with_dead_starts(monkeypatch, dead):
    """The first `dead` networks that are built begin with relus whose input is below zero for every picture."""
    build, built = architecture.build, []

    def sometimes_dead(*arguments):
        network = build(*arguments)
        built.append(network)
        if len(built) <= dead:
            kernel, bias = network.layers[-2].get_weights()
            network.layers[-2].set_weights([kernel * 0, bias - 1])
        return network

    monkeypatch.setattr(architecture, "build", sometimes_dead)
    return built


def test_a_dead_start_is_told_and_another_initialisation_learns(splits, features, monkeypatch, capsys):
    candidate = CANDIDATES["simple_cnn"].model_copy(update={"precision": "float32"})
    built = with_dead_starts(monkeypatch, 1)
    _, history, predictions, model = train("x", candidate, splits, open_features(features / "pixels"), 1)
    assert len(built) == 2
    assert (model.status, model.starts, model.epochs_run) == ("trained", 2, len(history))
    right = predictions["p_without_helmet"].gt(0.5) == predictions["label"].eq("without_helmet")
    assert right[predictions["split"] == "train"].mean() > 0.95
    assert "x: start 1 gave every picture the same answer after 3 epochs" in capsys.readouterr().err
    assert model.trouble == ["From its first initialisation it gave every picture the same answer; start 2 is shown."]


def test_a_network_that_never_begins_is_given_up_and_can_t_be_chosen(splits, features, monkeypatch, capsys):
    candidate = CANDIDATES["simple_cnn"].model_copy(update={"precision": "float32"})
    built = with_dead_starts(monkeypatch, 99)
    model = train("x", candidate, splits, open_features(features / "pixels"), 1).model
    assert len(built) == 4
    assert (model.status, model.starts) == ("constant", 4)
    assert capsys.readouterr().err.splitlines()[-1].endswith("the same answer, whatever it starts from")


def test_the_same_seed_gives_the_same_weights_after_a_dead_start(splits, features, monkeypatch):
    candidate = CANDIDATES["simple_cnn"].model_copy(update={"precision": "float32", "epochs": 4})
    opened = open_features(features / "pixels")
    with_dead_starts(monkeypatch, 1)
    one = train("x", candidate, splits, opened, 1).network
    monkeypatch.undo()
    with_dead_starts(monkeypatch, 1)
    two = train("x", candidate, splits, opened, 1).network
    for left, right in zip(one.get_weights(), two.get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", ["simple_cnn", "compact_cnn"])
def test_a_candidate_that_diverges_ends_with_finite_weights_and_says_so(name, splits, features, capsys):
    candidate = CANDIDATES[name].model_copy(update={"learning_rate": 1e30, "precision": "float32"})
    network, history, predictions, model = train("x", candidate, splits, open_features(features / "pixels"), 0)
    assert model.status == "diverged"
    assert len(history) < candidate.epochs
    assert all(np.isfinite(part).all() for part in network.get_weights())
    assert np.isfinite(predictions["p_with_helmet"]).all()
    assert "its training diverged" in capsys.readouterr().err.splitlines()[-1]


def test_pictures_that_are_all_the_same_teach_nothing(splits, tmp_path):
    grey = np.full((SIZE, SIZE, 3), 90, np.uint8)
    entry = Backbone(image_size=SIZE)
    reader = functools.partial(read, dict.fromkeys(splits["path"], grey))
    featurize(splits, reader, "pixels", entry, resolve_entry("pixels", entry), tmp_path / "pixels")
    model = train("x", CANDIDATES["lenet5"], splits, open_features(tmp_path / "pixels"), 0).model
    assert model.status == "constant"


def test_a_training_prints_one_line(splits, features, capfd):
    train("x", CANDIDATES["lenet5"], splits, open_features(features / "pixels"), 0)
    captured = capfd.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert re.fullmatch(r"x: 12 epochs in \d+ s, best \d+: validation loss \d\.\d+, accuracy \d\.\d+", line)


def test_augmented_needs_views(splits, features):
    candidate = CANDIDATES["simple_cnn"].model_copy(update={"augmented": True})
    with pytest.raises(UserError, match=r"candidates\.simple_cnn\.augmented needs augmented views"):
        train("simple_cnn", candidate, splits, open_features(features / "pixels"), 0)


def test_without_pretrained_weights_an_augmented_candidate_is_trained_without_views(splits, images, tmp_path):
    entry = Backbone(image_size=SIZE, weights="auto", views=1)
    weights = [Weights("mobilenet", "auto", "random", None, None, None)]
    featurize(splits, functools.partial(read, images), "mobilenet", entry, weights, tmp_path / "mobilenet")
    model = train("x", CANDIDATES["transfer"], splits, open_features(tmp_path / "mobilenet"), 0).model
    assert model.without_views
    assert model.trouble == [
        "No pretrained weights were found for its backbone, so it was trained without augmented views."
    ]


def test_model_json_says_where_weights_came_from(splits, features):
    assert trained("transfer", splits, features)[3].weights == "random"
    model = trained("simple_cnn", splits, features)[3]
    assert model.weights == "from scratch"
    json.dumps(model.content(), allow_nan=False)


def test_rows_are_read_in_the_order_asked_for(tmp_path):
    values = np.arange(30 * 2 * 3, dtype=np.float16).reshape(30, 2, 3)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    rows, views = np.random.default_rng(0).integers(0, 30, 21), np.random.default_rng(1).integers(0, 2, 21)
    read = read_rows(mapped, rows, views)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, values[rows, views])


NARROW = {"architecture": "compact_cnn", "backbone": "pixels", "width": 0.125, "epochs": 2, "batch_size": 16}


def test_a_student_is_given_hints_from_its_teachers_folder_and_in_the_race_by_one_without_the_fold(
    splits, features, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    artefacts.FEATURES.path.mkdir(parents=True)
    (artefacts.FEATURES / "pixels").symlink_to(features / "pixels")
    splits.to_parquet(artefacts.SPLITS.path, index=False)
    pupils = {
        name: NARROW | {"teacher": "wise", "distillation": {"hints": {"weight": weight, "stride": 8}}}
        for name, weight in (("pupil", 3.0), ("deaf", 0.0))
    }
    sections = {"candidates": {"wise": {**NARROW, "width": 0.25}}, "students": pupils, "train": {"seed": 0}}
    Path("params.yaml").write_text(yaml.safe_dump(sections))
    for name in ("wise", *pupils):
        monkeypatch.setattr("sys.argv", ["train", name])
        stage.main()
    tables = {name: pd.read_parquet(artefacts.CANDIDATES / name / artefacts.PREDICTIONS) for name in pupils}
    assert (tables["pupil"]["p_with_helmet"] != tables["deaf"]["p_with_helmet"]).any()
    assert load_candidate(artefacts.CANDIDATES / "pupil", artefacts.FEATURES / "pixels").name == "compact_cnn"

    part, stored = folds_of(splits, 2, 0), open_features(artefacts.FEATURES / "pixels")
    asked = FoldAnswers(splits, part, 0, tmp_path)
    teacher = Candidate.model_validate(sections["candidates"]["wise"]), stored
    said = [asked.of(name, Candidate.model_validate(pupils[name]), stored, 0, None, teacher) for name in pupils]
    assert len(said[0]) == (part == 0).sum()
    assert (said[0]["p_with_helmet"] != said[1]["p_with_helmet"]).any()
