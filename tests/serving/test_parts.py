"""Parts of the service by themselves: views, covers, the cache, archives, refusals, tensors, a look at the registry."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from plumbline.common.errors import UserError
from plumbline.imaging.small import SMALL, small_grey
from plumbline.registry.glance import glance
from plumbline.registry.versions import RegistryDownError
from serving.engine import Cache
from serving.examples import ANSWER, problems
from serving.inference_protocol import packed, unpacked
from serving.overlay import CELLS, covered
from serving.problems import ProblemError, busy
from serving.settings import Limits
from serving.uploads import zip_entries
from serving.views import views_of


def test_the_first_view_is_the_picture_itself_and_no_two_are_alike():
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)
    views = views_of(pixels, 16)
    assert np.array_equal(views[0], pixels)
    assert np.array_equal(views[1], pixels[:, ::-1])
    assert len({view.tobytes() for view in views}) == 16
    assert {view.shape for view in views} == {pixels.shape}


def test_every_part_of_a_picture_is_covered_once_and_little_else_each_time():
    pixels = np.random.default_rng(0).integers(0, 100, (64, 64, 3), np.uint8)
    pixels[0, 0] = 255
    covers = np.array([(copy != pixels).any(axis=2) for copy in covered(pixels)])
    assert len(covers) == CELLS**2
    assert covers.any(axis=0).mean() > 0.95
    assert covers.mean(axis=(1, 2)).max() <= (2 / CELLS) ** 2


def test_the_cache_forgets_what_was_not_asked_for_longest():
    cache = Cache(2)
    for name in (b"a", b"b"):
        cache.put(("v", name), name)
    assert cache.get(("v", b"a")) == b"a"
    cache.put(("v", b"c"), b"c")
    assert [cache.get(("v", name)) for name in (b"a", b"b", b"c")] == [b"a", None, b"c"]
    assert cache.get(("w", b"a")) is None
    nothing = Cache(0)
    nothing.put(("v", b"a"), b"a")
    assert nothing.get(("v", b"a")) is None


def test_an_archive_is_counted_before_anything_of_it_is_unpacked():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(3):
            archive.writestr(f"{n}.png", bytes(1000))
    assert len(list(zip_entries(buffer.getvalue(), Limits()))) == 3
    for limits in (Limits(batch_pictures=2), Limits(unpacked_bytes=2999)):
        with pytest.raises(ProblemError) as refused:
            zip_entries(buffer.getvalue(), limits)
        assert refused.value.status == 413


def test_a_refusal_says_what_the_document_says():
    problem = busy(7)
    assert problem.headers == {"Retry-After": "7"}
    content = problem.content(3)
    assert (content["status"], content["title"], content["version"]) == (429, "Too Many Requests", 3)
    schema = problems(429)[429]["content"]["application/problem+json"]["schema"]
    assert set(schema["required"]) == set(content)
    assert ANSWER["label"] in ANSWER["probabilities"]


def test_bodies_are_unpacked_up_to_a_limit_and_packed_as_the_client_takes_them():
    body = b"tensor" * 1000
    for name in ("gzip", "deflate"):
        small, encoding = packed(body, f"br, {name}")
        assert encoding == name
        assert unpacked(small, name, len(body)) == body
        with pytest.raises(ProblemError, match="more than"):
            unpacked(small, name, len(body) - 1)
    assert packed(body, "br") == (body, None)


def test_a_registry_that_is_not_there_or_of_another_kind_is_said(tmp_path):
    with pytest.raises(RegistryDownError, match="There is no registry"):
        glance(f"sqlite:///{tmp_path}/none.db", "plumbline", "champion")
    with pytest.raises(RegistryDownError, match="does not answer"):
        glance("http://127.0.0.1:9", "plumbline", "champion")
    with pytest.raises(UserError, match="neither a SQLite file nor an MLflow server"):
        glance("postgresql://u:secret@host/db", "plumbline", "champion")


def test_what_is_left_of_a_picture_is_its_layout():
    grey = Image.fromarray(np.kron([[0, 255]], np.ones((90, 90))).astype(np.uint8))
    small = small_grey(grey)
    assert small.shape == SMALL[::-1]
    assert small[:, :11].max() < 10
    assert small[:, 13:].min() > 245
