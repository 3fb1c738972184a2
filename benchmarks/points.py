"""How many digits Winograd's convolution loses, by the points at which it evaluates.

    python benchmarks/points.py

Largest and root mean square error against float64, relative to the largest and to the root mean
square entry, of a convolution and of its kernel gradient: images as a ReLU leaves them, weights
as they are initialised, 3x3 with 64 channels at 16x16 and 256 at 8x8, 5x5 with 64 at 15x15, batch
8. The first line of each is XLA's own convolution.
"""

from functools import partial

import jax
import numpy as np

from rcmnet_jax.models import winograd
from rcmnet_jax.models.conv_forms import plain_conv2d

# Two pairs beside 0 and infinity.
PAIRS = (
    (1, 2),
    (1 / 2, 1),
    (1 / 2, 2),
    (1 / 2, 3 / 2),
    (5 / 8, 3 / 2),
    (2 / 3, 3 / 2),
    (3 / 4, 4 / 3),
)
# Images, pixels a side, channels, taps a side.
SHAPES = ((8, 16, 64, 3), (8, 8, 256, 3), (8, 15, 64, 5))
SEED = 0


def main() -> None:
    for batch, side, channels, taps in SHAPES:
        rng = np.random.default_rng(SEED)
        x = np.maximum(rng.normal(size=(batch, side, side, channels)), 0).astype(np.float32)
        kernel = rng.normal(size=(taps, taps, channels, channels))
        kernel *= np.sqrt(2 / (taps**2 * channels))
        kernel = kernel.astype(np.float32)
        gradient = rng.normal(size=x.shape).astype(np.float32)
        arrays = x, kernel, gradient
        exact = in_float64(*arrays)
        plain = partial(plain_conv2d, padding=taps // 2)
        show(f"{taps}x{taps}, {channels} channels, XLA", plain, arrays, exact)
        for a, b in PAIRS:
            points = (0, a, -a, b, -b)
            winograd.BY_TAPS[taps] = winograd.matrices(points, taps)
            # Or the matrices of the pair before could still be in what was traced.
            jax.clear_caches()
            show(f"0, ±{a:.3g}, ±{b:.3g}", winograd.winograd_conv2d, arrays, exact)


def in_float64(x, kernel, gradient) -> tuple[np.ndarray, np.ndarray]:
    """The convolution (B, H, W, C) and its kernel gradient (r, r, C, C)."""
    side, channels, taps = x.shape[1], x.shape[-1], len(kernel)
    padding = (taps // 2, taps // 2)
    padded = np.pad(x.astype(np.float64), ((0, 0), padding, padding, (0, 0)))
    windows = [padded[:, i : i + side, j : j + side] for i in range(taps) for j in range(taps)]
    matrices = kernel.astype(np.float64).reshape(-1, channels, channels)
    result = sum(window @ matrix for window, matrix in zip(windows, matrices, strict=True))
    flat = gradient.astype(np.float64).reshape(-1, channels)
    of_taps = [window.reshape(-1, channels).T @ flat for window in windows]
    return result, np.stack(of_taps).reshape(kernel.shape)


def show(name: str, convolve, arrays, exact) -> None:
    @jax.jit
    def both(x, kernel, gradient):
        y, pull = jax.vjp(lambda kernel: convolve(x, kernel), kernel)
        return y, pull(gradient)[0]

    errors = []
    for found, true in zip(both(*arrays), exact, strict=True):
        difference = np.asarray(found, np.float64) - true
        largest = np.abs(difference).max() / np.abs(true).max()
        errors.append(f"{largest:.1e}, {difference.std() / true.std():.1e}")
    print(f"{name:22} convolution {errors[0]}   kernel gradient {errors[1]}")


if __name__ == "__main__":
    main()
