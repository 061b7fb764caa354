"""Files that were pictures: cut, flipped, spliced, grown, with other headers, with something behind them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np


def mutated(content: bytes, others: Sequence[bytes], random: np.random.Generator) -> bytes:
    """Return `content` after one to three changes drawn from `random`; `others` are spliced in."""
    for _ in range(int(random.integers(1, 4))):
        change = CHANGES[int(random.integers(len(CHANGES)))]
        content = change(content, others, random)
    return content


def _place(content: bytes, random: np.random.Generator) -> int:
    return int(random.integers(0, len(content) + 1))


def _cut(content: bytes, _: Sequence[bytes], random: np.random.Generator) -> bytes:
    return content[: _place(content, random)]


def _flip(content: bytes, _: Sequence[bytes], random: np.random.Generator) -> bytes:
    if not content:
        return content
    changed = np.frombuffer(content, np.uint8).copy()
    places = random.integers(0, len(changed), int(random.integers(1, 30)))
    changed[places] = random.integers(0, 256, len(places))
    return changed.tobytes()


def _flip_header(content: bytes, _: Sequence[bytes], random: np.random.Generator) -> bytes:
    return _flip(content[:64], (), random) + content[64:]


def _splice(content: bytes, others: Sequence[bytes], random: np.random.Generator) -> bytes:
    other = others[int(random.integers(len(others)))]
    return content[: _place(content, random)] + other[_place(other, random) :]


def _repeat(content: bytes, _: Sequence[bytes], random: np.random.Generator) -> bytes:
    start = _place(content, random)
    return content[:start] + content[start : start + 200] * int(random.integers(2, 50)) + content[start:]


def _behind(content: bytes, others: Sequence[bytes], random: np.random.Generator) -> bytes:
    tails = (b"PK\x03\x04<script>", b"%PDF-1.7", others[int(random.integers(len(others)))], bytes(1000), b"GIF89a")
    return content + tails[int(random.integers(len(tails)))]


def _before(content: bytes, _: Sequence[bytes], random: np.random.Generator) -> bytes:
    heads = (b"GIF89a", b"<html>", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF", b"BM", b"II*\0", bytes(4))
    return heads[int(random.integers(len(heads)))] + content


def _bomb(_: bytes, __: Sequence[bytes], random: np.random.Generator) -> bytes:
    """A PNG of a few hundred bytes that claims up to 100,000 x 100,000 pixels."""
    side = int(random.integers(5_000, 100_000))
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100_000))), (b"IEND", b"")]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _noise(_: bytes, __: Sequence[bytes], random: np.random.Generator) -> bytes:
    return random.bytes(int(random.integers(0, 5000)))


CHANGES = (_cut, _flip, _flip_header, _splice, _repeat, _behind, _before, _bomb, _noise)
