"""Overlays: where a map's cells land, and that colours can be read back."""

import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.overlay import colour_scale, colours, overlay, upsample
from rcmnet_jax.models.grid import Grid

GREY = np.full((40, 60, 3), 128, np.uint8)


def test_without_alpha_the_image_in_grey():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    shown = overlay(pixels, np.ones((2, 2)), alpha=0.0)
    assert shown.shape == (8, 9, 3)
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[..., 0], shown[..., 2])
    np.testing.assert_allclose(shown[..., 0], pixels @ [0.299, 0.587, 0.114], atol=0.51)


def test_alone_the_map_in_the_colours_of_the_scale():
    cam = np.array([[0.0, 2.0], [1.0, 0.5]])
    shown = overlay(GREY, cam, alpha=1.0)
    np.testing.assert_array_equal(shown[0, 0], colours(np.array(0.0)))
    np.testing.assert_array_equal(shown[0, -1], colours(np.array(1.0)))
    np.testing.assert_array_equal(shown[-1, 0], colours(np.array(0.5)))


def test_lightness_rises_evenly_so_that_no_border_appears():
    luma = colours(np.linspace(0, 1, 64)) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luma) > 0).all()


def test_limits_make_maps_comparable():
    half = overlay(GREY, np.full((3, 3), 1.0), alpha=1.0, limits=(0.0, 2.0))
    np.testing.assert_array_equal(half[0, 0], colours(np.array(0.5)))


@pytest.mark.parametrize("value", [0.0, -3.0])
def test_a_map_without_evidence_is_dark_and_no_division_by_zero(value):
    shown = overlay(GREY, np.full((2, 3), value), alpha=1.0)
    np.testing.assert_array_equal(shown, np.broadcast_to(colours(np.array(0.0)), shown.shape))


def test_cells_land_on_their_centres():
    cam = np.array([[1.0, 0.0], [0.0, 4.0]])
    placed = upsample(cam, (64, 64), Grid(32, 0))
    assert placed[0, 0] == 1
    assert placed[32, 32] == 4
    assert placed[16, 0] == 0.5
    # Beyond the last centre its value goes on.
    assert (placed[32:, 32:] == 4).all()


def test_without_a_grid_as_pillow_resizes():
    from PIL import Image

    cam = np.random.default_rng(1).uniform(0, 1, (3, 4)).astype(np.float32)
    reference = Image.fromarray(cam).resize((44, 30), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(upsample(cam, (30, 44)), np.asarray(reference), atol=1e-5)


def test_a_single_cell_and_leading_axes():
    np.testing.assert_array_equal(upsample([[3.0]], (4, 5)), np.full((4, 5), 3.0))
    assert upsample(np.ones((2, 7, 3, 3)), (9, 9)).shape == (2, 7, 9, 9)


def test_the_scale_runs_from_bottom_to_top():
    scale = colour_scale(50, (0.0, 1.25))
    assert scale.shape == (50, 64, 3)
    np.testing.assert_array_equal(scale[-1, 6], colours(np.array(0.0)))
    np.testing.assert_array_equal(scale[0, 6], colours(np.array(1.0)))
    # Something is written beside it.
    assert (scale[:12, 20:] < 128).any()
    assert (scale[-12:, 20:] < 128).any()


@pytest.mark.parametrize("cam", [np.ones(4), np.array([[np.nan, 1.0]]), np.zeros((0, 2))])
def test_maps_that_are_none(cam):
    with pytest.raises(UserError, match="a map must be finite"):
        overlay(GREY, cam)


def test_images_that_are_none():
    with pytest.raises(UserError, match="uint8 pixels"):
        overlay(GREY.astype(float), np.ones((2, 2)))
    with pytest.raises(UserError, match="alpha"):
        overlay(GREY, np.ones((2, 2)), alpha=1.5)
