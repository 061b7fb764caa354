import numpy as np
import pytest
from PIL import Image, ImageFilter

from plumbline.imaging.describe import (
    CAMERA_MEASURES,
    MEASURES,
    blockiness,
    brightness,
    colourfulness,
    contrast,
    describe,
    describe_camera,
    luma,
    sharpness,
    warmth,
)
from plumbline.imaging.describe import noise as noise_level


def noise(shape=(150, 130, 3)):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_luma_weighs_as_bt601():
    for colour, weight in (((255, 0, 0), 0.299), ((0, 255, 0), 0.587), ((0, 0, 255), 0.114)):
        assert luma(np.full((2, 2, 3), colour, np.uint8))[0, 0] == round(255 * weight)


def test_brightness_and_contrast_of_known_pictures():
    half = np.zeros((10, 10), np.uint8)
    half[:, 5:] = 255
    assert brightness(half) == pytest.approx(0.5)
    assert contrast(half) == pytest.approx(0.5)
    assert contrast(np.full((10, 10), 77, np.uint8)) == 0


def test_sharpness_is_the_variance_of_the_laplacian():
    grey = luma(noise())
    padded = np.pad(grey.astype(float), 1, mode="reflect")
    laplacian = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:] - 4 * padded[1:-1, 1:-1]
    assert sharpness(grey) == pytest.approx(laplacian.var(), rel=1e-6)


def test_blur_lowers_sharpness():
    image = Image.fromarray(noise())
    blurred = image.filter(ImageFilter.GaussianBlur(2))
    assert sharpness(luma(np.asarray(blurred))) < sharpness(luma(np.asarray(image))) / 10


@pytest.mark.parametrize("rows", [1, 63, 64, 65, 200])
def test_colourfulness_is_hasler_and_suesstrunks_m3_whatever_the_height(rows):
    rgb = noise((rows, 37, 3))
    red, green, blue = (rgb[..., i].astype(float) for i in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    m3 = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert colourfulness(rgb) == pytest.approx(m3, rel=1e-5)


def test_grey_has_no_colour():
    assert colourfulness(np.full((8, 8, 3), 128, np.uint8)) == 0


def test_describe_gives_every_measure_and_the_same_with_the_luma_given():
    rgb = noise()
    figures = describe(rgb)
    assert tuple(figures) == MEASURES
    assert figures == describe(rgb, luma(rgb))


def test_warmth_is_red_less_blue():
    assert warmth(np.full((4, 4, 3), (200, 90, 98), np.uint8)) == pytest.approx(0.4)


@pytest.mark.parametrize("level", [2, 7, 15])
def test_noise_is_estimated_over_flats_and_edges(level):
    random = np.random.default_rng(0)
    scene = np.full((120, 120), 90.0)
    scene[:, 60:] = 150
    seen = noise_level(np.clip(scene + random.normal(0, level, scene.shape), 0, 255).astype(np.uint8))
    assert seen == pytest.approx(level, rel=0.1)


def test_blocks_of_a_jpeg_are_seen_also_when_it_was_saved_anew_as_png():
    import io

    smooth = Image.fromarray(noise((17, 17, 3))).resize((160, 160), Image.Resampling.BICUBIC)
    found = []
    for quality in (95, 30, 10):
        out = io.BytesIO()
        smooth.save(out, "JPEG", quality=quality)
        found.append(blockiness(luma(np.asarray(Image.open(out).convert("RGB")))))
    assert abs(found[0]) < 0.15
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.5


def test_camera_measures_of_tiny_and_flat_pictures_are_figures():
    for shape in ((1, 1, 3), (2, 40, 3), (40, 40, 3)):
        figures = describe_camera(np.full(shape, 120, np.uint8))
        assert tuple(figures) == CAMERA_MEASURES
        assert list(figures.values()) == [0.0, 0.0, 0.0]
