import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from plumbline.imaging.decode import (
    DecodeError,
    decode,
    decode_image,
    decode_resized,
    decode_small_grey,
    decoder_warning,
    shrink_grey,
)


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth picture with a dark top left corner, so that it has an upright."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 255, (6, 8, 3), dtype=np.uint8)
    coarse[:2, :2] = 0
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def stored_turned(image: Image.Image, orientation: int, kind: str) -> bytes:
    """`image` as a camera held otherwise would store it: pixels turned, and a note how to turn them back."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    turned = image.transpose(inverse[orientation]) if orientation in inverse else image
    options = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    return encoded(turned, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_pixels_come_back_as_they_were_saved(kind):
    image = photograph(61, 47)
    assert np.array_equal(decode(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))), image)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_upright(kind, orientation):
    image = photograph(120, 88)
    data = stored_turned(image, orientation, kind)
    upright = np.asarray(image, int)
    assert decode(data).shape == upright.shape
    assert np.abs(decode(data) - upright).mean() < 3
    grey = np.asarray(shrink_grey(image), int)
    assert np.abs(decode_small_grey(data) - grey).mean() < 3
    assert np.abs(decode_resized(data, (44, 60)) - decode_resized(encoded(image), (44, 60)).astype(int)).mean() < 3


def test_orientation_that_is_none_and_garbage_exif_leave_the_picture_as_it_lies():
    image = photograph(40, 30)
    for value in (0, 9, 77):
        assert decode(stored_turned(image, value, "PNG")).shape == (30, 40, 3)
    garbage = encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert decode(garbage).shape == (30, 40, 3)


def test_grey_palette_and_one_bit_become_rgb():
    image = photograph(50, 40)
    grey = image.convert("L")
    assert np.array_equal(decode(encoded(grey)), np.stack([np.asarray(grey)] * 3, axis=2))
    palette = image.quantize(16)
    assert np.array_equal(decode(encoded(palette)), palette.convert("RGB"))
    bits = grey.convert("1")
    assert np.array_equal(decode(encoded(bits)), bits.convert("RGB"))


def test_cmyk_jpeg_keeps_its_colours():
    red = Image.new("CMYK", (32, 32), (0, 255, 255, 0))
    assert np.abs(decode(encoded(red, "JPEG")).astype(int) - (255, 0, 0)).max() < 6


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_composited_on_white(kind):
    image = Image.new("RGBA", (20, 10), (255, 0, 0, 255))
    image.paste((0, 0, 255, 0), (0, 0, 10, 10))
    image.paste((0, 0, 0, 128), (10, 0, 20, 5))
    rgb = decode(encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    assert rgb[5, 5].tolist() == [255, 255, 255]
    assert rgb[7, 15].tolist() == [255, 0, 0]
    assert np.abs(rgb[2, 15].astype(int) - 127).max() <= 1


def test_transparent_palette_colour_key_and_grey_alpha_are_composited_too():
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 10, 200, 10])
    assert decode(encoded(palette, transparency=0))[0, 0].tolist() == [255, 255, 255]
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    assert decode(encoded(keyed, transparency=(1, 2, 3)))[0, 0].tolist() == [255, 255, 255]
    assert decode(encoded(Image.new("L", (4, 4), 7), transparency=7))[0, 0].tolist() == [255, 255, 255]
    assert decode(encoded(Image.new("LA", (4, 4), (0, 0))))[0, 0].tolist() == [255, 255, 255]
    assert decode_small_grey(encoded(Image.new("L", (4, 4), 7), transparency=7))[0, 0] == 255


def test_sixteen_bit_samples_keep_their_high_byte():
    ramp = (np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8)
    rgb = decode(encoded(Image.fromarray(ramp)))
    assert np.array_equal(rgb[..., 0], ramp >> 8)
    assert np.array_equal(rgb[..., 0], rgb[..., 2])
    assert np.array_equal(decode(sixteen_bit_rgb_png(ramp))[..., 1], ramp >> 8)


def sixteen_bit_rgb_png(samples: np.ndarray) -> bytes:
    height, width = samples.shape
    rows = np.stack([samples] * 3, axis=2).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def test_a_phones_two_picture_jpeg_is_its_photograph():
    image = photograph(64, 48)
    data = encoded(image, "MPO", save_all=True, append_images=[photograph(64, 48, seed=1)], quality=95)
    decoded = decode_image(data)
    assert decoded.info["format"] == "JPEG"
    assert np.abs(np.asarray(decoded, int) - np.asarray(image)).mean() < 4


def frames(kind: str) -> bytes:
    reel = [Image.new("RGB", (16, 16), colour) for colour in ("red", "green", "blue")]
    return encoded(reel[0], kind, save_all=True, append_images=reel[1:])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"hello there, I am a text", "is not a picture"),
        (b"\xff\xd8", "is not a picture"),
        (encoded(photograph(64, 64), "JPEG")[:-200], "is damaged: image file is truncated"),
        (encoded(photograph(64, 64), "PNG")[:-300], "is damaged"),
        (encoded(photograph(64, 64), "BMP")[:-300], "is damaged"),
        (encoded(photograph(64, 64), "WEBP")[:-100], "is"),
        (frames("PNG"), "is animated (3 frames)"),
        (frames("WEBP"), "is animated (3 frames)"),
        (frames("GIF"), "is a GIF"),
        (encoded(photograph(8, 8), "TIFF"), "is a TIFF"),
        (b"%PDF-1.7 ...", "is a PDF"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (b"<svg xmlns=''/>", "is an SVG"),
        (b"\0\0\0\x18ftypheic" + bytes(64), "is a HEIC"),
        (b"version https://git-lfs.github.com/spec/v1", "is a Git LFS pointer"),
    ],
)
@pytest.mark.parametrize("read", [decode, decode_small_grey, lambda data: decode_resized(data, (16, 16))])
def test_what_is_no_picture_is_refused_with_its_reason(data, reason, read):
    with pytest.raises(DecodeError) as error:
        read(data)
    assert error.value.reason.startswith(reason)


@pytest.mark.parametrize("side", [101, 20_000])  # the second is beyond what Pillow itself lets pass
def test_a_decompression_bomb_is_refused_by_its_header(side):
    bomb = encoded(Image.new("1", (side, side)))
    assert len(bomb) < 200_000
    with pytest.raises(DecodeError, match=r"data.max_pixels"):
        decode(bomb, max_pixels=10_000)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_bytes_never_do_worse_than_a_decode_error(data):
    whole = encoded(photograph(48, 40), data.draw(st.sampled_from(["JPEG", "PNG", "BMP", "WEBP"])))
    broken = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for place in data.draw(st.lists(st.integers(0, len(broken) - 1), max_size=8)):
        broken[place] = data.draw(st.integers(0, 255))
    try:
        rgb = decode(bytes(broken), max_pixels=100_000)
    except DecodeError:
        return
    assert rgb.ndim == 3
    assert rgb.shape[2] == 3
    assert rgb.dtype == np.uint8


@pytest.mark.parametrize(
    ("size", "small"),
    [((1280, 960), (160, 120)), ((200, 200), (100, 100)), ((4000, 3000), (166, 125)), ((90, 50), (90, 50))],
)
def test_small_grey_has_a_shorter_side_of_96_to_191_and_agrees_with_the_whole_picture(size, small):
    image = photograph(*size)
    data = encoded(image, "JPEG", quality=95)
    grey = decode_small_grey(data)
    assert grey.shape == pytest.approx(small[::-1], abs=1)
    whole = np.asarray(shrink_grey(decode_image(data)), int)
    assert grey.shape == whole.shape
    assert np.abs(grey - whole).mean() < 1.0


def test_resized_from_a_reduced_jpeg_is_close_to_resized_from_the_whole():
    image = photograph(1280, 960)
    quick = decode_resized(encoded(image, "JPEG", quality=95), (200, 200))
    slow = np.asarray(image.resize((200, 200), Image.Resampling.BILINEAR), int)
    assert quick.shape == (200, 200, 3)
    assert np.abs(quick - slow).mean() < 1.5


def bmp_32(picture: Image.Image, alpha) -> bytes:
    """A BMP with 32 bits a pixel and a mask that calls the last 8 of them alpha."""
    pixels = np.asarray(Image.merge("RGBA", (*picture.split(), alpha)))
    rows = pixels[::-1, :, [2, 1, 0, 3]].tobytes()
    header = struct.pack("<IiiHHIIiiII", 108, *picture.size, 1, 32, 3, len(rows), 2835, 2835, 0, 0)
    header += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows


def test_a_bmp_whose_alpha_is_nought_throughout_is_opaque():
    picture = photograph(40, 30)
    nought = bmp_32(picture, Image.new("L", (40, 30), 0))
    assert np.array_equal(decode(nought), np.asarray(picture))
    assert np.array_equal(decode_small_grey(nought), decode_small_grey(encoded(picture, "BMP")))
    assert np.array_equal(decode_resized(nought, (30, 40)), np.asarray(picture))


def test_an_alpha_that_is_used_still_counts():
    picture = photograph(40, 30)
    alpha = Image.new("L", (40, 30), 0)
    alpha.paste(255, (0, 0, 20, 30))
    assert np.asarray(decode(bmp_32(picture, alpha)))[:, 20:].min() == 255
    assert decode(encoded(Image.new("RGBA", (8, 8), (200, 0, 0, 0)))).min() == 255


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_with_overwritten_bytes_decodes_and_its_decoder_warns(progressive):
    whole = encoded(photograph(320, 240), "JPEG", quality=90, progressive=progressive)
    warned = 0
    for seed in range(20):
        damaged = bytearray(whole)
        start = int(np.random.default_rng(seed).integers(700, len(whole) - 300))
        damaged[start : start + 200] = b"overwritten bytes!! " * 10
        try:
            decode(bytes(damaged))
        except DecodeError:
            continue
        warned += decoder_warning(bytes(damaged)) is not None
    assert warned >= 5, "a decoder that resynchronises by chance warns of nothing"
    assert decoder_warning(whole) is None
    assert decoder_warning(encoded(photograph(32, 32))) is None


def test_a_png_with_overwritten_bytes_is_shown_with_a_warning():
    whole = encoded(photograph(320, 240))
    start = whole.index(b"IDAT") + 4
    shown = 0
    for place in range(start + 50, len(whole) - 60, max(1, len(whole) // 40)):
        damaged = whole[:place] + bytes(byte ^ 0x5A for byte in whole[place : place + 4]) + whole[place + 4 :]
        assert decoder_warning(damaged) == "Corrupt PNG data: the checksum of chunk IDAT is another"
        try:
            shown += decode(damaged).shape == (240, 320, 3)
        except DecodeError:
            continue
    assert shown, "else the warning would not be needed"


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "I;16", "RGBA"])
def test_a_whole_png_is_not_damaged(mode):
    image = photograph(60, 50)
    image = Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    whole = encoded(image, dpi=(72, 72))
    assert decoder_warning(whole) is None
    assert decoder_warning(whole + b"a preview after it" * 9) is None


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 2}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_a_jpeg_of_another_kind_is_not_damaged(mode, options):
    whole = encoded(photograph(60, 50).convert(mode), "JPEG", **options)
    assert decoder_warning(whole) is None
    assert decoder_warning(whole + b"a preview after it" * 9) is None
