"""Another laboratory's images, brought back to those at home."""

import numpy as np
import pytest

from rcmnet_jax.data.alignment import (
    Alignment,
    estimate_alignment,
    nucleus_share,
    otsu,
    rescale,
)


def cells(count: int = 24, *, radius: float = 7.0, side: int = 40, seed: int = 0) -> np.ndarray:
    """Dark discs on a bright ground."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side] - side / 2 + 0.5
    inside = rows**2 + columns**2 < radius**2
    images = np.where(inside[..., None], (90, 60, 150), (235, 215, 205))
    noisy = images[None] + rng.normal(0, 6, (count, side, side, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_the_share_of_nuclei_is_their_area_whatever_the_light():
    images = cells(radius=8)
    area = np.pi * 8**2 / 40**2
    assert nucleus_share(images) == pytest.approx(area, rel=0.05)
    assert nucleus_share((0.6 * images + 40).astype(np.uint8)) == pytest.approx(area, rel=0.05)


@pytest.mark.parametrize(("radius", "factor"), [(13.0, 7 / 13), (5.0, 7 / 5), (7.0, 1.0)])
def test_cells_get_the_size_they_have_at_home(radius, factor):
    home, other = cells(radius=7), cells(radius=radius, seed=1)
    found = estimate_alignment(other, home, colour=False)
    assert found.scale == pytest.approx(factor, rel=0.05)
    assert nucleus_share(found.apply(other)) == pytest.approx(nucleus_share(home), rel=0.12)


def test_colours_get_the_moments_they_have_at_home():
    home = cells()
    other = Alignment(1.0, (0.7, 0.8, 0.9), (0.1, 0.05, 0.0)).apply(cells(seed=1))
    found = estimate_alignment(other, home, scale=False).apply(other)
    for axis_moment in (np.mean, np.std):
        there, here = (axis_moment(x.reshape(-1, 3), axis=0) for x in (found, home))
        np.testing.assert_allclose(there, here, atol=2)


def test_nothing_asked_is_nothing_done():
    images = cells()
    identity = estimate_alignment(images[:3], images, scale=False, colour=False)
    assert identity == Alignment()
    np.testing.assert_array_equal(identity.apply(images), images)


def test_a_shrunken_image_lies_on_its_own_background():
    images = cells(count=2, radius=12)
    images[1] //= 2
    small = rescale(images, 0.5)
    assert small.shape == images.shape
    for before, after in zip(images, small, strict=True):
        ground = before[:3].reshape(-1, 3).mean(axis=0)
        np.testing.assert_allclose(after[0, 0], ground, atol=15)


def test_otsu_divides_two_levels_and_takes_one():
    histogram = np.zeros(256, int)
    histogram[[50, 200]] = 100
    assert 50 <= otsu(histogram) < 200
    one = np.zeros(256, int)
    one[7] = 5
    assert 0 <= otsu(one) <= 255
