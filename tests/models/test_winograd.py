"""Winograd's convolution against XLA's own and against float64."""

from functools import partial

import jax
import numpy as np
import pytest

from rcmnet_jax.models import winograd
from rcmnet_jax.models.conv_forms import plain_conv2d
from rcmnet_jax.models.winograd import winograd_conv2d
from tests.models.formulations import (
    CHANNELS_IN,
    CHANNELS_OUT,
    assert_close,
    noise,
    value_and_gradients,
)


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (6, 4), (7, 8)])
@pytest.mark.parametrize("halved_channels", [0, 256])
def test_winograd(monkeypatch, batch, size, halved_channels):
    monkeypatch.setattr(winograd, "HALVED_CHANNELS", halved_channels)
    # So few bytes at once that three and four images are several groups.
    monkeypatch.setattr(winograd, "GROUP_BYTES", 16 * 6 * 9 * 4 * 2)
    x, weights = noise(batch, *size, CHANNELS_IN), noise(3, 3, CHANNELS_IN, CHANNELS_OUT)

    @jax.jit
    def both(x, weights):
        plain = partial(plain_conv2d, padding=1)
        return [value_and_gradients(f, x, weights) for f in (winograd_conv2d, plain)]

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


def test_winograd_is_no_less_exact_than_a_plain_convolution():
    """Against float64, at the widths of the networks; relative to the largest result."""
    x, weights = noise(4, 8, 8, 256), noise(3, 3, 256, 256) / 48
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[:, i : i + 8, j : j + 8] @ weights[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )

    # XLA's own convolution adds in an order that depends on the processor: 5e-7 with AVX-512, 2e-6
    # with AVX2.
    error = np.abs(np.asarray(winograd_conv2d(x, weights)) - exact).max() / np.abs(exact).max()
    assert error < 1e-6
