"""Views are exact pixel moves; jitter is bounded, and a function of its key."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.data.augment import apply_views, augment, standardize
from rcmnet_jax.data.augment_settings import DIHEDRAL, PAPER_VIEWS, Augmentation
from rcmnet_jax.errors import ConfigError

KEY = jax.random.key(0)


def random_images(batch: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (batch, height, width, 3), dtype=np.uint8)


def test_paper_views_are_the_image_its_three_rotations_and_two_flips():
    image = random_images(1, 7, 7)[0]
    views = np.asarray(apply_views(np.stack([image] * PAPER_VIEWS), jnp.arange(PAPER_VIEWS)))
    expected = [
        image,
        np.rot90(image, 1),
        np.rot90(image, 2),
        np.rot90(image, 3),
        np.flip(image, 0),
        np.flip(image, 1),
    ]
    np.testing.assert_array_equal(views, np.stack(expected))
    assert views.dtype == np.uint8


def test_the_eight_elements_are_distinct_and_closed_under_composition():
    def all_views(image):
        stack = np.stack([image] * len(DIHEDRAL))
        return [view.tobytes() for view in np.asarray(apply_views(stack, jnp.arange(8)))]

    image = random_images(1, 5, 5)[0]
    group = all_views(image)
    assert len(set(group)) == 8
    for element in group:
        moved = np.frombuffer(element, np.uint8).reshape(image.shape)
        assert set(all_views(moved)) == set(group)


def test_images_of_363_by_360_keep_their_shape_and_lose_only_a_border_when_turned():
    images = random_images(8, 363, 360)
    views = np.asarray(apply_views(images, jnp.arange(8)))
    assert views.shape == images.shape
    for view, (transpose, flip_rows, flip_columns) in enumerate(DIHEDRAL):
        moved = images[view]
        if transpose:
            # 360x363 is padded to 363 rows by one above and two below, and cut to 360 columns.
            moved = np.pad(moved.swapaxes(0, 1), ((1, 2), (0, 0), (0, 0)), mode="edge")[:, 1:361]
        moved = moved[::-1] if flip_rows else moved
        moved = moved[:, ::-1] if flip_columns else moved
        np.testing.assert_array_equal(views[view], moved)


def test_without_augmentation_pixels_are_divided_by_255_and_nothing_else():
    images = random_images(3, 6, 4)
    x = augment(images, jnp.zeros(3, jnp.int32), KEY, Augmentation(views="none"))
    assert x.dtype == jnp.float32
    np.testing.assert_array_equal(np.asarray(x), images.astype(np.float32) / 255)


def test_paper_mode_takes_the_view_that_the_order_prescribes():
    images = random_images(6, 6, 6)
    views = jnp.arange(6)
    x = augment(images, views, KEY, Augmentation(views="paper"))
    expected = np.asarray(apply_views(images, views)).astype(np.float32) / 255
    # A division by 255 that is compiled may be off by one place from NumPy's.
    np.testing.assert_allclose(np.asarray(x), expected, rtol=2e-7)


def test_dihedral_mode_draws_every_element_and_ignores_the_prescribed_view():
    image = random_images(1, 5, 5)[0]
    x = augment(np.stack([image] * 200), jnp.zeros(200, jnp.int32), KEY, Augmentation("dihedral"))
    assert len({view.tobytes() for view in np.asarray(x)}) == 8


@pytest.mark.parametrize("settings", [("dihedral", 0.0, 0.0), ("none", 0.2, 0.1)])
def test_augmentation_is_a_function_of_its_key(settings):
    images, views = random_images(16, 6, 6), jnp.zeros(16, jnp.int32)
    first, again, other = (
        np.asarray(augment(images, views, key, Augmentation(*settings)))
        for key in (KEY, KEY, jax.random.key(1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_light_scales_each_image_by_one_factor_within_its_half_width():
    images = np.full((64, 4, 4, 3), 100, np.uint8)
    x = augment(images, jnp.zeros(64, jnp.int32), KEY, Augmentation("none", light=0.1))
    factor = np.asarray(x) / (100 / 255)
    assert np.all((factor > 0.9 - 1e-6) & (factor < 1.1 + 1e-6))
    assert factor.std(axis=(1, 2, 3)).max() < 1e-6
    assert factor[:, 0, 0, 0].std() > 0.03


def test_stain_scales_the_optical_density_of_each_channel():
    images = np.full((64, 4, 4, 3), 100, np.uint8)
    x = augment(images, jnp.zeros(64, jnp.int32), KEY, Augmentation("none", stain=0.1))
    factor = np.log(np.asarray(x)[:, 0, 0]) / np.log(100 / 255)
    assert factor.shape == (64, 3)
    assert 0.07 < factor.std() < 0.13
    assert abs(factor.mean() - 1) < 0.05


@pytest.mark.parametrize("value", [0, 255])
def test_jitter_stays_between_black_and_white(value):
    images = np.full((64, 4, 4, 3), value, np.uint8)
    x = augment(images, jnp.zeros(64, jnp.int32), KEY, Augmentation("dihedral", 0.5, 0.5))
    assert np.all((np.asarray(x) >= 0) & (np.asarray(x) <= 1))


def test_standardize_uses_the_statistics_of_each_channel():
    images = np.random.default_rng(0).uniform(0, 1, (2, 3, 3, 3)).astype(np.float32)
    mean, std = (0.2, 0.4, 0.6), (0.1, 0.2, 0.3)
    expected = (images - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(np.asarray(standardize(images, mean, std)), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("mirror",), "data.views"),
        (("none", 1.0), "data.light"),
        (("none", 0.0, -0.1), "data.stain"),
    ],
)
def test_values_outside_the_choices_are_refused(arguments, named):
    with pytest.raises(ConfigError, match=named):
        Augmentation(*arguments)


def test_turning_is_refused_for_long_images_and_allowed_for_nearly_square_ones():
    for views, (height, width) in itertools.product(("dihedral", "paper"), ((363, 360), (64, 64))):
        Augmentation(views).require_shape(height, width)
    Augmentation("none").require_shape(100, 300)
    with pytest.raises(ConfigError, match=r"data\.views=none"):
        Augmentation("dihedral").require_shape(100, 300)
