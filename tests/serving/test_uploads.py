"""What clients send: bounded before it is held, and never more than data."""

import asyncio
import io
import struct
import zipfile

import pytest
from starlette.requests import Request

from serving.problems import ProblemError
from serving.settings import Limits
from serving.uploads import LONGEST_NAME, Upload, header_number, media_type, read_body, read_form, zip_entries

SMALL = Limits(picture_bytes=1000, request_bytes=5000, batch_pictures=3, unpacked_bytes=2500)


def zipped(entries, packing=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def taken(entries, packing=zipfile.ZIP_STORED, limits=SMALL):
    return {one.name: one.refused or one.content for one in zip_entries(zipped(entries, packing), limits)}


def problem(function, *arguments):
    async def call():
        found = function(*arguments)
        return await found if asyncio.iscoroutine(found) else found

    with pytest.raises(ProblemError) as raised:
        asyncio.run(call())
    return raised.value.status, raised.value.detail


def request(kind, *parts, **headers):
    """A request whose body comes in parts."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive():
        return messages.pop(0)

    given = {"content-type": kind, **headers}
    lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in given.items()]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": lines}, receive)


def form(*files, boundary="b"):
    body = b""
    for disposition, content in files:
        body += f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + content + b"\r\n"
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}--\r\n".encode()


def test_pictures_of_a_zip_are_taken_whatever_the_way_they_are_packed():
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        assert taken({"a/b.PNG": b"one", "c.jpg": b"two"}, packing) == {"a/b.PNG": b"one", "c.jpg": b"two"}


@pytest.mark.parametrize("name", ["/etc/x.png", "C:/x.png", "c:x.png", "\\\\host\\x.png", "a\\..\\..\\x.png"])
def test_a_name_that_leads_out_is_refused_and_the_others_are_taken(name):
    found = taken({name: b"bad", "ok.png": b"good"})
    assert found.pop("ok.png") == b"good"
    assert [("leads out" in said) for said in found.values()] == [True]


@pytest.mark.parametrize("name", ["notes.txt", "x.png.exe", "x", "x.svg"])
def test_what_is_not_named_as_a_picture_is_refused(name):
    assert "not named as a picture" in taken({name: b"x"})[name]


@pytest.mark.parametrize("name", [".", ".\\"])
def test_a_name_that_names_nothing_harms_nobody(name):
    """PurePosixPath("."), and what Windows makes of it, has no parts at all."""
    assert taken({name: b"x", "ok.png": b"good"})["ok.png"] == b"good"


def test_litter_is_not_a_picture():
    assert taken({"__MACOSX/x.png": b"x", "a/.x.png": b"x", "ok.png": b"good"}) == {"ok.png": b"good"}


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_packings_that_unpack_without_bound_are_not_opened(packing):
    """A bzip2 entry whose header says 100 bytes: zipfile would unpack all of it before it counts."""
    large = bytes(900_000)
    content = zipped({"bomb.png": large}, packing).replace(struct.pack("<I", len(large)), struct.pack("<I", 100))
    (one,) = zip_entries(content, SMALL)
    assert "packed in another way" in one.refused
    assert one.content == b""


def test_a_header_that_lies_about_the_size_does_not_fill_the_memory():
    large = bytes(500_000)
    content = zipped({"bomb.png": large}, zipfile.ZIP_DEFLATED)
    (honest,) = zip_entries(content, Limits(picture_bytes=1000))
    assert (honest.status, honest.content) == (413, b"")
    lying = content.replace(struct.pack("<I", len(large)), struct.pack("<I", 100))
    (one,) = zip_entries(lying, SMALL)
    assert one.refused == "is damaged in the archive"  # its check sum is not that of its first 100 bytes


def test_limits_of_a_zip():
    assert problem(zip_entries, zipped({f"{n}.png": b"" for n in range(4)}), SMALL)[0] == 413
    assert problem(zip_entries, zipped({f"{n}.png": bytes(900) for n in range(3)}), SMALL)[0] == 413
    assert problem(zip_entries, b"PK\x03\x04", SMALL) == (422, "The body is no zip that can be read: make it anew.")
    assert problem(zip_entries, zipped({"folder/": b""}), SMALL)[0] == 422
    assert [one.content for one in zip_entries(zipped({"x.png": bytes(1000)}), SMALL)] == [bytes(1000)]


def test_an_encrypted_and_a_damaged_entry_are_named():
    content = bytearray(zipped({"x.png": b"pixels" * 20}))
    place = content.index(b"PK\x01\x02") + 8
    content[place] |= 1
    assert next(zip_entries(bytes(content), SMALL)).refused == "is encrypted"
    torn = zipped({"x.png": b"pixels" * 20}).replace(b"pixels", b"PIXELS", 1)
    assert next(zip_entries(torn, SMALL)).refused == "is damaged in the archive"


@pytest.mark.parametrize(("text", "number"), [("12", 12), ("", None), ("²", None), ("-1", None), ("9" * 5000, None)])
def test_a_number_in_a_header(text, number):
    assert header_number(text) == number


def test_a_body_is_bounded_by_what_it_says_and_by_what_comes():
    assert asyncio.run(read_body(request("x", b"ab", b"c"), 3, 5)) == b"abc"
    assert problem(read_body, request("x", b"abcd"), 3, 5)[0] == 413
    assert problem(read_body, request("x", content_length="4"), 3, 5)[0] == 413
    assert asyncio.run(read_body(request("x", b"a", content_length="²"), 3, 5)) == b"a"


def test_a_body_that_does_not_come_is_not_waited_for():
    async def never():
        await asyncio.sleep(60)

    waiting = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, never)
    assert problem(read_body, waiting, 3, 0.01)[0] == 408


def test_a_form_and_a_plain_body():
    kind, body = form(('name="file"; filename="a.png"', b"one"), ('name="key"', b"word"))
    got = asyncio.run(read_form(request(kind, body), SMALL, 2))
    assert got.files == [Upload("a.png", b"one")]
    assert got.fields == {"key": "word"}
    assert asyncio.run(read_form(request("image/png", b"one"), SMALL, 2)).files == [Upload("", b"one")]
    assert media_type(request("Image/PNG; q=1")) == "image/png"


def test_refusals_of_a_form():
    file = ('name="file"; filename="a.png"', b"one")
    kind, body = form(file, file, file)
    assert problem(read_form, request(kind, body), SMALL, 2) == (
        413,
        "The form has more than 2 files: send fewer at a time.",
    )
    assert problem(read_form, request("text/html", b"x"), SMALL, 2)[0] == 415
    assert problem(read_form, request("multipart/form-data", b"x"), SMALL, 2)[0] == 400
    assert problem(read_form, request(*form(('name="key"', b"x"))), SMALL, 2)[0] == 422


def test_one_file_that_is_too_large_does_not_cost_the_others_and_a_name_is_cut():
    kind, body = form(
        ('name="file"; filename="a.png"', bytes(1001)), (f'name="file"; filename="{"n" * 999}.png"', b"one")
    )
    large, named = asyncio.run(read_form(request(kind, body), SMALL, 2)).files
    assert (large.content, large.status) == (b"", 413)
    assert "1,001 bytes" in large.refused
    assert (named.content, len(named.name)) == (b"one", LONGEST_NAME)
