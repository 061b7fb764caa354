"""Which files below a folder are used, and what reading one may meet."""

import os

import numpy as np
import pytest
from PIL import Image

from plumbline.imaging.decode import DecodeError
from plumbline.imaging.files import read_bytes, read_picture, read_text, shown_path, top_folder, walk
from plumbline.imaging.pictures import Refused
from plumbline.imaging.settings import DataParams


@pytest.fixture
def params(tmp_path):
    root = tmp_path / "data"
    (root / "a" / "deep").mkdir(parents=True)
    return DataParams(root=root)


def write(params, name, content=b"x"):
    path = params.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def listed(params):
    refused = []
    return walk(params, refused), {one.path: one for one in refused}


def test_files_come_in_order_and_litter_does_not_come(params):
    for name in ("b.jpg", "a/2.jpg", "a/deep/1.jpg", "a/.DS_Store", "Thumbs.db"):
        write(params, name)
    assert listed(params) == (["a/2.jpg", "a/deep/1.jpg", "b.jpg"], {})


def test_names_that_one_system_would_take_for_the_same_are_both_refused(params):
    for name in ("a/p.jpg", "a/P.jpg", "a/q.jpg"):
        write(params, name)
    files, refused = listed(params)
    assert files == ["a/q.jpg"]
    assert {one.kind for one in refused.values()} == {"name"}
    assert refused["a/p.jpg"].reason == "a/p.jpg differs from a/P.jpg only in case or Unicode form: rename one of them"


def test_a_name_with_a_line_break_is_refused_and_shown_escaped(params):
    write(params, "a/two\nlines.jpg")
    files, refused = listed(params)
    assert (files, list(refused)) == ([], ["a/two\\nlines.jpg"])
    assert "line break" in refused["a/two\\nlines.jpg"].reason


def test_links_out_of_the_folder_are_followed_only_where_asked(params, tmp_path):
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(b"outside")
    (params.root / "a" / "link.jpg").symlink_to(outside)
    (params.root / "a" / "broken.jpg").symlink_to(tmp_path / "gone")
    files, refused = listed(params)
    assert (files, set(refused)) == ([], {"a/link.jpg", "a/broken.jpg"})
    with pytest.raises(DecodeError, match="is a symbolic link out of the folder"):
        read_bytes(params, "a/link.jpg")
    following = params.model_copy(update={"follow_symlinks": True})
    assert listed(following)[0] == ["a/link.jpg"]
    assert read_bytes(following, "a/link.jpg") == b"outside"


def test_a_link_to_a_folder_above_does_not_lead_round_in_circles(params):
    write(params, "a/1.jpg")
    (params.root / "a" / "again").symlink_to(params.root)
    assert listed(params) == (["a/1.jpg"], {})


def test_a_pipe_and_a_large_file_are_not_read(params):
    os.mkfifo(params.root / "a" / "pipe.jpg")
    with pytest.raises(DecodeError, match="is not a plain file"):
        read_bytes(params, "a/pipe.jpg")
    write(params, "a/large.jpg", b"x" * 100)
    small = params.model_copy(update={"max_bytes": 99})
    with pytest.raises(DecodeError, match=r"has 100 bytes, more than the 99 of data\.max_bytes"):
        read_bytes(small, "a/large.jpg")
    with pytest.raises(DecodeError, match=r"can't be read: No such file"):
        read_bytes(params, "a/none.jpg")


def test_text_is_utf8_with_or_without_a_mark(params):
    write(params, "a/names", "Hälmet".encode("utf-8-sig"))
    assert read_text(params, "a/names") == "Hälmet"
    write(params, "a/latin", "Hälmet".encode("latin-1"))
    with pytest.raises(DecodeError, match="is not text in UTF-8"):
        read_text(params, "a/latin")


def test_a_picture_comes_with_its_bytes_or_with_the_reason_why_not(params):
    path = params.root / "a" / "p.png"
    Image.fromarray(np.full((9, 12, 3), 77, np.uint8)).save(path)
    data, image = read_picture(params, "a/p.png")
    assert (data, image.size, np.asarray(image).mean()) == (path.read_bytes(), (12, 9), 77)
    write(params, "a/q.png", path.read_bytes()[:30])
    refused = read_picture(params, "a/q.png")
    assert isinstance(refused, Refused)
    assert (refused.path, refused.kind) == ("a/q.png", "unreadable")


def test_a_path_is_shown_as_it_may_be_printed():
    assert shown_path("a/\udce4.jpg") == "a/\\udce4.jpg"
    assert [top_folder(path) for path in ("a/b/c.jpg", "c.jpg")] == ["a", ""]
