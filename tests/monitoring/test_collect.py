"""A site's folder: which files are pictures, which are nobody's, and what is said of its metadata.csv."""

import pytest
from PIL import Image

from monitoring.collect import Source, known_of


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "GATE"
    (folder / "may").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "may" / "a.jpg")
    return folder


def look(site):
    source = Source(str(site))
    files = [file.path for file in source.list()]
    return files, known_of(source, files, "GATE", ["YARD"]).said


def test_what_systems_leave_is_no_picture_and_not_mentioned(site):
    names = ("may/._a.jpg", "@eaDir/a.jpg/M.jpg", "__MACOSX/may/a.jpg", "may/Thumbs.db", "to_label/0001/a.jpg", "x.txt")
    for name in names:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_bytes(b"x")
    (site / "may" / ".b.heic").write_bytes(b"x")
    assert look(site) == (["may/a.jpg"], [])


def test_pictures_of_kinds_that_are_not_read_are_said(site):
    for name in ("may/c.HEIC", "may/b.avif", "clip.mp4"):
        (site / name).write_bytes(b"x")
    files, told = look(site)
    assert files == ["may/a.jpg"]
    assert told == [
        "3 files are of kinds that are not read (the first: clip.mp4): send JPEG, PNG, BMP or WebP.",
    ]


@pytest.mark.parametrize("time", ["1774958700", "2026:01:02 10:11:12", "02.01.2026 10:11"])
def test_a_time_that_is_none_is_said_of_a_site_too(site, time):
    (site / "metadata.csv").write_text(f"path,captured_at\nmay/a.jpg,{time}\n")
    (line,) = look(site)[1]
    assert (
        f"1 of 1 rows of {site}/metadata.csv have a captured_at that is no time in ISO 8601 (the first: {time}" in line
    )
