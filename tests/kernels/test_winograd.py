"""Winograd's convolution against XLA's own and against float64."""

from functools import partial

import jax
import numpy as np
import pytest

from rcmnet_jax.kernels import winograd
from rcmnet_jax.kernels.conv_forms import plain_conv2d
from rcmnet_jax.kernels.winograd import OF_KERNEL, OF_PIXELS, OF_RESULTS, ROTATED, winograd_conv2d
from tests.kernels.compare import (
    CHANNELS_IN,
    CHANNELS_OUT,
    assert_close,
    noise,
    value_and_gradients,
)


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (6, 4), (7, 9)])
@pytest.mark.parametrize(("separate", "transposed"), [(0, 0), (256, 0), (256, 256)])
def test_values_and_gradients_are_those_of_xla(monkeypatch, batch, size, separate, transposed):
    monkeypatch.setattr(winograd, "SEPARATE_CHANNELS", separate)
    monkeypatch.setattr(winograd, "TRANSPOSED_CHANNELS", transposed)
    # Few enough bytes that three and four images are several groups.
    monkeypatch.setattr(winograd, "GROUP_BYTES", 36 * 2 * 9 * 4 * 2)
    x, weights = noise(batch, *size, CHANNELS_IN), noise(3, 3, CHANNELS_IN, CHANNELS_OUT)

    @jax.jit
    def both(x, weights):
        plain = partial(plain_conv2d, padding=1)
        return [value_and_gradients(f, x, weights) for f in (winograd_conv2d, plain)]

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


def test_the_matrices_compute_the_correlation_of_one_tile():
    pixels, kernel = noise(6).astype(np.float64), noise(3).astype(np.float64)
    np.testing.assert_allclose(
        OF_RESULTS @ ((OF_KERNEL @ kernel) * (OF_PIXELS @ pixels)),
        np.correlate(pixels, kernel, "valid"),
        atol=1e-13,
    )


def test_a_rotated_kernel_has_the_same_values_in_another_order():
    np.testing.assert_allclose(OF_KERNEL[:, ::-1], OF_KERNEL[ROTATED], rtol=1e-15)


def test_winograd_is_exact_to_a_few_roundings():
    """Against float64, at the width of a network; relative to the largest entry."""
    channels = 256
    x, g = noise(4, 8, 8, channels), noise(4, 8, 8, channels, seed=1)
    weights = noise(3, 3, channels, channels) / np.float32(3 * channels**0.5)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = [padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    by_tap = weights.reshape(-1, channels, channels).astype(np.float64)
    exact = sum(window @ tap for window, tap in zip(windows, by_tap, strict=True))
    flat = g.reshape(-1, channels).astype(np.float64)
    exact_gradient = [w.reshape(-1, channels).T @ flat for w in windows]

    y, pull = jax.vjp(winograd_conv2d, x, weights)
    gradient = pull(g)[1].reshape(-1, channels, channels)

    # One rounding is 6e-8. XLA's own convolution is 5e-7 off with AVX-512, 2e-6 with AVX2.
    assert relative_error(y, exact) < 3e-6
    assert relative_error(gradient, np.stack(exact_gradient)) < 3e-6


def relative_error(array, exact: np.ndarray) -> float:
    return np.abs(np.asarray(array) - exact).max() / np.abs(exact).max()
