"""From files to answers, with a network whose answers can be worked out by hand."""

import asyncio
import base64
import io
import sqlite3

import numpy as np
import pytest
from brightness import TEMPERATURE, encoded, grey, on_the_shelf, p_bright
from PIL import Image

from plumbline.common.served import uncollected
from serving import metrics
from serving.answers import Answering
from serving.engine import Cache, Engine, Unusable
from serving.examples import ANSWER
from serving.overlay import CELLS, covered, occlusion
from serving.problems import ProblemError
from serving.record import Recorder
from serving.settings import Challenger, Limits, ServingParams
from serving.shelf import Role, Roles, Shelf
from serving.uploads import Upload
from serving.views import views_of

CLIENT = "gate-3"


@pytest.fixture(scope="module")
def params(tmp_path_factory):
    return on_the_shelf(tmp_path_factory.mktemp("service"), limits=Limits(pixels=10_000))


@pytest.fixture
def engine(params):
    engine = Engine(params, Shelf(params.state))
    engine.look()
    yield engine
    engine.close()


def asked(engine, *files, recorder=None, **options):
    return asyncio.run(Answering(engine, recorder).answer(files, CLIENT, **options))


def upload(value, name="a.png"):
    return Upload(name, encoded(grey(value)))


def test_an_answer_is_what_the_network_says_with_temperature_threshold_and_doubt(engine):
    content = asked(engine, upload(255), upload(128), upload(0))
    assert content["version"] == 7
    assert content["model"] == {"version": 7, "role": "champion"}
    bright, middle, dark = content["answers"]
    assert bright["softmax"]["bright"] == pytest.approx(p_bright(255), abs=1e-5)
    assert bright["confidence"] == pytest.approx(p_bright(255, TEMPERATURE), abs=1e-5)
    assert [(one["label"], one["alarm"], one["unsure"]) for one in (bright, dark)] == [
        ("bright", True, False),
        ("dark", False, True),  # black has no direction: it is unlike every reference picture
    ]
    assert (middle["confidence"], middle["unsure"]) == (pytest.approx(0.5), True)
    assert "below 0.70" in middle["because"][0]


def test_the_example_in_the_document_has_what_an_answer_has(engine):
    (answer,) = asked(engine, upload(255))["answers"]
    assert set(answer) == set(ANSWER)
    assert {name: type(value) for name, value in answer.items()} == {
        name: type(value) for name, value in ANSWER.items()
    }


def test_a_file_that_is_no_picture_is_said_in_its_place(engine):
    files = [Upload("notes.txt", b"text"), upload(255), Upload("big.png", refused="has too much", status=413)]
    files.append(Upload("wide.png", encoded(grey(9, 101))))
    first, second, third, fourth = asked(engine, *files)["answers"]
    assert (first["file"], first["status"]) == ("notes.txt", 422)
    assert second["label"] == "bright"
    assert third == {"file": "big.png", "refused": "has too much", "status": 413}
    assert "10,000" in fourth["refused"] or "10000" in fourth["refused"]
    assert "data.max_pixels" not in fourth["refused"]  # a setting that the service's owner does not have


def test_the_same_pixels_are_scored_once(engine):
    first = asked(engine, upload(200))["answers"][0]
    again, other = asked(engine, upload(200, "another.png"), upload(201))["answers"]
    assert (first["cached"], again["cached"], other["cached"]) == (False, True, False)
    assert first["softmax"] == again["softmax"] != other["softmax"]
    assert first["id"] != again["id"]


def test_the_cache_keeps_the_newest_used():
    cache = Cache(2)
    for key in ("a", "b", "a", "c"):
        cache.get((key, b"")) or cache.put((key, b""), key)
    assert [cache.get((key, b"")) for key in "abc"] == ["a", None, "c"]
    nothing = Cache(0)
    nothing.put(("a", b""), "a")
    assert nothing.get(("a", b"")) is None


