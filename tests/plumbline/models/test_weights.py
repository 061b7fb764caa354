"""Weights come from where params.yaml says, and a fallback is never silent."""

import shutil

import h5py
import pytest

from plumbline.common.errors import UserError
from plumbline.models import weights
from plumbline.models.backbones import Backbone, called, origin_of, record_entry, resolve_entry
from plumbline.models.networks import NETWORKS
from plumbline.models.precision import choose_precision, processor_flags
from plumbline.models.weights import resolve_weights

V2 = NETWORKS["mobilenet_v2"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    """No directory, an empty Keras cache, nothing to download."""
    monkeypatch.delenv("PLUMBLINE_WEIGHTS", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("PLUMBLINE_OFFLINE", "1")


@pytest.fixture
def directory(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("PLUMBLINE_WEIGHTS", str(folder))
    return folder


def resolve(requested="auto"):
    return resolve_weights("mobilenet_v2", "mobilenet_v2", requested)


def test_auto_takes_the_directory_before_the_keras_cache(directory, tmp_path):
    cache = tmp_path / "keras" / "models"
    cache.mkdir(parents=True)
    (cache / V2.keras_file).write_bytes(b"cache")
    assert resolve().path == cache / V2.keras_file
    (directory / V2.local_file).write_bytes(b"directory")
    found = resolve()
    assert (found.origin, found.path) == ("imagenet", directory / V2.local_file)


def test_auto_without_any_says_so_aloud():
    found = resolve()
    assert found.origin == "random"
    assert "NO PRETRAINED WEIGHTS FOUND" in origin_of(found)
    assert "NO PRETRAINED" not in origin_of(resolve("random"))


def test_imagenet_fails_with_one_sentence_where_it_cant_be_had():
    with pytest.raises(UserError, match="no ImageNet weights for MobileNetV2: put mobilenet_v2_1"):
        resolve("imagenet")


def test_random_ignores_files_at_hand(directory):
    (directory / V2.local_file).write_bytes(b"directory")
    assert resolve("random").origin == "random"


def test_a_named_file_is_taken_or_refused(tmp_path):
    file = tmp_path / "mine.weights.h5"
    with pytest.raises(
        UserError, match=r"backbones\.mobilenet_v2\.weights names .*mine\.weights\.h5, which is not a file"
    ):
        resolve(str(file))
    file.write_bytes(b"mine")
    assert resolve(str(file)).origin == "file"


def test_the_same_bytes_elsewhere_are_the_same_weights_to_dvc(directory, tmp_path, monkeypatch):
    (directory / V2.local_file).write_bytes(b"bytes")
    before = resolve().record()
    shutil.move(directory, tmp_path / "moved")
    monkeypatch.setenv("PLUMBLINE_WEIGHTS", str(tmp_path / "moved"))
    assert resolve().record() == before
    (tmp_path / "moved" / V2.local_file).write_bytes(b"other bytes")
    assert resolve().record() != before


def test_a_directory_that_is_none_is_named(monkeypatch):
    monkeypatch.setenv("PLUMBLINE_WEIGHTS", "/no/such/place")
    with pytest.raises(UserError, match="PLUMBLINE_WEIGHTS names /no/such/place"):
        resolve()


def test_without_a_network_the_download_is_given_up_quickly(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.delenv("PLUMBLINE_OFFLINE")
    monkeypatch.setattr(weights.urllib.request, "urlopen", refuse)
    weights._reachable.cache_clear()
    assert resolve().origin == "random"
    weights._reachable.cache_clear()


def test_an_unknown_network_lists_the_known_ones():
    with pytest.raises(UserError, match=r"no network is called 'vgg61': use one of densenet121, .* or 'pixels'"):
        resolve_entry("vgg61", Backbone(image_size=64))


def test_a_file_of_other_weights_is_refused(tmp_path):
    from plumbline.models.networks import build_backbone

    with h5py.File(tmp_path / "other.weights.h5", "w") as file:
        file["a"] = [1.0]
    with pytest.raises(UserError, match="does not hold the weights of MobileNetV2"):
        build_backbone("mobilenet_v2", 64, str(tmp_path / "other.weights.h5"))


def test_bfloat16_is_used_where_the_processor_has_it_and_the_network_bears_it():
    units = frozenset({"avx2", "avx512_bf16"})
    assert choose_precision("auto", NETWORKS["vgg16"], units) == "mixed_bfloat16"
    assert choose_precision("auto", NETWORKS["vgg16"], frozenset({"avx2"})) == "float32"
    assert choose_precision("auto", V2, units) == "float32"
    assert choose_precision("float32", NETWORKS["vgg16"], units) == "float32"


def test_processor_flags_are_read_from_cpuinfo(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx512_bf16 amx_bf16\n\nprocessor\t: 1\n")
    assert {"avx512_bf16", "amx_bf16"} <= processor_flags(tmp_path / "cpuinfo")
    assert processor_flags(tmp_path / "nothing") == frozenset()


def test_several_networks_are_recorded_one_by_one(directory):
    """The origin begins with the worst: a rule against random weights must see them."""
    (directory / V2.local_file).write_bytes(b"bytes")
    entry = Backbone(networks=("mobilenet_v2", "resnet50"), image_size=64, weights="auto")
    weights = resolve_entry("hybrid", entry)
    record = record_entry("hybrid", entry, weights)
    assert record.origin == "random (resnet50), imagenet (mobilenet_v2)"
    assert [one.origin for one in record.networks] == ["imagenet", "random"]
    assert called(weights[1], "resnet50") == "hybrid (resnet50)"
    (directory / V2.local_file).write_bytes(b"other bytes")
    assert record_entry("hybrid", entry, resolve_entry("hybrid", entry)).sha256 != record.sha256


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ({"network": "vgg16", "networks": ["vgg16"]}, "not both"),
        ({"networks": ["vgg16", "vgg16"]}, "each network once"),
        ({"networks": ["vgg16", "mobilenet"], "weights": "mine.h5"}, "can't share one weights file"),
    ],
)
def test_entries_that_make_no_sense_are_refused(entry, sentence):
    with pytest.raises(ValueError, match=sentence):
        Backbone.model_validate({"image_size": 64, **entry})
