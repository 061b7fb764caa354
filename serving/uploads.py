"""What clients send, as bytes of pictures: bodies, forms and archives, each bounded before it is held."""

from __future__ import annotations

import asyncio
import io
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import parse_qs

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from plumbline.imaging.decode import SUFFIXES
from plumbline.imaging.litter import is_litter
from serving.problems import ProblemError
from serving.settings import Limits

RAW = ("application/octet-stream", "binary/octet-stream", "image/")
LONGEST_NAME = 200
FIELDS = 32
LONGEST_NUMBER = 15  # digits; Python refuses to read thousands of them
# Of these alone zipfile unpacks no more than it is asked for: 100 KB of bzip2 can hold gigabytes.
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Upload:
    """A file that a client sent: its name, which is only ever shown, and its bytes, or why it was not taken."""

    name: str
    content: bytes = b""
    refused: str | None = None
    status: int = 422


@dataclass(frozen=True)
class Form:
    """The files of a request, and the text fields that came with them."""

    files: list[Upload]
    fields: dict[str, str]


def media_type(request: Request) -> str:
    """Return a request's content type without its parameters, in lower case."""
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def header_number(text: str) -> int | None:
    """Return the number that a header holds, None where it is none: `²` is a digit to Python and no number."""
    return int(text) if text.isdecimal() and len(text) <= LONGEST_NUMBER else None


async def read_body(request: Request, most: int, seconds: float) -> bytes:
    """Return a request's body; ProblemError where it is too long or comes too slowly."""
    too_long = ProblemError(413, f"The request has more than {most:,} bytes: send less at a time.")
    given = header_number(request.headers.get("content-length", ""))
    if given is not None and given > most:
        raise too_long
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_long
                parts.append(part)
    except TimeoutError:
        raise ProblemError(408, f"The request was not whole after {seconds:g} s: send it faster or smaller.") from None
    return b"".join(parts)


async def read_form(request: Request, limits: Limits, most: int) -> Form:
    """Return the pictures of a request, at most `most`: the files of a form, or a body that is one picture."""
    kind = media_type(request)
    if kind != "multipart/form-data" and not kind.startswith(RAW):
        raise ProblemError(415, "Send pictures as multipart/form-data, or one as the body with its image/... type.")
    body = await read_body(request, limits.request_bytes, limits.upload_seconds)
    if kind != "multipart/form-data":
        form = Form([Upload("", body)], {})
    else:
        form = await _parse(request.headers, body, most)
    if not form.files:
        raise ProblemError(422, "The request holds no file: add at least one picture.")
    return Form([bounded(file, limits) for file in form.files], form.fields)


async def read_fields(request: Request, most: int, seconds: float) -> dict[str, list[str]]:
    """Return the fields of a plain form without files, of at most `most` bytes; each may be there several times."""
    if media_type(request) != "application/x-www-form-urlencoded":
        raise ProblemError(415, "Send the form as application/x-www-form-urlencoded, as browsers do.")
    body = await read_body(request, most, seconds)
    try:
        found = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS)
    except ValueError:
        raise ProblemError(400, "The form can't be read: send it as browsers do.") from None
    return {name: [_text(value) for value in values] for name, values in found.items()}


async def _parse(headers: Headers, body: bytes, most: int) -> Form:
    async def stream() -> AsyncIterator[bytes]:
        yield body

    try:
        parser = MultiPartParser(headers, stream(), max_files=most, max_fields=FIELDS)  # type: ignore[arg-type]
        parser.spool_max_size = len(body) + 1  # in memory, where it is already: nothing of a client's on our disk
        form = await parser.parse()
    except MultiPartException as error:
        if "files" in error.message:
            raise ProblemError(413, f"The form has more than {most} files: send fewer at a time.") from None
        raise ProblemError(400, f"The form can't be read ({error.message}): send it as browsers do.") from None
    except Exception:  # python-multipart raises its own on a torn form
        raise ProblemError(400, "The form can't be read: send multipart/form-data with its boundary.") from None
    files, fields = [], {}
    for key, value in form.multi_items():
        if not isinstance(value, UploadFile):
            fields[key] = _text(value)
        elif value.filename or value.size:
            files.append(Upload(_text(value.filename or key)[:LONGEST_NAME], await value.read()))
    return Form(files, fields)


def _text(text: str) -> str:
    """The text with escapes for halves of surrogate pairs: a form names its own encoding, and some make these."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def bounded(file: Upload, limits: Limits) -> Upload:
    if len(file.content) <= limits.picture_bytes:
        return file
    reason = f"has {len(file.content):,} bytes, more than the {limits.picture_bytes:,} allowed"
    return Upload(file.name, refused=reason, status=413)


def zip_entries(content: bytes, limits: Limits) -> Iterator[Upload]:
    """Yield the pictures of a zip, one at a time; ProblemError where it is no zip, or is out to fill the memory.

    Nothing is written anywhere, so a name can lead nowhere; one that tries is refused all the same.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except Exception:  # zipfile raises nearly anything on damaged bytes
        raise ProblemError(422, "The body is no zip that can be read: make it anew.") from None
    entries = [entry for entry in entries if not any(is_litter(part) for part in PurePosixPath(entry.filename).parts)]
    if len(entries) > limits.batch_pictures:
        raise ProblemError(413, f"The zip has more than {limits.batch_pictures:,} files: send several.")
    if not entries:
        raise ProblemError(422, "The zip holds no file: add at least one picture.")
    if sum(entry.file_size for entry in entries) > limits.unpacked_bytes:
        raise ProblemError(413, f"The zip unpacks to more than {limits.unpacked_bytes:,} bytes: send several.")
    return (_entry(archive, entry, limits) for entry in entries)


def _entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limits: Limits) -> Upload:
    name = entry.filename[:LONGEST_NAME]
    path = PurePosixPath(entry.filename.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
        return Upload(name, refused="has a name that leads out of the archive")
    if path.suffix.lower() not in SUFFIXES:
        return Upload(name, refused="is not named as a picture (.jpg, .png, .bmp, .webp)")
    if entry.flag_bits & 1:
        return Upload(name, refused="is encrypted")
    if entry.compress_type not in PACKED:
        return Upload(name, refused="is packed in another way than zip's usual one (deflate)")
    too_large = Upload(name, refused=f"has more than the {limits.picture_bytes:,} bytes allowed", status=413)
    if entry.file_size > limits.picture_bytes:
        return too_large
    try:
        with archive.open(entry) as file:
            content = file.read(limits.picture_bytes + 1)  # whatever its header says
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError, OSError, ValueError):
        return Upload(name, refused="is damaged in the archive")
    return too_large if len(content) > limits.picture_bytes else Upload(name, content)
