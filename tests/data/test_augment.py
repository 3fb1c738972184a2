"""Views are exact pixel moves; jitter is bounded, and a function of its key."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cart, cells, pbc
from configs.base import base_config
from rcmnet_jax.data.augment import apply_views, augment, draw_strengths, standardize
from rcmnet_jax.data.augment_settings import (
    DEFAULTS,
    DIHEDRAL,
    DISTORTIONS,
    PAPER_VIEWS,
    PRESETS,
    Augmentation,
    augmentation_of,
)
from rcmnet_jax.data.contact_sheet import contact_sheet
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
        (("none", 0.0, 0.0, (1.5, 1.2)), "data.zoom"),
        (("none", 0.0, 0.0, (0.0, 1.0)), "data.zoom"),
        (("none", 0.0, 0.0, (1.0,)), "data.zoom"),
        (("none", 0.0, 0.0, (1.0, 1.0), 200.0), "data.rotation"),
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


STRONG = PRESETS["strong"]
apply = jax.jit(augment, static_argnames="augmentation")


def strengths(augmentation: Augmentation, batch: int = 2000) -> dict[str, np.ndarray]:
    return {k: np.asarray(v) for k, v in draw_strengths(KEY, batch, augmentation).items()}


def test_a_config_without_a_preset_keeps_the_augmentation_it_had():
    for config, expected in (
        (pbc.get_config(), Augmentation("dihedral")),
        (cells.get_config(), Augmentation("dihedral", 0.05, 0.05)),
        (cart.get_config(), Augmentation("paper")),
    ):
        assert augmentation_of(config.data) == expected
        assert not expected.distorts


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_takes_the_place_of_the_keys_that_experiments_set(name):
    data = cells.get_config().data
    data.augment = name
    assert augmentation_of(data) == PRESETS[name]
    assert (name in ("mild", "strong")) == PRESETS[name].distorts == PRESETS[name].jitters


def test_a_key_beside_a_preset_is_refused_and_an_unknown_preset_too():
    data = base_config().data
    data.augment, data.zoom = "mild", (0.9, 1.1)
    with pytest.raises(ConfigError, match=r"data\.zoom.*data\.augment=mild"):
        augmentation_of(data)
    data.augment = "wild"
    with pytest.raises(ConfigError, match=r"data\.augment 'wild'.*strong"):
        augmentation_of(data)


def test_every_setting_is_a_config_key_with_the_same_default_and_alone_has_an_effect():
    data = base_config().data
    assert {name: data[name] for name in DEFAULTS} == DEFAULTS
    # Large enough that a blur, a share of the side, is more than a pixel.
    images, views = random_images(4, 64, 64), jnp.zeros(4, jnp.int32)
    plain = np.asarray(images, np.float32) / 255
    for name in DISTORTIONS:
        value = 1.0 if name == "grey" else getattr(STRONG, name)
        x = np.asarray(augment(images, views, KEY, Augmentation("none", **{name: value})))
        assert np.abs(x - plain).max() > 0.01, name


def test_a_distortion_of_strength_zero_leaves_the_pixels_alone():
    images = random_images(4, 16, 16)
    # So weak that nothing shows, and so that the code of distortions runs.
    faint = Augmentation("none", shift=1e-9)
    assert faint.distorts
    x = augment(images, jnp.zeros(4, jnp.int32), KEY, faint)
    np.testing.assert_allclose(np.asarray(x), images / 255.0, atol=1e-5)


@pytest.mark.parametrize("value", ["noise", 0, 255])
def test_strong_pixels_lie_between_black_and_white(value):
    images = random_images(32, 24, 20) if value == "noise" else np.full((32, 24, 20, 3), value)
    x = np.asarray(apply(images.astype(np.uint8), jnp.zeros(32, jnp.int32), KEY, STRONG))
    assert x.shape == images.shape
    assert x.dtype == np.float32
    assert np.all((x >= 0) & (x <= 1))


def test_strong_draws_anew_for_every_key_and_every_image_and_the_same_for_the_same_key():
    images, views = np.repeat(random_images(1, 24, 24), 6, axis=0), jnp.zeros(6, jnp.int32)
    first, again, other = (
        np.asarray(apply(images, views, key, STRONG)) for key in (KEY, KEY, jax.random.key(1))
    )
    np.testing.assert_array_equal(first, again)
    for a, b in itertools.combinations((*first, *other), 2):
        assert np.abs(a - b).max() > 0.05


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    images, views = random_images(6, 24, 24), jnp.zeros(6, jnp.int32)
    changed = images.copy()
    changed[1:] = 255 - changed[1:]
    before, after = (np.asarray(apply(batch, views, KEY, STRONG)) for batch in (images, changed))
    np.testing.assert_array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def test_strengths_fill_their_ranges_and_stay_inside():
    drawn = strengths(STRONG)
    shift, blur, angle = STRONG.shift, STRONG.blur, np.deg2rad(STRONG.rotation)
    for name, low, high in (
        ("zoom", *STRONG.zoom),
        ("angle", -angle, angle),
        ("shift", -shift, shift),
        ("blur", 0, blur),
        ("sharpen", 0, STRONG.sharpen),
        ("gain", (1 - STRONG.light) * (1 - STRONG.gain), (1 + STRONG.light) * (1 + STRONG.gain)),
        ("slope", -STRONG.shade, STRONG.shade),
        ("gamma", np.exp(-STRONG.gamma), np.exp(STRONG.gamma)),
        ("jpeg", 0, STRONG.jpeg),
        ("density", 0.1, 2.0),
    ):
        values, span = drawn[name], high - low
        assert values.min() >= low - 1e-6, name
        assert values.max() <= high + 1e-6, name
        assert values.max() - values.min() > 0.6 * span, name
    assert np.log(drawn["zoom"]).mean() == pytest.approx(np.log(STRONG.zoom).mean(), abs=0.03)
    assert drawn["density"].std() == pytest.approx(STRONG.stain, rel=0.05)


def test_an_image_is_blurred_or_sharpened_never_both():
    drawn = strengths(STRONG)
    assert np.all((drawn["blur"] > 0) != (drawn["sharpen"] > 0))
    assert (drawn["blur"] > 0).mean() == pytest.approx(0.5, abs=0.05)


def test_rows_of_the_colour_matrix_sum_to_one_and_take_at_most_the_setting_from_others():
    mixing = strengths(STRONG)["mixing"].reshape(-1, 3, 3)
    np.testing.assert_allclose(mixing.sum(axis=2), 1, atol=1e-5)
    others = mixing[:, ~np.eye(3, dtype=bool)]
    assert 0.9 * STRONG.colour < np.abs(others).max() <= STRONG.colour + 1e-6


def test_a_tenth_of_the_strong_images_is_grey():
    grey = strengths(STRONG)["grey"]
    assert set(np.unique(grey)) == {0, 1}
    assert grey.mean() == pytest.approx(0.1, abs=0.02)
    drawn = strengths(STRONG, 200)["grey"][:, 0] > 0
    images = random_images(200, 8, 8)
    x = np.asarray(apply(images, jnp.zeros(200, jnp.int32), KEY, STRONG))
    assert np.array_equal(np.ptp(x, axis=3).max(axis=(1, 2)) < 1e-5, drawn)


def test_a_contact_sheet_has_each_image_and_beside_it_what_augment_makes_of_it():
    images = random_images(3, 16, 16)
    sheet = contact_sheet(images, STRONG, KEY, samples=2)
    assert sheet.shape == (3 * 18, 3 * 18, 3)
    assert sheet.dtype == np.uint8
    rows = sheet.reshape(3, 18, 3, 18, 3).swapaxes(1, 2)[:, :, :16, :16]
    np.testing.assert_array_equal(rows[:, 0], images)
    key = jax.random.fold_in(KEY, 1)
    expected = apply(images, jnp.ones(3, jnp.int32), key, STRONG)
    np.testing.assert_array_equal(rows[:, 2], np.round(255 * np.asarray(expected)))