def test_views_move_the_answer_by_the_light_alone(engine):
    """Mirrors and crops of one grey are that grey; from the seventh view on it is darker: 0.85 x 200."""
    (answer,) = asked(engine, upload(200), views=8)["answers"]
    expected = [p_bright(value, TEMPERATURE) for value in [200] * 6 + [170] * 2]
    assert answer["views"]["mean"]["bright"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert answer["views"]["spread"]["bright"] == pytest.approx(np.std(expected), abs=1e-4)
    assert answer["views"]["agree"] == 1.0


def test_views_are_the_picture_its_mirror_and_nearer_ones():
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    views = views_of(picture, 18)
    assert {(view.shape, view.dtype, view.flags.c_contiguous) for view in views} == {((32, 32, 3), picture.dtype, True)}
    assert (views[0] == picture).all()
    assert (views[1] == picture[:, ::-1]).all()
    assert len({view.tobytes() for view in views}) == 18
    assert (views_of(np.full((8, 8, 3), 250, np.uint8), 13)[12] == 255).all()  # brighter ends at white


def test_the_overlay_points_at_the_one_bright_spot(engine):
    picture = grey(0)
    picture[2:4, 2:4] = 255  # the second cell of the second row, of 8 x 8 cells of 2 x 2
    ((found, _),) = asyncio.run(engine.score(engine.wanted(), [picture]))
    drawn = asyncio.run(occlusion(engine, engine.wanted(), picture, found))
    drop = np.array(drawn["drop"])
    assert drawn["label"] == "bright"
    assert drop.shape == (CELLS, CELLS)
    assert drop[1, 1] == drop.max() > 1
    assert drop[3:].max() == 0
    assert drop[:, 3:].max() == 0
    kind, _, data = drawn["picture"].partition(",")
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))), int)
    assert (kind, shown.shape) == ("data:image/png;base64", (16, 16, 3))
    assert shown[3, 3, 0] > shown[3, 3, 2] + 50  # orange
    assert (shown[12, 12] == 0).all()


def test_what_is_covered_is_one_part_in_the_mean_colour():
    picture = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    copies = covered(picture)
    mean = picture.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    assert len(copies) == CELLS * CELLS
    assert (copies[0][:3, :3] == mean).all()
    assert (copies[0][3:] == picture[3:]).all()
    assert (copies[-1][13:, 13:] == mean).all()
    assert (copies[-1][:13] == picture[:13]).all()


def test_every_part_of_a_picture_is_covered_and_little_else_each_time():
    pixels = np.random.default_rng(0).integers(0, 100, (64, 64, 3), np.uint8)
    pixels[0, 0] = 255
    covers = np.array([(copy != pixels).any(axis=2) for copy in covered(pixels)])
    assert covers.any(axis=0).mean() > 0.95
    assert covers.mean(axis=(1, 2)).max() <= (2 / CELLS) ** 2


def test_without_a_champion_it_says_what_to_do(tmp_path):
    engine = Engine(ServingParams(state=tmp_path), Shelf(tmp_path))
    engine.look()
    with pytest.raises(ProblemError, match="promote a model") as raised:
        asked(engine, upload(1))
    assert (raised.value.status, engine.version) == (503, None)
    engine.close()


def test_a_version_that_is_damaged_changes_nothing_and_is_said(params, tmp_path):
    params = on_the_shelf(tmp_path)
    engine = Engine(params, Shelf(params.state))
    engine.look()
    Shelf(params.state).write_roles(Roles(champion=Role(version=8, digest="0" * 64)))
    engine.look()
    assert engine.version == 7
    assert "missing or was altered" in engine.status()["trouble"]
    engine.close()


def test_a_full_queue_is_refused_with_the_time_to_come_back(params):
    engine = Engine(params.model_copy(update={"queue": 2}), Shelf(params.state))
    engine.look()

    async def one_waits():
        with engine.batcher.admitted(2), pytest.raises(ProblemError) as raised:
            await Answering(engine, None).answer([upload(1)], CLIENT)
        return raised.value

    problem = asyncio.run(one_waits())
    assert problem.status == 429
    assert int(problem.headers["Retry-After"]) >= 1
    engine.close()


