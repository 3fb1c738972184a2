"""Winograd's convolution against XLA's own and against float64."""

from functools import partial

import jax
import numpy as np
import pytest

from rcmnet_jax.kernels import winograd
from rcmnet_jax.kernels.conv_forms import plain_conv2d
from rcmnet_jax.kernels.winograd import BY_TAPS, TURNED, winograd_conv2d
from tests.kernels.formulations import (
    CHANNELS_IN,
    CHANNELS_OUT,
    assert_close,
    noise,
    value_and_gradients,
)


@pytest.mark.parametrize(("taps", "batch"), [(3, 1), (3, 3), (3, 4), (5, 4)])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (6, 4), (7, 9)])
@pytest.mark.parametrize(("separate", "turned"), [(0, 0), (256, 0), (256, 256)])
def test_winograd(monkeypatch, taps, batch, size, separate, turned):
    monkeypatch.setattr(winograd, "SEPARATE_CHANNELS", separate)
    monkeypatch.setattr(winograd, "TURNED_CHANNELS", turned)
    # So few bytes at once that three and four images are several groups.
    monkeypatch.setattr(winograd, "GROUP_BYTES", 36 * 2 * 9 * 4 * 2)
    x, weights = noise(batch, *size, CHANNELS_IN), noise(taps, taps, CHANNELS_IN, CHANNELS_OUT)

    @jax.jit
    def both(x, weights):
        plain = partial(plain_conv2d, padding=taps // 2)
        return [value_and_gradients(f, x, weights) for f in (winograd_conv2d, plain)]

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


@pytest.mark.parametrize("taps", [3, 5])
def test_matrices_give_the_correlation_of_one_tile(taps):
    by = BY_TAPS[taps]
    pixels, kernel = noise(6).astype(np.float64), noise(taps).astype(np.float64)

    np.testing.assert_allclose(
        by.result @ ((by.kernel @ kernel) * (by.pixels @ pixels)),
        np.correlate(pixels, kernel, "valid"),
        atol=1e-13,
    )


@pytest.mark.parametrize("taps", [3, 5])
def test_a_turned_kernel_has_the_same_values_in_another_order(taps):
    kernel = BY_TAPS[taps].kernel
    np.testing.assert_allclose(kernel[:, ::-1], kernel[TURNED], rtol=1e-15)


@pytest.mark.parametrize(("taps", "channels"), [(3, 256), (5, 64)])
def test_winograd_is_exact_to_a_few_roundings(taps, channels):
    """Against float64, at the widths of the networks; relative to the largest entry."""
    x, g = noise(4, 8, 8, channels), noise(4, 8, 8, channels, seed=1)
    weights = noise(taps, taps, channels, channels) / np.float32(taps * channels**0.5)
    padding = (taps // 2, taps // 2)
    padded = np.pad(x.astype(np.float64), ((0, 0), padding, padding, (0, 0)))
    windows = [padded[:, i : i + 8, j : j + 8] for i in range(taps) for j in range(taps)]
    by_tap = weights.reshape(-1, channels, channels).astype(np.float64)
    exact = sum(window @ tap for window, tap in zip(windows, by_tap, strict=True))
    flat = g.reshape(-1, channels).astype(np.float64)
    exact_gradient = [w.reshape(-1, channels).T @ flat for w in windows]

    y, pull = jax.vjp(winograd_conv2d, x, weights)
    gradient = pull(g)[1].reshape(-1, channels, channels)

    # Rounding once is 6e-8. XLA's own convolution, which adds in an order that depends on the
    # processor, has 5e-7 with AVX-512 and 2e-6 with AVX2 for the first.
    assert relative_error(y, exact) < 3e-6
    assert relative_error(gradient, np.stack(exact_gradient)) < 3e-6


def relative_error(array, exact: np.ndarray) -> float:
    return np.abs(np.asarray(array) - exact).max() / np.abs(exact).max()
