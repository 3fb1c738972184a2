"""3x3 convolution with 16 multiplications for four results instead of 36.

Winograd's minimal filtering F(2x2, 3x3), Lavin & Gray 2016 (arXiv 1509.09308), section 4.1. The
image is cut into tiles of 4x4 pixels that overlap by two, each gives 2x2 results::

    Y = A^T [(G k G^T) * (B^T d B)] A        d: 4x4 pixels, k: 3x3 kernel, Y: 2x2 results

The transforms are sums and differences of neighbours (those of the kernel also halves), and the
products, summed over channels, are 16 matrix products. The result is within 1e-6 of float64
(tests/models/test_winograd.py), no farther than that of XLA's convolution. Larger tiles save more
and lose digits; F(4x4, 3x3) is ten times less exact.

Dimensions: B images, H and W pixels, C channels in, D out, P = 16 positions in a tile, T tiles.
"""

from collections.abc import Sequence
from functools import reduce
from operator import add, sub

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rcmnet_jax.models.conv_forms import in_groups

INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])  # B^T
KERNEL = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]]) / 2  # G
RESULT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])  # A^T
# A kernel turned round has its first and last transformed rows and columns exchanged. The tiles can
# be put in that order instead, and their results out of it, at no cost.
TURNED = [3, 1, 2, 0]
# Transformed tiles that are held at once, in bytes: a few megabytes stay in the cache. Measured on
# 64 channels at 16x16, batch 64, two cores: 2.2 ms in groups of 8 MB, 3.5 in one of 17 MB.
GROUP_BYTES = 9e6
# The positions in a tile, by its rows: XLA writes a stack of up to eight arrays in one pass.
HALVES = (slice(0, 2), slice(2, 4))
# Up to so many channels the kernel gradient is a product of each half, side by side, with the
# gradient's tiles along the rows. What whole training steps gain: docs/performance.md.
HALVED_CHANNELS = 256


