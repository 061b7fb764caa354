"""The small grey by which near-duplicates of a site are told."""

import numpy as np
from PIL import Image

from plumbline.imaging.small import SMALL, small_grey


def test_it_is_the_layout_in_18_rows_of_24():
    picture = np.zeros((180, 240), np.uint8)
    picture[:90, :120] = 200
    small = small_grey(Image.fromarray(picture))
    assert (small.shape, small.dtype) == (SMALL[::-1], np.uint8)
    expected = np.zeros((18, 24), np.uint8)
    expected[:9, :12] = 200
    assert (small == expected).all()


def test_a_larger_copy_looks_the_same():
    random = np.random.default_rng(0).integers(0, 256, (18, 24)).astype(np.uint8)
    scales = [small_grey(Image.fromarray(np.kron(random, np.ones((n, n), np.uint8)))) for n in (1, 3, 40)]
    assert (scales[0] == random).all()
    for scaled in scales[1:]:
        assert np.abs(scaled.astype(int) - random).max() <= 2


def test_a_picture_smaller_than_that_keeps_its_grey():
    assert (small_grey(Image.new("L", (5, 3), 77)) == 77).all()
