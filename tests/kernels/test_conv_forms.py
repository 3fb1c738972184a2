"""Each formulation of a convolution against XLA's own, values and gradients."""

from functools import partial

import jax
import pytest

from rcmnet_jax.kernels import conv_forms
from rcmnet_jax.kernels.conv_forms import band_conv2d, plain_conv2d, scanned_conv2d
from rcmnet_jax.kernels.small_map_conv import small_map_conv2d
from tests.kernels.formulations import (
    CHANNELS_IN,
    CHANNELS_OUT,
    assert_close,
    noise,
    value_and_gradients,
)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 1, 1), (3, 2, 1), (7, 2, 3), (5, 1, 0), (8, 3, 2), (1, 2, 1)],
)
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("by_planes", [False, True])
def test_kernel_gradient_in_a_scan(monkeypatch, kernel, stride, padding, batch, by_planes):
    # So few patches at once that eight images are several groups.
    monkeypatch.setattr(conv_forms, "PATCHES_AT_ONCE", 100)
    monkeypatch.setattr(conv_forms, "NARROW_PATCHES_AT_ONCE", 100)
    x, weights = noise(batch, 9, 8, 5), noise(kernel, kernel, 5, 4)

    def scanned(x, weights, stride, padding):
        return scanned_conv2d(x, weights, stride, padding, 1, by_planes)

    @jax.jit
    def both(x, weights):
        how = {"stride": stride, "padding": padding}
        ours = value_and_gradients(partial(scanned, **how), x, weights)
        return ours, value_and_gradients(partial(plain_conv2d, **how), x, weights)

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


def test_parts_of_a_batch_are_the_whole():
    x, weights = noise(16, 9, 8, 3), noise(7, 7, 3, 32)

    @jax.jit
    def both(x, weights):
        ours = value_and_gradients(lambda x, w: scanned_conv2d(x, w, 2, 3, 8), x, weights)
        plain = partial(plain_conv2d, stride=2, padding=3)
        return ours, value_and_gradients(plain, x, weights)

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


def test_groups_of_images_divide_the_batch_and_stay_small():
    assert conv_forms._images_at_once(64, 256, 2048) == 8
    assert conv_forms._images_at_once(64, 1024, 2048) == 2
    # Two even where that is too many rows: one image keeps only one core busy.
    assert conv_forms._images_at_once(16, 8190, 2048) == 2
    assert conv_forms._images_at_once(7, 400, 2048) == 1
    assert conv_forms._images_at_once(6, 400, 2048) == 3


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 2), (4, 4), (5, 3)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 1, 0), (5, 1, 2), (7, 2, 3)]
)
def test_products_of_pixels(kernel, stride, padding, size):
    if min(size) + 2 * padding < kernel:
        pytest.skip("no result")
    x, weights = noise(2, *size, CHANNELS_IN), noise(kernel, kernel, CHANNELS_IN, CHANNELS_OUT)

    @jax.jit
    def both(x, weights):
        plain = partial(plain_conv2d, stride=stride, padding=padding)
        ours = value_and_gradients(lambda x, w: small_map_conv2d(x, w, stride, padding), x, weights)
        return ours, value_and_gradients(plain, x, weights)

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (12, 12), (5, 9)])
@pytest.mark.parametrize(("kernel", "channels", "features"), [(7, 2, 1), (3, 1, 2), (5, 2, 2)])
def test_product_with_a_band_matrix(size, kernel, channels, features):
    x, weights = noise(2, *size, channels), noise(kernel, kernel, channels, features)

    @jax.jit
    def both(x, weights):
        forms = (band_conv2d, plain_conv2d)
        padding = kernel // 2
        return [value_and_gradients(partial(f, padding=padding), x, weights) for f in forms]

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)
