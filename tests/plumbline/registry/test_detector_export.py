"""An exported detector answers as Keras does, and finds the same boxes on photographs of any shape."""

import numpy as np
import pytest

from plumbline.common.errors import UserError
from plumbline.models.detecting import from_pixels, reported
from plumbline.models.detector import Detector, DetectorRecord, Suppression, design
from plumbline.models.fitting import make_deterministic
from plumbline.models.records import WeightsRecord
from plumbline.models.scene_maps import MapsRecord, cut_at
from plumbline.models.scene_views import Jitter, laid, letterbox, to_photograph
from plumbline.registry.detector_export import OnnxDetector, export_detector

SIDE = 64
SUPPRESSION = Suppression(least_score=0.001, most=20)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A detector on an untrained MobileNetV2, as a Keras model and as a file."""
    weights = WeightsRecord(backbone="m", requested="random", origin="random", file=None, sha256=None)
    maps = MapsRecord(
        name="m", network="mobilenet_v2", kept="block_5_add", strides=(8, 16, 32), image_size=SIDE, views=0,
        jitter=Jitter(), weights=weights, seed=0, code="",
    )  # fmt: skip
    detector = Detector(architecture="frozen_mobilenet", maps="m", channels=16, tower=1, suppression=SUPPRESSION)
    record = DetectorRecord(
        detector="small", architecture="frozen_mobilenet", maps="m", image_size=SIDE, shape=(8, 8, 32),
        strides=(8, 16, 32), classes=("head", "helmet"), settings=detector.model_dump(mode="json"), anchors=(), seed=0,
        photographs=1, boxes=1, parameters=1, trainable_parameters=1, epochs_run=1, weights="random",
    )  # fmt: skip
    make_deterministic(0)
    parts = cut_at(maps, None)
    plan = design(detector, record.problem())
    model = from_pixels(parts, plan.network(parts.upper), plan, SIDE)
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    export_detector(model, record, path)
    return model, path


@pytest.mark.slow
def test_the_file_answers_as_keras_does(exported):
    model, path = exported
    canvases = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.float32)
    boxes, scores = OnnxDetector(path)(canvases)
    answers = model.predict_on_batch(canvases)
    assert boxes == pytest.approx(np.asarray(answers["boxes"]), abs=1e-4)
    assert scores == pytest.approx(np.asarray(answers["scores"]), abs=1e-4)


@pytest.mark.slow
def test_photographs_of_any_shape_get_the_boxes_of_their_letterbox(exported):
    model, path = exported
    random = np.random.default_rng(1)
    photographs = [random.integers(0, 256, (*shape, 3)).astype(np.uint8) for shape in ((90, 50), (64, 64), (20, 300))]
    detector = OnnxDetector(path)
    assert (detector.classes, detector.suppression) == (["head", "helmet"], SUPPRESSION)
    table = detector.detect(["a", "b", "c"], photographs)
    for name, photograph in zip("abc", photographs, strict=True):
        place = letterbox(photograph.shape[1], photograph.shape[0], SIDE)
        answers = model.predict_on_batch(laid(photograph, place, SIDE)[None].astype(np.float32))
        found = reported(np.asarray(answers["boxes"])[0], np.asarray(answers["scores"])[0], SUPPRESSION)
        own = table[table["path"] == name]
        boxes = to_photograph(found.boxes, place.affine(SIDE))
        seen = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        assert own[["left", "top", "right", "bottom"]].to_numpy() == pytest.approx(boxes[seen], abs=1e-3)
        assert own["score"].to_numpy() == pytest.approx(found.scores[seen], abs=1e-4)


def test_another_file_is_refused(tmp_path):
    (tmp_path / "some.onnx").write_bytes(b"no model")
    with pytest.raises(UserError, match="is no exported detector"):
        OnnxDetector(tmp_path / "some.onnx")
