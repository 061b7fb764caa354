"""The record of what was served, taken in as a site's images: each once, with what was measured and said of it."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from monitoring.served import CHUNK, served_record, take_served
from monitoring.site_state import AGAIN, ARRAYS, COPY, NEW, REPEAT, SiteState
from plumbline.common.served import RECORD, uncollected
from plumbline.imaging.describe import describe_camera
from plumbline.imaging.measures import measures_of
from plumbline.imaging.small import small_grey
from serving.record import Recorder, answer_row

OURS, OLDER = "digest of the champion", "digest of an older one"


def picture(seed):
    """A picture that is no near-duplicate of one with another seed."""
    blocks = np.random.default_rng(seed).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    return Image.fromarray(np.kron(blocks, np.ones((8, 8, 1), np.uint8)))


def measured(name, image):
    """What the service measures of a picture."""
    digest = hashlib.sha256(image.tobytes()).hexdigest()
    found = measures_of(name, digest, 1234, "PNG", image, 1)
    row = {**found.row, **describe_camera(found.rgb, np.asarray(found.grey)), "path": f"{name}.png"}
    return row, small_grey(found.grey)


def serve(record, *answered):
    """Keep answers as a worker does: (name, picture, digest of the version, probability of the first label)."""
    recorder = Recorder(record)
    for name, image, digest, probability in answered:
        row, small = measured(name, image)
        text = json.dumps({**row, "phash": str(row["phash"])})
        seen = (name, text, np.array([probability, 1, 2], "<f4").tobytes(), small.tobytes())
        answer = {
            "softmax": {"a": probability, "b": 1 - probability},
            "labels": ["a"],
            "confidence": 1,
            "unsure": False,
        }
        recorder.keep(answer_row(name, "champion", 7, digest, "client", "pixels", answer, seen))
    recorder.close()


@pytest.fixture
def record(tmp_path):
    return tmp_path / RECORD


@pytest.fixture
def state(tmp_path):
    return SiteState(tmp_path / "drift", "gate")


def take(state, record, training=None):
    if training is None:
        training = pd.DataFrame({"id": [], "pixels_sha256": [], "phash": np.array([], np.uint64)})
    return take_served(state, record, state.seen(OURS), training, OURS, 2)


def test_what_was_answered_waits_with_its_measures_scores_and_arrays(state, record):
    serve(record, ("one", picture(1), OURS, 0.25), ("two", picture(2), OURS, 0.75))
    assert take(state, record) == 2
    waiting = state.pending()
    table = waiting.table.set_index("path")
    for name, seed, probability in (("one", 1, 0.25), ("two", 2, 0.75)):
        row, small = measured(name, picture(seed))
        got = table.loc[f"{name}.png"]
        assert {key: got[key] for key in row if key != "path"} == {k: v for k, v in row.items() if k != "path"}
        assert (got["status"], got["stamp"], got["scored_by"], got["listed"]) == (NEW, "", OURS, 1234)
        place = list(table.index).index(f"{name}.png")
        assert waiting.arrays["probabilities"][place].tolist() == [probability, 1 - probability]
        assert waiting.arrays["embeddings"][place].tolist() == [probability, 1, 2]
        assert (waiting.arrays["small"][place] == small).all()
    assert {name: len(waiting.arrays[name]) for name in ARRAYS} == dict.fromkeys(ARRAYS, 2)
    assert table["phash"].dtype == np.uint64
    assert table["key"].is_unique


def test_each_is_taken_once(state, record):
    serve(record, ("one", picture(1), OURS, 0.5))
    assert (take(state, record), take(state, record)) == (1, 0)
    assert len(state.pending()) == 1
    assert uncollected(record, 9).ids == []


def test_answers_of_another_version_are_passed_over_and_not_asked_for_again(state, record):
    serve(record, ("old", picture(1), OLDER, 0.5), ("new", picture(2), OURS, 0.5), ("older", picture(3), OLDER, 0.5))
    assert take(state, record) == 1
    assert state.pending().table["path"].tolist() == ["new.png"]
    assert uncollected(record, 9).ids == []


def test_a_copy_of_training_a_repeat_and_a_picture_sent_again_are_told(state, record):
    row, _ = measured("t", picture(1))
    training = pd.DataFrame([{key: row[key] for key in ("id", "pixels_sha256", "phash")}]).astype({"phash": "uint64"})
    serve(record, ("copy", picture(1), OURS, 0.5), ("first", picture(2), OURS, 0.5), ("same", picture(2), OURS, 0.5))
    assert take(state, record, training) == 3
    assert dict(state.pending().table[["path", "status"]].to_numpy()) == {
        "copy.png": COPY,
        "first.png": NEW,
        "same.png": REPEAT,
    }
    serve(record, ("later", picture(2), OURS, 0.5))  # what waits is known: by its hash too, all 64 bits of it
    take(state, record, training)
    assert state.pending().table.set_index("path").loc["later.png", "status"] == AGAIN


def test_a_near_copy_of_what_waits_is_told_by_all_64_bits(state, record):
    serve(record, ("first", picture(2), OURS, 0.5))
    take(state, record)
    pixels = np.asarray(picture(2)).copy()
    pixels[0, 0] ^= 1  # other bytes and pixels, the same hash
    serve(record, ("near", Image.fromarray(pixels), OURS, 0.5), ("other", picture(3), OURS, 0.5))
    take(state, record)
    assert state.pending().table.set_index("path")["status"].to_dict() == {
        "first.png": NEW,
        "near.png": REPEAT,
        "other.png": NEW,
    }


def test_more_than_a_chunk_is_taken_whole(state, record, monkeypatch):
    assert CHUNK > 100
    monkeypatch.setattr("monitoring.served.CHUNK", 2)
    serve(record, *((f"p{n}", picture(n), OURS, 0.5) for n in range(5)))
    assert take(state, record) == 5
    assert state.pending().table["status"].tolist() == [NEW] * 5


def test_the_record_belongs_to_the_site_that_the_settings_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text("serving: {site: gate, state: here}\n")
    assert served_record("gate") is None  # nothing was served yet
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / RECORD).touch()
    assert served_record("gate").samefile(tmp_path / "here" / RECORD)
    assert served_record("served") is None
