"""Each distortion does what its strength says, image by image, and nothing at strength zero."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.data import distortions


def smooth_images(batch: int = 2, height: int = 32, width: int = 32) -> np.ndarray:
    """Different images without fine detail, (B, 3, H, W) in [0.2, 0.9]."""
    coarse = np.random.default_rng(0).uniform(50, 230, (batch, 5, 5, 3)).astype(np.uint8)
    large = [
        np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
        for image in coarse
    ]
    return np.stack(large).astype(np.float32).transpose(0, 3, 1, 2) / 255


def disc(side: int = 64, radius: float = 10.0, centre: tuple[float, float] = (0, 0)) -> np.ndarray:
    """A dark disc on white, its centre that far below and right of the image's, (1, 3, H, W)."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    inside = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2
    return np.broadcast_to(np.where(inside, 0.0, 1.0), (1, 3, side, side)).astype(np.float32)


def dark(image: np.ndarray) -> np.ndarray:
    """Area in pixels, and the centre's distance below and right of the image's."""
    weight = 1 - np.asarray(image)[0, 0]
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]] - (weight.shape[0] - 1) / 2
    return np.array([weight.sum(), *((weight * at).sum() / weight.sum() for at in (y, x))])


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


IDENTITIES = {
    "absorb": lambda x: distortions.absorb(x, ones(2, 3)),
    "mix_channels": lambda x: distortions.mix_channels(x, np.stack([np.eye(3)] * 2)),
    "illuminate": lambda x: distortions.illuminate(x, ones(2, 3), 0 * ones(2, 3, 2)),
    "bend": lambda x: distortions.bend(x, ones(2, 3)),
    "focus": lambda x: distortions.focus(x, 0 * ones(2), 0 * ones(2)),
    "warp": lambda x: distortions.warp(x, ones(2), 0 * ones(2), 0 * ones(2, 2)),
    "to_grey": lambda x: distortions.to_grey(x, 0 * ones(2)),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_the_neutral_strength_changes_nothing(name):
    x = smooth_images()
    np.testing.assert_allclose(np.asarray(IDENTITIES[name](x)), x, atol=2e-6)


def test_the_finest_rounding_is_less_than_a_grey_level_at_any_size():
    x = smooth_images(height=30, width=37)
    rounded = np.asarray(distortions.quantise_blocks(x, 0 * ones(2)))
    assert rounded.shape == x.shape
    assert np.abs(rounded - x).max() < 0.5 / 255


@pytest.mark.parametrize("zoom", [0.5, 0.8, 1.8])
def test_the_area_of_a_disc_grows_with_the_square_of_the_zoom(zoom):
    before = disc(radius=8)
    after = np.asarray(distortions.warp(before, zoom * ones(1), 0 * ones(1), 0 * ones(1, 2)))
    # Zoomed out, mirror images of the disc come into the frame at its border.
    middle = after[:, :, 16:48, 16:48]
    assert dark(middle)[0] / dark(before)[0] == pytest.approx(zoom**2, rel=0.03)


def test_a_disc_is_moved_down_and_right_by_the_shift_at_any_zoom():
    for zoom in (0.7, 1.0, 1.5):
        moved = distortions.warp(
            disc(), zoom * ones(1), 0 * ones(1), np.array([[4.0, -6.0]], np.float32)
        )
        np.testing.assert_allclose(dark(moved)[1:], [4, -6], atol=0.1)


def test_a_turn_is_counter_clockwise():
    right_of_centre = disc(centre=(0, 15), radius=6)
    for degrees, expected in ((90, (-15, 0)), (30, (-7.5, 13.0))):
        turned = distortions.warp(
            right_of_centre, ones(1), np.deg2rad(degrees) * ones(1), 0 * ones(1, 2)
        )
        np.testing.assert_allclose(dark(turned)[1:], expected, atol=0.15)


def test_a_quarter_turn_is_that_of_numpy():
    x = smooth_images(1)
    turned = distortions.warp(x, ones(1), np.pi / 2 * ones(1), 0 * ones(1, 2))
    np.testing.assert_allclose(np.asarray(turned), np.rot90(x, 1, axes=(2, 3)), atol=1e-4)


def test_beyond_the_border_lies_the_mirrored_image():
    x = smooth_images(1)
    moved = distortions.warp(x, ones(1), 0 * ones(1), np.array([[5.0, 0.0]], np.float32))
    np.testing.assert_allclose(np.asarray(moved)[:, :, 5:], x[:, :, :-5], atol=1e-5)
    np.testing.assert_allclose(np.asarray(moved)[:, :, :5], x[:, :, 4::-1], atol=1e-5)


def test_blur_is_a_gaussian_of_that_deviation():
    point = np.zeros((1, 3, 41, 41), np.float32)
    point[:, :, 20, 20] = 1
    spread = np.asarray(distortions.focus(point, 2.0 * ones(1), 0 * ones(1)))[0, 0]
    along = spread.sum(axis=0)
    assert along.sum() == pytest.approx(1, abs=1e-5)
    assert np.sqrt((along * (np.arange(41) - 20) ** 2).sum()) == pytest.approx(2.0, rel=0.01)
    np.testing.assert_allclose(spread, spread.T, atol=1e-7)


def test_blur_and_sharpening_keep_plain_ground_and_change_edges_opposite_ways():
    plain = 0.4 * ones(1, 3, 16, 16)
    edge = np.where(np.arange(16) < 8, 0.3, 0.7) * ones(1, 3, 16, 16)
    for amount in (0.0, 1.0):
        kept = distortions.focus(plain, 1.5 * ones(1), amount * ones(1))
        np.testing.assert_allclose(np.asarray(kept), plain, atol=1e-6)
    slope = {
        amount: np.diff(np.asarray(distortions.focus(edge, ones(1), amount * ones(1)))[0, 0, 8])[7]
        for amount in (0.0, 1.0)
    }
    assert slope[0.0] < 0.3 < 0.4 < slope[1.0]


def test_optical_density_is_scaled():
    x = smooth_images()
    factor = np.array([[0.5, 1, 2], [1.5, 0.7, 1]], np.float32)
    expected = -np.log(x) * factor[:, :, None, None]
    np.testing.assert_allclose(-np.log(distortions.absorb(x, factor)), expected, rtol=1e-4)


def test_channels_are_mixed_by_the_rows_of_the_matrix():
    x = smooth_images()
    matrix = np.random.default_rng(1).normal(size=(2, 3, 3)).astype(np.float32)
    expected = np.einsum("bkc,bchw->bkhw", matrix, x)
    np.testing.assert_allclose(distortions.mix_channels(x, matrix), expected, rtol=1e-4, atol=1e-5)


def test_light_is_the_gain_at_the_centre_and_changes_by_the_slope_to_the_edges():
    gain, slope = np.array([[0.5, 1, 1.5]], np.float32), np.zeros((1, 3, 2), np.float32)
    slope[0, 0] = (0.2, 0)
    slope[0, 2] = (0, -0.4)
    lit = np.asarray(distortions.illuminate(ones(1, 3, 33, 33), gain, slope))[0]
    np.testing.assert_allclose(lit[:, 16, 16], gain[0], rtol=1e-6)
    np.testing.assert_allclose(lit[0, [0, -1], 16], [0.4, 0.6], rtol=1e-5)
    np.testing.assert_allclose(lit[2, 16, [0, -1]], [2.1, 0.9], rtol=1e-5)
    np.testing.assert_allclose(lit[1], 1)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_the_curve_rises_from_0_to_1_through_half_to_the_gamma(gamma):
    x = np.linspace(0, 1, 33, dtype=np.float32).reshape(1, 1, 1, 33) * ones(1, 3, 1, 1)
    bent = np.asarray(distortions.bend(x, gamma * ones(1, 3)))[0, 0, 0]
    np.testing.assert_allclose(bent[[0, 16, 32]], [0, 0.5**gamma, 1], atol=1e-6)
    assert np.all(np.diff(bent) > 0)


def test_coarser_rounding_takes_fine_detail_away_and_leaves_the_mean():
    noise = np.random.default_rng(0).uniform(0.3, 0.7, (3, 3, 32, 32)).astype(np.float32)
    rounded = np.asarray(distortions.quantise_blocks(noise, np.array([0.2, 1.0, 30.0], np.float32)))
    error = np.abs(rounded - noise).mean(axis=(1, 2, 3))
    assert 0 < error[0] < error[1] < error[2]
    # A step of the mean is 10 grey levels times the coarseness over the side of a block.
    assert abs(rounded[1].mean() - noise[1].mean()) < 0.5 * 10 / 8 / 255
    assert np.ptp(rounded[2, 0, :8, :8]) < 0.01


def test_blocks_do_not_see_each_other():
    x = smooth_images(1)
    changed = x.copy()
    changed[:, :, :8, :8] = 0.1
    before, after = (
        np.asarray(distortions.quantise_blocks(image, ones(1))) for image in (x, changed)
    )
    np.testing.assert_array_equal(before[:, :, 8:], after[:, :, 8:])
    assert not np.array_equal(before[:, :, :8, :8], after[:, :, :8, :8])


def test_grey_is_the_luminance_in_all_channels():
    x = smooth_images()
    grey = np.asarray(distortions.to_grey(x, jnp.array([1.0, 0.0])))
    luminance = np.einsum("c,chw->hw", np.float32([0.299, 0.587, 0.114]), x[0])
    np.testing.assert_allclose(grey[0], np.stack([luminance] * 3), atol=1e-6)
    np.testing.assert_array_equal(grey[1], x[1])
