import numpy as np
import pytest
from PIL import Image, ImageFilter

from imaging.describe import MEASURES, brightness, colourfulness, contrast, describe, luma, sharpness


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
