import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from drawn import grey, scene, with_worker
from plumbline.leakage.alignment import (
    HOPELESS,
    _matches,
    align_local,
    align_thumbnails,
    compare_overlap,
    compare_thumbnails,
    correlation,
    local_features,
    locate,
    mirrored,
    part,
    plausible,
    thumbnail,
)

SEEDS = range(4)


def republished(image):
    """Cropped, scaled, brightened and stamped, as another site would publish it."""
    shown = image.crop((30, 20, 290, 220)).resize((400, 308), Image.Resampling.LANCZOS)
    shown = ImageEnhance.Brightness(shown).enhance(1.2)
    shown.paste((250, 250, 250), (0, 280, 400, 308))
    return shown


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_republished_picture_is_laid_over_its_original(seed):
    inliers, overlap = align_local(local_features(grey(republished(scene(seed)))), local_features(grey(scene(seed))))
    assert inliers >= 15
    assert overlap.score > 0.9
    assert 0.5 < overlap.common < 0.9 < overlap.share


@pytest.mark.parametrize("seed", SEEDS)
def test_strangers_are_not(seed):
    assert align_local(local_features(grey(scene(seed))), local_features(grey(scene(seed + 100))))[1].score < 0.5


def test_strangers_with_the_same_watermark_are_not():
    stamp = scene(7, (110, 80))
    first, second = scene(1), scene(2)
    for image in (first, second):
        image.paste(stamp, (200, 150))
    inliers, overlap = align_local(local_features(grey(first)), local_features(grey(second)))
    assert inliers >= 6, "the watermark itself matches"
    assert overlap.score < 0.5


def test_strangers_with_the_same_caption_at_top_and_foot_are_not():
    caption = scene(9, (320, 36))
    first, second = scene(1), scene(2)
    first.paste(caption, (0, 0))
    second.paste(caption, (0, 204))
    inliers, overlap = align_local(local_features(grey(first)), local_features(grey(second)))
    assert inliers >= 6, "the caption itself matches"
    assert overlap.score < 0.5


@pytest.mark.parametrize("seed", SEEDS)
def test_features_of_the_mirror_image_need_no_second_look(seed):
    turned = local_features(np.ascontiguousarray(grey(scene(seed))[:, ::-1]))
    own = local_features(grey(scene(seed)))
    assert align_local(mirrored(own), turned)[1].score > 0.9
    assert align_local(own, turned)[1].score < 0.5


@pytest.mark.parametrize("scale", [0.65, 0.8, 0.9])
def test_a_part_is_found_where_it_was_cut(scale):
    image = scene(3, (960, 720))
    left, top = 0.1, 0.06
    box = (left * 960, top * 720, (left + scale) * 960, (top + scale) * 720)
    best, place = locate(thumbnail(grey(image)), thumbnail(grey(image.crop(box))), scale)
    assert best > 0.9
    assert place == pytest.approx((left, top, left + scale, top + scale), abs=0.03)


def test_a_thumbnail_is_refined_to_its_rotated_copy():
    image = scene(5)
    turned = thumbnail(grey(image.rotate(4, Image.Resampling.BICUBIC)))
    ecc, overlap = align_thumbnails(thumbnail(grey(image)), turned)
    assert ecc > 0.9
    assert overlap.score > 0.75
    assert overlap.score > compare_overlap(thumbnail(grey(image)), turned, np.eye(2, 3), blur=0.0).score


WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_strangers_are_told_at_half_the_resolution(seed):
    a, b = thumbnail(grey(scene(seed))), thumbnail(grey(scene(seed + 100)))
    rough = compare_thumbnails(a, b, WHOLE, min_score=0.75)
    assert rough.overlap.score < 0.75 - HOPELESS
    assert rough.textured == 0, "not looked at any further"
    assert compare_thumbnails(a, b, WHOLE).overlap.score < 0.75, "and looked at further they were strangers as well"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_copy_that_is_moved_and_turned_is_refined_to_the_end(seed):
    image = scene(seed)
    moved = image.rotate(3, Image.Resampling.BICUBIC, translate=(12, -7), fillcolor="white")
    a, b = thumbnail(grey(image)), thumbnail(grey(moved))
    asked, whatever = (compare_thumbnails(a, b, WHOLE, min_score=least) for least in (0.75, -1.0))
    assert asked == whatever
    assert asked.overlap.score > 0.85
    assert asked.ecc > 0.9


def test_a_feature_is_matched_where_the_best_is_clearly_nearer_than_the_second():
    rng = np.random.default_rng(0)
    a, b = (rng.random((count, 128)).astype(np.float32) for count in (40, 50))
    b[7:27] = a[:20] + 0.1 * rng.random((20, 128)).astype(np.float32)
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    distance = np.linalg.norm(a[:, None] - b[None], axis=2)
    nearest, second = np.sort(distance, axis=1)[:, :2].T
    expected = np.where(nearest < 0.8 * second, distance.argmin(axis=1), -1)
    assert (expected >= 0).sum() >= 20
    assert np.array_equal(_matches(b @ a.T, 0.8), expected)


def test_a_flat_picture_aligns_with_nothing():
    flat = np.full((72, 96), 128, np.uint8)
    assert align_thumbnails(flat, thumbnail(grey(scene(1))))[0] < 0.5
    assert correlation(flat, thumbnail(grey(scene(1)))) == 0.0
    assert align_local(local_features(flat), local_features(grey(scene(1))))[1].score == 0.0


def test_the_next_shot_of_a_fixed_camera_differs_where_somebody_moved():
    first, second = with_worker(scene(2), 1), with_worker(scene(2), 2)
    overlap = align_local(local_features(grey(first)), local_features(grey(second)))[1]
    assert overlap.score > 0.9, "most of the scene is the same"
    assert overlap.worst < 0.7, "but not all of it"


def test_the_whole_of_a_part_is_the_picture():
    thumb = thumbnail(grey(scene(4)))
    assert np.array_equal(part(thumb, (0.0, 0.0, 1.0, 1.0)), thumb)
    mirror = grey(ImageOps.mirror(scene(4)))
    assert correlation(thumbnail(mirror)[:, ::-1], thumb) > 0.999


@pytest.mark.parametrize(
    ("affine", "expected"),
    [
        ([[1, 0, 5], [0, 1, -3]], True),
        ([[1.33, 0, 0], [0, 1, 0]], True),
        ([[-1, 0, 0], [0, 1, 0]], False),
        ([[0, -1, 0], [1, 0, 0]], False),
        ([[5, 0, 0], [0, 5, 0]], False),
        ([[1, 0, 0], [0, 0.5, 0]], False),
    ],
)
def test_only_maps_that_a_publisher_applies_are_plausible(affine, expected):
    assert plausible(np.array(affine, float)) is expected
