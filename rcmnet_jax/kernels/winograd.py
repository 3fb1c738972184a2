"""3x3 convolution by Winograd's F(4x4, 3x3): 36 multiplications for sixteen results, not 144.

Lavin & Gray 2016 (arXiv 1509.09308), section 4. The image is cut into tiles of 6x6 pixels that
overlap by two, and each gives 4x4 results::

    Y = A^T [(G k G^T) * (B^T d B)] A        d: 6x6 pixels, k: 3x3 kernel, Y: 4x4 results

Summed over channels, the products are 36 matrix products. The matrices follow from the points at
which the underlying polynomials are evaluated, and the points decide how many digits are lost.

Dimensions: B images, H and W pixels, C channels in, D out, n = 6 positions a side of a tile, m = 4
results a side, T tiles of the images at hand, h and w tiles of one image.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from rcmnet_jax.kernels.conv_forms import in_groups

# Sides of a tile in pixels (and in products), of the kernel, and of a tile's results.
POSITIONS, TAPS, RESULTS = 6, 3, 4
# The points of evaluation, beside infinity: two reciprocal pairs, far enough apart. The usual
# 0, 1, -1, 2, -2 lose four times as much precision.
POINTS = (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
# A rotated kernel has at each point what the kernel has at the reciprocal point.
ROTATED = [5, 3, 4, 1, 2, 0]
# Bytes of transformed tiles held at once: a few megabytes stay in the cache.
GROUP_BYTES = 11e6
# XLA's CPU library computes a group's product on one core up to this many channels. There each
# position has a product of its own, and they run side by side; above, a column of positions has.
SEPARATE_CHANNELS = 128
# Up to this many channels the kernel gradient's products are too narrow for the library that XLA
# uses where the left side has its tiles down the columns, so the gradient is transposed first.
TRANSPOSED_CHANNELS = 64


def matrices(points: Sequence[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B^T (n, n), G (n, 3) and A^T (m, n), after Cook and Toom.

    Column j of A^T and row j of G hold the powers of point p_j; row j of B^T the coefficients of
    the product of (x - p_l) over all other points, divided by its value at p_j. The last row is
    infinity's, where only the highest power counts. G's rows are divided by p_j, so that they are
    (1/p, 1, p) and a rotated kernel has the same values in another order (`ROTATED`); B^T's are
    multiplied by it.
    """
    pixels, kernel = [], []
    for j, point in enumerate(points):
        others = np.delete(points, j)
        scale = point or 1
        pixels.append(np.append(np.poly(others)[::-1], 0) * scale / np.prod(point - others))
        kernel.append(point ** np.arange(TAPS) / scale)
    pixels.append(np.poly(points)[::-1])
    kernel.append(np.eye(TAPS)[-1])
    powers = np.vander(points, RESULTS, increasing=True).T
    return np.array(pixels), np.array(kernel), np.hstack([powers, np.eye(RESULTS)[:, -1:]])


OF_PIXELS, OF_KERNEL, OF_RESULTS = matrices(POINTS)


@jax.custom_vjp
def winograd_conv2d(x_BxHxWxC: jax.Array, kernel: jax.Array) -> jax.Array:
    """3x3 convolution with stride 1 and padding 1.

    Args:
      x_BxHxWxC: input, float32.
      kernel: (3, 3, C, D), float32.

    Returns:
      (B, H, W, D).
    """
    return _convolve(x_BxHxWxC, kernel)


def _convolve(x, kernel: jax.Array, *, rotated: bool = False) -> jax.Array:
    """The convolution by a kernel, or from D to C by the kernel rotated by 180 degrees."""
    kernel_columns = _transform_kernel(kernel)
    order = ROTATED if rotated else slice(None)
    sums = (((2,), (2 if rotated else 1,)), ((0,), (0,)))
    channels = max(kernel.shape[2:])
    pieces = _pieces(1 if channels <= SEPARATE_CHANNELS else POSITIONS)

    def convolve(x):
        columns = _tiles(x, OF_PIXELS[order])
        products = [
            [
                lax.dot_general(tiles[rows], kernel[rows], sums)
                for tiles, kernel in zip(columns, kernel_columns, strict=True)
            ]
            for rows in pieces
        ]
        return _results(products, OF_RESULTS[:, order], x.shape[:3])

    at_once = _images_at_once(x.shape, channels)
    if at_once == len(x):
        return convolve(x)
    return lax.map(convolve, in_groups(x, at_once)).reshape(*x.shape[:3], -1)


def _forward(x, kernel):
    return winograd_conv2d(x, kernel), (x, kernel)


def _backward(residuals, g):
    x, kernel = residuals
    # The compiler drops whichever is not used (gradients of images, of frozen kernels).
    return _convolve(g, kernel, rotated=True), _kernel_gradient(x, g)


winograd_conv2d.defvjp(_forward, _backward)


