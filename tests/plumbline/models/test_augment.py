"""An augmented view is drawn from the picture's id, stays within its ranges, and does what the settings say."""

import numpy as np
import pytest

from plumbline.models.augment import Augmentation, augmented_view

STILL = Augmentation(rotation=0, shift=0, shear=0, zoom=0)
RAMP = np.repeat(np.tile(np.arange(100, dtype=np.uint8), (100, 1))[:, :, None], 3, axis=2)  # grey value = column


def test_without_ranges_a_view_is_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(augmented_view(picture, "id", 1, STILL), picture)


def test_the_draw_depends_on_id_view_and_settings_alone():
    settings = Augmentation()
    views = [augmented_view(RAMP, name, view, settings) for name in ("a", "b") for view in (1, 2)]
    assert len({view.tobytes() for view in views}) == 4
    np.testing.assert_array_equal(augmented_view(RAMP, "a", 1, settings), views[0])


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_shift_moves_the_picture_by_at_most_its_share_and_repeats_the_border(name):
    view = augmented_view(RAMP, name, 1, STILL.model_copy(update={"shift": 0.2}))
    row = view[50, :, 0].astype(int)
    moved = row[50] - 50
    assert abs(moved) <= 20
    np.testing.assert_allclose(row, np.clip(np.arange(100) + moved, 0, 99), atol=1)


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_zoom_is_about_the_centre(name):
    row = augmented_view(RAMP, name, 1, STILL.model_copy(update={"zoom": 0.2}))[50, :, 0].astype(float)
    slopes = np.diff(row[30:70]).mean()
    assert 0.8 - 0.02 <= slopes <= 1.2 + 0.02
    assert row[49:51].mean() == pytest.approx(49.5, abs=0.6)


def test_a_rotation_keeps_the_centre_and_the_shape():
    view = augmented_view(RAMP, "a", 1, STILL.model_copy(update={"rotation": 30.0}))
    assert (view.shape, view.dtype) == (RAMP.shape, np.uint8)
    assert view[49:51, 49:51].mean() == pytest.approx(49.5, abs=1)
    slope = np.abs(np.diff(view[50, 30:70, 0].astype(float)).mean())
    assert np.cos(np.radians(30)) - 0.02 <= slope <= 1.0
