"""Each formulation of a convolution against XLA's own, values and gradients."""

from functools import partial

import jax
import pytest

from rcmnet_jax.kernels import conv_forms
from rcmnet_jax.kernels.conv_forms import band_conv2d, patch_conv2d, plain_conv2d, scanned_conv2d
from rcmnet_jax.kernels.small_map_conv import small_map_conv2d
from tests.kernels.compare import (
    CHANNELS_IN,
    CHANNELS_OUT,
    assert_close,
    noise,
    value_and_gradients,
)


def assert_same_convolution(ours, x, weights, stride, padding):
    plain = partial(plain_conv2d, stride=stride, padding=padding)
    found, reference = jax.jit(lambda x, w: [value_and_gradients(f, x, w) for f in (ours, plain)])(
        x, weights
    )
    jax.tree.map(assert_close, found, reference)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [(3, 1, 1), (3, 2, 1), (7, 2, 3), (5, 1, 0), (8, 3, 2), (1, 2, 1)],
)
@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("channels", [5, 9])
def test_kernel_gradient_in_a_scan(monkeypatch, kernel, stride, padding, batch, channels):
    # Few enough patches at once that eight images are several groups.
    monkeypatch.setattr(conv_forms, "PATCHES_AT_ONCE", 100)
    monkeypatch.setattr(conv_forms, "NARROW_PATCHES_AT_ONCE", 100)
    x, weights = noise(batch, 9, 8, channels), noise(kernel, kernel, channels, 4)
    scanned = partial(scanned_conv2d, stride=stride, padding=padding)
    assert_same_convolution(lambda x, w: scanned(x, w), x, weights, stride, padding)


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
@pytest.mark.parametrize("form", ["patches", "pixels"])
def test_small_maps(kernel, stride, padding, size, form):
    if min(size) + 2 * padding < kernel:
        pytest.skip("no result")
    x, weights = noise(2, *size, CHANNELS_IN), noise(kernel, kernel, CHANNELS_IN, CHANNELS_OUT)
    ours = {
        "patches": lambda x, w: patch_conv2d(x, w, stride=stride, padding=padding),
        "pixels": lambda x, w: small_map_conv2d(x, w, stride, padding),
    }
    assert_same_convolution(ours[form], x, weights, stride, padding)


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (12, 12), (5, 9)])
@pytest.mark.parametrize(("kernel", "channels", "features"), [(7, 2, 1), (3, 1, 2), (5, 2, 2)])
def test_product_with_a_band_matrix(size, kernel, channels, features):
    x, weights = noise(2, *size, channels), noise(kernel, kernel, channels, features)
    padding = kernel // 2
    assert_same_convolution(partial(band_conv2d, padding=padding), x, weights, 1, padding)
