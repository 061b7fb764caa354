"""Copies end with their original, strangers do not, and what was skipped is still listed."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from drawn import grey, scene
from plumbline.imaging.hashing import WINDOWS, fingerprint
from plumbline.leakage.alignment import thumbnail
from plumbline.leakage.copies import (
    CopyParams,
    Fingerprints,
    Joined,
    Pictures,
    candidate_radius,
    find_copies,
    nearest_neighbours,
)


def reencode(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer).convert("RGB")


def crop(share):
    def cut(image):
        left, top = round(share * 0.7 * image.width), round(share * 0.3 * image.height)
        return image.crop((left, top, left + round((1 - share) * image.width), top + round((1 - share) * image.height)))

    return cut


COPIES = {
    "re-encoded": reencode,
    "resized": lambda image: image.resize((120, 90), Image.Resampling.LANCZOS),
    "cropped by 5": crop(0.05),
    "cropped by 10": crop(0.10),
    "cropped by 20": crop(0.20),
    "mirrored": ImageOps.mirror,
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "rotated by 2": lambda image: image.rotate(2, Image.Resampling.BICUBIC),
    "bordered": lambda image: ImageOps.expand(image, border=14, fill="white"),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1.5)),
}
STRANGERS = 30


def pictures_of(images, embeddings=None):
    greys = [grey(image) for image in images]
    prints = np.array([fingerprint(g) for g in greys], np.uint64)
    boxes = np.array([(x * (1 - s), y * (1 - s), x * (1 - s) + s, y * (1 - s) + s) for s, y, x in WINDOWS[1:]])
    thumbs = [thumbnail(g) for g in greys]
    identity = pd.DataFrame(
        {
            "path": [f"{i}.jpg" for i in range(len(images))],
            "id": [str(i) for i in range(len(images))],
            "pixels_sha256": [str(np.asarray(image).tobytes().__hash__()) for image in images],
        }
    )
    fingerprints = Fingerprints(prints[:, 0, 0], prints[:, 0, 1:], prints[:, 1, 0], boxes)
    return Pictures(identity, fingerprints, thumbs.__getitem__, greys.__getitem__, embeddings)


@pytest.mark.parametrize("kind", COPIES)
def test_copies_end_with_their_original_and_strangers_do_not(kind):
    originals = [scene(seed) for seed in range(STRANGERS)]
    images = originals + [COPIES[kind](image) for image in originals]
    joined = Joined(len(images))
    copies = find_copies(pictures_of(images), joined, CopyParams())
    labels = joined.labels()
    found = (labels[:STRANGERS] == labels[STRANGERS:]).mean()
    assert found >= 0.9, f"{found:.0%} of the {kind} copies"
    assert all(edge.a % STRANGERS == edge.b % STRANGERS for edge in copies.edges), "no strangers"


def test_the_evidence_says_what_was_done_to_a_picture():
    image = scene(1)
    images = [image, image.copy(), reencode(image), ImageOps.mirror(image), crop(0.2)(image), scene(50)]
    found = find_copies(pictures_of(images), Joined(len(images)), CopyParams())
    kinds = {(e.a, e.b): e.kind for e in found.edges if e.verified}
    assert kinds[0, 1] == "same pixels"
    assert kinds[0, 2] == "near"
    assert kinds[0, 3] == "mirrored"
    assert "cropped" in kinds.values()
    assert all(5 not in pair for pair in kinds)
    assert all(-1 <= e.score <= 1 for e in found.edges if e.verified)


def test_what_the_columns_joined_is_not_aligned():
    images = [scene(1), crop(0.2)(scene(1)), ImageOps.mirror(scene(1))]
    apart = find_copies(pictures_of(images), Joined(3), CopyParams())
    assert apart.looked_at["aligned"] == 2
    assert [e.verified for e in apart.edges] == [True, True, False], "the third pair follows, and is listed as such"
    joined = Joined(3)
    joined.union(0, 1)
    joined.union(1, 2)
    found = find_copies(pictures_of(images), joined, CopyParams())
    assert found.looked_at["aligned"] == 0
    assert not found.edges


def test_without_merging_every_pair_between_two_sides_is_listed():
    image = scene(1)
    images = [image, reencode(image), crop(0.05)(image), ImageEnhance.Brightness(image).enhance(1.1)]
    joined = Joined(4)
    joined.union(0, 1)
    joined.union(2, 3)
    found = find_copies(pictures_of(images), joined, CopyParams(), merge=False)
    assert {(e.a, e.b) for e in found.edges} == {(0, 2), (0, 3), (1, 2), (1, 3)}


def test_a_republished_picture_that_hashes_miss_is_found_by_its_embedding():
    image = scene(3, (640, 480))
    piece = image.crop((40, 200, 360, 440))
    images = [image, piece, *(scene(seed, (640, 480)) for seed in range(100, 110))]
    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(len(images), 64))
    embeddings[1] = embeddings[0] + rng.normal(size=64) * 0.5
    embeddings[2] = embeddings[0] + rng.normal(size=64) * 0.5  # a stranger that looks much the same to the backbone
    without = find_copies(pictures_of(images), Joined(len(images)), CopyParams())
    assert not without.edges
    found = find_copies(pictures_of(images, embeddings), Joined(len(images)), CopyParams())
    assert [(e.a, e.b, e.kind) for e in found.edges if e.verified] == [(0, 1, "embedding")]
    assert (0, 2) in {(e.a, e.b) for e in found.apart}


def test_neighbours_are_symmetric_unjoined_and_near():
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(200, 8))
    labels = np.arange(200) // 4
    first, second, cosine = nearest_neighbours(vectors, labels, 5, 0.6)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert (first < second).all()
    assert (labels[first] != labels[second]).all()
    np.testing.assert_allclose(cosine, (unit[first] * unit[second]).sum(axis=1), atol=1e-5)
    assert (np.diff(cosine) <= 1e-6).all()
    likeness = np.where(labels[:, None] == labels[None], -2, unit @ unit.T)
    nearest = {(min(i, j), max(i, j)) for i, j in enumerate(likeness.argmax(axis=1)) if likeness[i, j] >= 0.6}
    assert nearest <= set(zip(first.tolist(), second.tolist(), strict=True))


@pytest.mark.parametrize(("images", "radius"), [(100, 16), (5_000, 14), (20_000, 12), (100_000, 10), (1_000_000, 8)])
def test_larger_collections_take_fewer_candidates(images, radius):
    assert candidate_radius(images, CopyParams()) == radius
    assert candidate_radius(images, CopyParams(candidate_radius=3)) == 3


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count):
    pictures = pictures_of([scene(1), scene(2)])
    rows = slice(0, count)
    prints = pictures.fingerprints
    few = Fingerprints(prints.whole[rows], prints.windows[rows], prints.mirror[rows], prints.boxes)
    found = find_copies(
        Pictures(pictures.identity.iloc[rows], few, pictures.thumbnail, pictures.grey, np.ones((count, 4))),
        Joined(count),
        CopyParams(),
    )
    assert not found.edges