def test_a_full_queue_is_known_before_a_body_is_read(params):
    engine = Engine(params.model_copy(update={"queue": 2}), Shelf(params.state))
    answering = Answering(engine, None)
    answering.check_room()
    with engine.batcher.admitted(1):
        answering.check_room()
        with engine.batcher.admitted(1), pytest.raises(ProblemError, match="queue is full") as raised:
            answering.check_room()
    assert raised.value.status == 429
    answering.check_room()
    engine.close()


def test_clients_of_the_challenger_stay_with_it_and_are_as_many_as_asked(params):
    sharing = Challenger(mode="share", share=0.3)
    engine = Engine(params.model_copy(update={"challenger": sharing}), Shelf(params.state))
    engine.look()
    clients = [f"client {n}" for n in range(2000)]
    assert {engine.role_of(one) for one in clients} == {"champion"}  # there is no challenger
    engine._served["challenger"] = type("Version", (), {"digest": "1" * 64, "version": 8})()
    roles = [engine.role_of(one) for one in clients]
    assert roles == [engine.role_of(one) for one in clients]
    assert roles.count("challenger") / len(roles) == pytest.approx(0.3, abs=0.04)
    engine.close()


@pytest.mark.parametrize(("record", "answers", "seen"), [("none", 0, 0), ("scores", 2, 0), ("descriptors", 2, 2)])
def test_what_is_kept_is_what_the_settings_say(params, tmp_path, record, answers, seen):
    engine = Engine(params.model_copy(update={"record": record}), Shelf(params.state))
    engine.look()
    path = tmp_path / "record.sqlite"
    recorder = Recorder(path)
    given = asked(engine, upload(255), Upload("x", b"no picture"), upload(0), recorder=recorder)["answers"]
    recorder.close()
    engine.close()
    if not answers:
        assert not path.exists()
        return
    rows = sqlite3.connect(path).execute("select id, version, client, label from answers order by label").fetchall()
    assert rows == [(given[0]["id"], 7, CLIENT, "bright"), (given[2]["id"], 7, CLIENT, "dark")]
    found = uncollected(path, 10)
    assert len(found.ids) == seen
    for row, identity in zip(found.rows, found.ids, strict=True):
        assert row["path"] == f"{identity}.png"
        assert (row["width"], row["height"]) == (16, 16)


def test_a_kept_picture_has_our_name_and_the_clients_bytes(params, tmp_path):
    folder = tmp_path / "incoming"
    engine = Engine(params.model_copy(update={"record": "pictures", "pictures": folder}), Shelf(params.state))
    engine.look()
    recorder = Recorder(tmp_path / "record.sqlite")
    file = upload(255, "../../evil.png")
    (answer,) = asked(engine, file, recorder=recorder)["answers"]
    recorder.close()
    engine.close()
    kept = list(tmp_path.rglob("*.png"))
    assert kept == [folder / "served" / f"{answer['id']}.png"]
    assert kept[0].read_bytes() == file.content


def test_a_picture_that_needs_too_much_memory_is_refused(engine, monkeypatch):
    def none_left(*_):
        raise MemoryError

    monkeypatch.setattr(type(engine.wanted()), "prepare", none_left)
    assert asyncio.run(engine.prepare(engine.wanted(), [upload(1)])) == [
        Unusable("a.png", "needs more memory than there is", 413)
    ]


def test_a_picture_that_finds_no_room_on_the_disk_costs_no_answer(engine, tmp_path, monkeypatch):
    (tmp_path / "full").write_text("no folder can be made here")
    recording = engine.params.model_copy(update={"record": "pictures", "pictures": tmp_path / "full"})
    monkeypatch.setattr(engine, "params", recording)
    recorder = Recorder(tmp_path / "record.sqlite")
    before = metrics.LOST._value.get()
    (answer,) = asked(engine, upload(255), recorder=recorder)["answers"]
    recorder.close()
    assert answer["label"] == "bright"
    assert metrics.LOST._value.get() == before + 1
