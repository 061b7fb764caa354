"""Copies end with their original, strangers do not, and what was skipped is still listed."""

import io
import itertools

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from drawn import grey, hue_shifted, scene, silhouette, with_helmet
from plumbline.imaging.hashing import WINDOWS, fingerprint, phash, stored_thumbnail
from plumbline.leakage.copies import (
    CopyParams,
    Fingerprints,
    Joined,
    Pictures,
    candidate_radius,
    find_copies,
    nearest_neighbours,
    same_picture,
)

RED, BLUE, YELLOW, WHITE = (220, 30, 30), (30, 60, 220), (240, 210, 30), (250, 250, 250)
GREEN, ORANGE = (30, 150, 60), (240, 120, 20)
HELMETS = list(itertools.combinations((RED, BLUE, YELLOW, WHITE, GREEN, ORANGE), 2))


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
    thumbs = [stored_thumbnail(image.convert("RGB"), g) for image, g in zip(images, greys, strict=True)]
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


@pytest.mark.slow
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


def tinted(image, by):
    return Image.fromarray(np.clip(np.asarray(image).astype(int) + by, 0, 255).astype(np.uint8))


RECOLOURED = {
    "tinted": lambda image: tinted(image, [25, 0, -25]),
    "faded": lambda image: ImageEnhance.Color(image).enhance(0.5),
    "faded and encoded": lambda image: reencode(ImageEnhance.Color(image).enhance(0.3)),
    "richer": lambda image: ImageEnhance.Color(image).enhance(1.5),
    "black and white": lambda image: image.convert("L").convert("RGB"),
    "sepia": lambda image: ImageOps.colorize(image.convert("L"), (20, 10, 0), (255, 240, 200)),
    "brown": lambda image: ImageOps.colorize(image.convert("L"), (20, 10, 0), (255, 245, 225), (140, 110, 80)),
}


@pytest.mark.parametrize("kind", RECOLOURED)
def test_a_picture_recoloured_as_a_whole_is_a_copy(kind):
    images = [scene(1), RECOLOURED[kind](scene(1)), RECOLOURED[kind](crop(0.1)(scene(1))), scene(50)]
    joined = Joined(len(images))
    find_copies(pictures_of(images), joined, CopyParams())
    assert joined.labels().tolist() == [0, 0, 0, 3]


BASES = {"colourful": scene(1), "grey": scene(2).convert("L").convert("RGB")}
ON_GREY = ((RED, BLUE), (YELLOW, WHITE), (BLUE, YELLOW), (GREEN, WHITE), (ORANGE, RED))


@pytest.mark.parametrize(
    ("base", "colours"), [*(("colourful", two) for two in HELMETS), *(("grey", two) for two in ON_GREY)]
)
def test_the_same_but_for_the_colour_of_a_helmet_is_no_copy(base, colours):
    images = [with_helmet(BASES[base], colour, 60) for colour in colours]
    images += [ImageOps.mirror(images[1]), crop(0.1)(images[1]), reencode(images[0])]
    joined = Joined(len(images))
    find_copies(pictures_of(images), joined, CopyParams())
    assert joined.labels().tolist() == [0, 1, 1, 1, 0]


def test_an_embedding_neighbour_of_another_colour_is_no_copy():
    images = [with_helmet(scene(3, (640, 480)), colour, 90) for colour in (RED, BLUE)]
    embeddings = np.ones((2, 8)) + np.random.default_rng(0).normal(size=(2, 8)) * 0.01
    found = find_copies(pictures_of(images, embeddings), Joined(2), CopyParams(candidate_radius=0, join_radius=0))
    assert found.looked_at["embedding"] == 1
    assert not [edge for edge in found.edges if edge.verified]


@pytest.mark.parametrize("by", [20, 43, 85, 128])
def test_other_hues_are_no_copy(by):
    joined = Joined(2)
    find_copies(pictures_of([scene(1), hue_shifted(scene(1), by)]), joined, CopyParams())
    assert joined.labels().tolist() == [0, 1]


@pytest.mark.slow
def test_silhouettes_on_plain_ground_are_strangers():
    skies = [(150, 180, 220), (210, 210, 215), (90, 120, 190)]
    images = [silhouette(seed, skies[seed % 3]) for seed in range(24)]
    joined = Joined(len(images))
    found = find_copies(pictures_of(images), joined, CopyParams())
    assert found.looked_at["aligned"] > 30, "their hashes are near"
    assert len(np.unique(joined.labels())) >= 18
    lax = Joined(len(images))
    find_copies(pictures_of(images), lax, CopyParams(min_evidence=0))
    assert len(np.unique(lax.labels())) < 6, "without the evidence asked for they would be copies"


def test_same_picture_is_what_group_calls_a_copy_with_the_same_colours_everywhere():
    def alike(a, b):
        thumbs = [stored_thumbnail(image, grey(image)) for image in (a, b)]
        return same_picture(*thumbs, int(phash(a) ^ phash(b)).bit_count(), CopyParams())

    image = scene(1)
    assert alike(image, reencode(image))
    assert alike(image, image.resize((160, 120)))
    assert not alike(image, scene(2))
    for colours in HELMETS:
        assert not alike(*(with_helmet(image, colour) for colour in colours)), colours
    for colours in ((RED, BLUE), (YELLOW, WHITE), (BLUE, YELLOW)):
        assert not alike(*(with_helmet(image, colour, 14) for colour in colours)), colours
    flat = [Image.new("RGB", (64, 64), colour) for colour in (RED, BLUE)]
    assert not alike(*flat)


def test_with_sides_every_pair_between_them_is_listed_and_a_chain_within_one():
    image = scene(1)
    images = [image, reencode(image), crop(0.05)(image), ImageEnhance.Brightness(image).enhance(1.1), image]
    sides = np.array([0, 0, 1, 1, 1])
    joined = Joined(5)
    found = find_copies(pictures_of(images), joined, CopyParams(), sides=sides)
    assert set(joined.labels().tolist()) == {0}
    crossing = {(e.a, e.b) for e in found.edges if e.verified and sides[e.a] != sides[e.b]}
    assert crossing == {(0, 2), (0, 3), (0, 4), (1, 2), (1, 3), (1, 4)}
    assert any(not e.verified for e in found.edges), "the third of one side follows from the other two"


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_cores_changes_nothing(workers, monkeypatch):
    images = [scene(seed) for seed in range(8)]
    images += [COPIES[kind](image) for image in images[:4] for kind in ("cropped by 10", "mirrored", "re-encoded")]
    monkeypatch.setattr("plumbline.leakage.copies.PACK", 2)  # else all pairs are under way at once
    found = []
    for number in (workers, 2):
        for module in ("common.parallel", "leakage.copies"):
            monkeypatch.setattr(f"plumbline.{module}.cores", lambda number=number: number)
        found.append(find_copies(pictures_of(images), Joined(len(images)), CopyParams()))
    assert any(not edge.verified for edge in found[0].edges), "some pairs were joined by others before their turn"
    assert str(found[0]) == str(found[1])


@pytest.mark.parametrize(
    ("images", "radius"), [(100, 16), (5_000, 14), (20_000, 12), (60_000, 11), (100_000, 10), (1_000_000, 8)]
)
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