@jax.custom_vjp
def winograd_conv2d(x_BxHxWxC: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution with stride 1 and one pixel of padding.

    Args:
      x_BxHxWxC: input, float32.
      kernel: (3, 3, C, D), float32.

    Returns:
      (B, H, W, D).
    """
    return _convolve(x_BxHxWxC, _transform_kernel(kernel))


def _convolve(x, kernel_PxCxD, transposed: bool = False) -> jax.Array:
    """The convolution by a transformed kernel; or by the same turned round, from D to C."""
    order = TURNED if transposed else slice(None)
    dimensions = (((2,), (2 if transposed else 1,)), ((0,), (0,)))

    def convolve(x):
        products = lax.dot_general(_tiles(x, INPUT[order]), kernel_PxCxD, dimensions)
        return _results(products, RESULT[:, order], x.shape[:3])

    at_once = _images_at_once(x.shape, kernel_PxCxD.shape)
    if at_once == len(x):
        return convolve(x)
    return lax.map(convolve, in_groups(x, at_once)).reshape(*x.shape[:3], -1)


def _forward(x, kernel):
    return winograd_conv2d(x, kernel), (x, kernel)


def _backward(residuals, g):
    x, kernel = residuals
    # What is not asked for (of images, of frozen kernels) the compiler leaves out.
    dx = _convolve(g, _transform_kernel(kernel), transposed=True)
    return dx, _kernel_gradient(x, g)


winograd_conv2d.defvjp(_forward, _backward)


def _kernel_gradient(x, g) -> jax.Array:
    """``G^T [sum over tiles of (B^T d B) (A g A^T)] G``: the transpose of the convolution."""
    channels, features = x.shape[-1], g.shape[-1]
    halved = max(channels, features) <= HALVED_CHANNELS
    of_tiles = _halved_sum_over_tiles if halved else _sum_over_tiles
    at_once = _images_at_once(x.shape, (channels, features))
    if at_once == len(x):
        total_PxDxC = of_tiles(x, g)
    else:
        total_PxDxC, _ = lax.scan(
            lambda total, images: (total + of_tiles(*images), None),
            jnp.zeros((16, features, channels), g.dtype),
            (in_groups(x, at_once), in_groups(g, at_once)),
        )
    # Turned once at the end: in every group it costs 2 % of a training step.
    total_PxCxD = jnp.swapaxes(total_PxDxC, 1, 2)
    back = np.kron(KERNEL, KERNEL).T.astype(np.float32)
    return jnp.matmul(back, total_PxCxD.reshape(16, -1)).reshape(3, 3, channels, features)


def _sum_over_tiles(x, g) -> jax.Array:
    """Transformed gradients (B, H, W, D) times transformed inputs (B, H, W, C): (P, D, C)."""
    corners = _corners(g)
    spread_PxTxD = jnp.concatenate([_sandwich(RESULT.T, corners, rows) for rows in HALVES])
    return lax.dot_general(spread_PxTxD, _tiles(x), (((1,), (1,)), ((0,), (0,))))


def _halved_sum_over_tiles(x, g) -> jax.Array:
    """`_sum_over_tiles` as two products, of eight positions each, that may run at the same time.

    The library is quickest where the left side has its tiles along the rows. So the gradient is
    turned, before it is spread to four times its size, and barriers keep the compiler from turning
    it back.
    """
    corners = lax.optimization_barrier(_corners(g, turned=True))
    halves = []
    for rows in HALVES:
        spread_PxDxT = lax.optimization_barrier(_sandwich(RESULT.T, corners, rows))
        tiles_PxTxC = _half_of_tiles(x, rows)
        halves.append(lax.dot_general(spread_PxDxT, tiles_PxTxC, (((2,), (1,)), ((0,), (0,)))))
    return jnp.concatenate(halves)


def _transform_kernel(kernel) -> jax.Array:
    """``G k G^T`` of every pair of channels: (P, C, D)."""
    both = np.kron(KERNEL, KERNEL).astype(np.float32)
    return (both @ kernel.reshape(9, -1)).reshape(16, *kernel.shape[2:])


def _tiles(x, matrix=INPUT) -> jax.Array:
    """``B^T d B`` of every tile: (P, T, C)."""
    return jnp.concatenate([_half_of_tiles(x, rows, matrix) for rows in HALVES])


def _half_of_tiles(x, rows: slice, matrix=INPUT) -> jax.Array:
    """``B^T d B`` of every tile, two of its four rows of positions: (P / 2, T, C)."""
    height, width, channels = x.shape[1:]
    down, across = -(-height // 2), -(-width // 2)
    # One pixel before, one behind, and one more where the side is odd.
    x = jnp.pad(x, ((0, 0), (1, 2 * down + 1 - height), (1, 2 * across + 1 - width), (0, 0)))
    pixels = [
        [x[:, i : i + 2 * down - 1 : 2, j : j + 2 * across - 1 : 2] for j in range(4)]
        for i in range(4)
    ]
    # Before the halves are joined: the compiler then writes each in one pass.
    return _sandwich(matrix, pixels, rows).reshape(8, -1, channels)


def _corners(g, turned: bool = False) -> jax.Array:
    """The result in each row and column of every tile: (2, 2, T, D), or turned (2, 2, D, T)."""
    batch, height, width, features = g.shape
    down, across = -(-height // 2), -(-width // 2)
    g = jnp.pad(g, ((0, 0), (0, 2 * down - height), (0, 2 * across - width), (0, 0)))
    g = g.reshape(batch, down, 2, across, 2, features)
    if turned:
        return g.transpose(2, 4, 5, 0, 1, 3).reshape(2, 2, features, -1)
    return g.transpose(2, 4, 0, 1, 3, 5).reshape(2, 2, -1, features)


def _results(products_PxTxD, matrix, shape: tuple[int, int, int]) -> jax.Array:
    """``A^T m A`` of every tile, side by side: (B, H, W, D)."""
    batch, height, width = shape
    down, across = -(-height // 2), -(-width // 2)
    products = products_PxTxD.reshape(4, 4, batch, down, across, -1)
    results = _sandwich(matrix, products).reshape(2, 2, batch, down, across, -1)
    # The places in a tile go next to the tiles.
    y = results.transpose(2, 3, 0, 4, 1, 5).reshape(batch, 2 * down, 2 * across, -1)
    return y[:, :height, :width]


def _sandwich(matrix: np.ndarray, parts, rows: slice = slice(None)) -> jax.Array:
    """``M p M^T`` of parts p[row][column], or some of its rows, entry by entry: (entries, ...)."""
    columns = [_combine(matrix[rows], column) for column in zip(*parts, strict=True)]
    entries = [_combine(matrix, row) for row in zip(*columns, strict=True)]
    return jnp.stack([entry for row in entries for entry in row])


def _combine(matrix: np.ndarray, parts: Sequence[jax.Array]) -> list[jax.Array]:
    """The rows of a matrix of -1, 0 and 1 applied to as many arrays."""

    def row(signs) -> jax.Array:
        added = [part for sign, part in zip(signs, parts, strict=True) if sign > 0]
        taken = [part for sign, part in zip(signs, parts, strict=True) if sign < 0]
        total = reduce(add, added) if added else -taken.pop()
        return reduce(sub, taken, total)

    return [row(signs) for signs in matrix]


def _images_at_once(shape, kernel_shape) -> int:
    """The most images that divide the batch and whose tiles are at most `GROUP_BYTES`."""
    batch, height, width, _ = shape
    tiles = -(-height // 2) * -(-width // 2)
    of_one = 16 * tiles * max(kernel_shape[-2:]) * 4
    return max(
        n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * of_one <= GROUP_BYTES)
    )
