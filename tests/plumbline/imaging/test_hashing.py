import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageOps

from plumbline.imaging.hashing import (
    SCALES,
    WINDOWS,
    _tile_coefficients,
    fingerprint,
    fingerprints,
    hash_coefficients,
    mirror_coefficients,
    phash,
    thumbnail,
)


def scene(width=160, height=120, seed=0):
    """A smooth random picture: no two windows alike."""
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 12), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def bits(a, b):
    return int(np.uint64(a) ^ np.uint64(b)).bit_count()


def tile_hashes(tiles):
    return hash_coefficients(_tile_coefficients(tiles))


def mirrored_tile_hashes(tiles):
    return hash_coefficients(mirror_coefficients(_tile_coefficients(tiles)))


def library(image):
    return int(str(imagehash.phash(image)), 16)


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=80).map(lambda s: (*s[:2], 3)))
)
def test_phash_is_imagehashs_bit_for_bit(pixels):
    image = Image.fromarray(pixels)
    assert phash(image) == library(image)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "CMYK"])
def test_phash_is_imagehashs_in_every_mode(mode):
    image = scene().convert("RGB").convert(mode)
    assert phash(image) == library(image)
    assert f"{phash(image):016x}" == str(imagehash.phash(image))


def test_many_tiles_hash_as_one_by_one_and_mirrored_tiles_as_their_mirror_images():
    tiles = np.stack([np.asarray(scene(32, 32, seed)) for seed in range(40)])
    assert tile_hashes(tiles).tolist() == [library(Image.fromarray(tile)) for tile in tiles]
    mirrored = [library(ImageOps.mirror(Image.fromarray(tile))) for tile in tiles]
    assert mirrored_tile_hashes(tiles).tolist() == mirrored


@given(hnp.arrays(np.uint8, (32, 32)))
def test_mirroring_a_tile_twice_is_no_change(tile):
    once = tile[:, ::-1].copy()
    assert mirrored_tile_hashes(once[None])[0] == tile_hashes(tile[None])[0]


def test_there_are_37_windows_the_whole_first():
    assert len(WINDOWS) == len(set(WINDOWS)) == 1 + 9 * len(SCALES) == 37
    assert WINDOWS[0] == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(("width", "height"), [(160, 120), (97, 173), (100, 100), (40, 30)])
def test_each_window_hashes_as_the_cut_picture_does(width, height):
    image = scene(width, height, seed=3)
    hashes = fingerprint(np.asarray(image))
    differing = []
    for (scale, down, right), value in zip(WINDOWS, hashes[0], strict=True):
        left, top = right * (1 - scale) * width, down * (1 - scale) * height
        box = (left, top, left + scale * width, top + scale * height)
        # Pillow's own resizing of the same box: it may look past the box's edge, and it rounds to uint8.
        tile = image.resize((32, 32), Image.Resampling.LANCZOS, box=box)
        differing.append(bits(value, library(tile)))
    assert differing[0] <= 2
    assert max(differing) <= 8
    assert np.mean(differing) < 3


def test_mirror_hashes_are_those_of_the_mirror_image():
    image = scene(seed=5)
    own, other = fingerprint(np.asarray(image)), fingerprint(np.asarray(ImageOps.mirror(image)))
    swapped = [WINDOWS.index((scale, down, 1 - right if scale < 1 else right)) for scale, down, right in WINDOWS]
    distance = [bits(own[1, k], other[0, swapped[k]]) for k in range(37)]
    assert max(distance) <= 2
    assert bits(own[1, 0], own[0, 0]) > 10


def test_a_crop_meets_the_window_it_was_cut_from():
    image = scene(640, 480, seed=9)
    small = np.asarray(image.resize((160, 120), Image.Resampling.BOX))
    whole = fingerprint(small)[0]
    for scale in SCALES:
        crop = image.crop((0, 0, round(640 * scale), round(480 * scale)))
        shrunk = crop.resize((crop.width // 4, crop.height // 4), Image.Resampling.BOX)
        at = WINDOWS.index((scale, 0.0, 0.0))
        assert bits(fingerprint(np.asarray(shrunk))[0, 0], whole[at]) <= 4


def test_strangers_are_far_apart():
    prints = [fingerprint(np.asarray(scene(seed=seed)))[0, 0] for seed in range(12)]
    assert min(bits(a, b) for i, a in enumerate(prints) for b in prints[:i]) > 12


@given(level=st.integers(0, 255), side=st.integers(8, 190))
@settings(max_examples=40, deadline=None)
def test_blank_pictures_hash_alike_not_by_rounding_noise(level, side):
    hashes = fingerprint(np.full((side, side + 7), level, np.uint8))
    assert set(hashes.ravel().tolist()) <= {0, 1 << 63}


def test_pictures_of_one_size_hash_together_as_alone():
    greys = np.stack([np.asarray(scene(seed=seed)) for seed in range(5)])
    assert np.array_equal(fingerprints(greys), np.stack([fingerprint(grey) for grey in greys]))


def test_thumbnail_is_96_wide_and_72_high():
    assert thumbnail(np.asarray(scene(131, 97))).shape == (72, 96)