def _kernel_gradient(x, g) -> jax.Array:
    """``G^T [sum over tiles of (B^T d B) (A g A^T)] G``: the transpose of the convolution."""
    widest = max(x.shape[-1], g.shape[-1])
    transposed = widest <= TRANSPOSED_CHANNELS
    sums = (((2 if transposed else 1,), (1,)), ((0,), (0,)))
    pieces = _pieces(POSITIONS // 2 if transposed else POSITIONS)

    def over_tiles(x, g) -> list[jax.Array]:
        tiles, spread = _tiles(x, OF_PIXELS), _spread(g, transposed)
        left, right = (spread, tiles) if transposed else (tiles, spread)
        return [
            lax.dot_general(a[rows], b[rows], sums)
            for a, b in zip(left, right, strict=True)
            for rows in pieces
        ]

    at_once = _images_at_once(x.shape, widest)
    if at_once == len(x):
        products = over_tiles(x, g)
    else:
        shapes = jax.eval_shape(over_tiles, x[:at_once], g[:at_once])
        products, _ = lax.scan(
            lambda total, images: (jax.tree.map(jnp.add, total, over_tiles(*images)), None),
            [jnp.zeros(s.shape, s.dtype) for s in shapes],
            (in_groups(x, at_once), in_groups(g, at_once)),
        )
    total = jnp.concatenate(products).reshape(POSITIONS**2, -1)
    back = np.einsum("ia,jb->abji", OF_KERNEL, OF_KERNEL).reshape(TAPS**2, -1).astype(np.float32)
    gradient = (back @ total).reshape(TAPS, TAPS, *products[0].shape[1:])
    return gradient.swapaxes(2, 3) if transposed else gradient


def _transform_kernel(kernel) -> list[jax.Array]:
    """``G k G^T`` of every pair of channels: (n, C, D) for each column of positions."""
    both = np.einsum("ia,jb->jiab", OF_KERNEL, OF_KERNEL).reshape(POSITIONS, POSITIONS, -1)
    taps = kernel.reshape(-1, kernel[0, 0].size)
    return [(column.astype(np.float32) @ taps).reshape(-1, *kernel.shape[2:]) for column in both]


def _tiles(x, matrix: np.ndarray) -> list[jax.Array]:
    """``B^T d B`` of every tile: (n, T, C) for each column of positions."""
    height, width, channels = x.shape[1:]
    down, across = _tiles_along(height), _tiles_along(width)
    # One pixel before; behind, one and what the last tile reaches beyond the image.
    beyond = [(1, RESULTS * n + 1 - side) for side, n in ((height, down), (width, across))]
    x = jnp.pad(x, ((0, 0), *beyond, (0, 0)))
    rows = [x[:, i : i + RESULTS * (down - 1) + 1 : RESULTS] for i in range(POSITIONS)]
    rows_nxBxhxWxC = _combine(matrix, rows, axis=0)
    columns = [
        rows_nxBxhxWxC[:, :, :, j : j + RESULTS * (across - 1) + 1 : RESULTS]
        for j in range(POSITIONS)
    ]
    return [_sum(factors, columns).reshape(POSITIONS, -1, channels) for factors in matrix]


def _spread(g, transposed: bool) -> list[jax.Array]:
    """``A g A^T`` of every tile: for each column (n, T, D), or transposed (n, D, T)."""
    batch, height, width, features = g.shape
    down, across = _tiles_along(height), _tiles_along(width)
    beyond = [(0, RESULTS * n - side) for side, n in ((height, down), (width, across))]
    g = jnp.pad(g, ((0, 0), *beyond, (0, 0)))
    g = g.reshape(batch, down, RESULTS, across, RESULTS, features)
    if transposed:
        # Before it is spread to twice its size; the constraint keeps the compiler from undoing it.
        g = g.transpose(2, 4, 5, 0, 1, 3).reshape(RESULTS, RESULTS, features, -1)
        g = with_layout_constraint(g, Layout((0, 1, 2, 3)))
    else:
        g = g.transpose(2, 4, 0, 1, 3, 5).reshape(RESULTS, RESULTS, -1, features)
    # (n, m, T, D), or transposed (n, m, D, T).
    spread_rows = _combine(OF_RESULTS.T, list(g), axis=0)
    columns = [spread_rows[:, j] for j in range(RESULTS)]
    return [_sum(factors, columns) for factors in OF_RESULTS.T]


def _results(
    pieces: list[list[jax.Array]], matrix: np.ndarray, shape: tuple[int, int, int]
) -> jax.Array:
    """``A^T m A`` of every tile, side by side: (B, H, W, D).

    Each piece holds some rows of positions: (rows, T, D) for every column.
    """
    batch, height, width = shape
    down, across = _tiles_along(height), _tiles_along(width)
    features = pieces[0][0].shape[-1]
    rows = []
    for columns in pieces:
        columns = [column.reshape(-1, batch, down, across, features) for column in columns]
        # The results in a row of a tile go next to the tiles.
        piece = _combine(matrix, columns, axis=4)
        rows += list(piece.reshape(-1, batch, down, across * RESULTS, features))
    y = jnp.stack([_sum(factors, rows) for factors in matrix], axis=2)
    y = y.reshape(batch, down * RESULTS, across * RESULTS, features)
    return y[:, :height, :width]


def _combine(matrix: np.ndarray, parts: list[jax.Array], axis: int) -> jax.Array:
    """The rows of a matrix applied to as many arrays as it has columns, stacked.

    Kept in memory by the barrier; the compiler would compute it anew for every position.
    """
    return lax.optimization_barrier(jnp.stack([_sum(row, parts) for row in matrix], axis))


def _sum(factors: np.ndarray, parts: list[jax.Array]) -> jax.Array:
    """``sum of factor * part``, without the terms whose factor is 0."""
    terms = [
        part if factor == 1 else np.float32(factor) * part
        for factor, part in zip(factors, parts, strict=True)
        if factor
    ]
    return sum(terms[1:], terms[0])


def _pieces(size: int) -> list[slice]:
    """The rows of positions, ``size`` at a time."""
    return [slice(row, row + size) for row in range(0, POSITIONS, size)]


def _tiles_along(side: int) -> int:
    return -(-side // RESULTS)


def _images_at_once(shape, channels: int) -> int:
    """The most images that divide the batch and whose tiles take at most `GROUP_BYTES`."""
    batch, height, width, _ = shape
    of_one = POSITIONS**2 * _tiles_along(height) * _tiles_along(width) * channels * 4
    return max(
        n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * of_one <= GROUP_BYTES)
    )
