"""What all pages share: values escaped, nothing left out in silence, pictures inside the page."""

import base64
import io

import jinja2
import numpy as np
import pytest
from PIL import Image

from plumbline.pages.template import data_uri, jpeg_uri, read_asset, render_page


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "page.html.j2").write_text("<style>{{ css }}</style>{{ name | loud }}")
    (tmp_path / "own.css").write_text(".own > b {}")
    return tmp_path


def test_values_are_escaped_and_styles_are_not(folder):
    page = render_page("page.html.j2", "own.css", folder=folder, filters={"loud": str.upper}, name="<script>")
    assert page.endswith("&lt;SCRIPT&gt;")
    assert ".own > b {}" in page
    assert read_asset("leaderboard.css") in page, "the shared stylesheet comes first"


def test_a_value_that_is_missing_is_an_error(folder):
    (folder / "plain.html.j2").write_text("{{ name }}")
    with pytest.raises(jinja2.UndefinedError, match="'name' is undefined"):
        render_page("plain.html.j2", folder=folder)


def test_a_folder_without_the_file_falls_back_to_the_shared_one(folder):
    assert read_asset("own.css", folder) == ".own > b {}"
    assert read_asset("leaderboard.css", folder) == read_asset("leaderboard.css")


@pytest.mark.parametrize(
    ("shape", "size"), [((100, 400, 3), (160, 40)), ((90, 30, 3), (53, 160)), ((8, 8, 3), (160, 160))]
)
def test_a_picture_is_brought_to_its_longer_side(shape, size):
    head, _, content = data_uri(np.full(shape, 200, np.uint8)).partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (head, image.format, image.size) == ("data:image/jpeg;base64", "JPEG", size)
    assert np.asarray(image).mean() == pytest.approx(200, abs=2)


def test_jpeg_bytes_stay_as_they_are():
    assert base64.b64decode(jpeg_uri(b"\xff\xd8abc").partition(",")[2]) == b"\xff\xd8abc"
