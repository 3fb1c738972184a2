"""3x3 convolution with 36 multiplications for sixteen results instead of 144, and 5x5 like it.

Winograd's minimal filtering F(4x4, 3x3), Lavin & Gray 2016 (arXiv 1509.09308), section 4. The image
is cut into tiles of 6x6 pixels that overlap by two, each gives 4x4 results::

    Y = A^T [(G k G^T) * (B^T d B)] A        d: 6x6 pixels, k: 3x3 kernel, Y: 4x4 results

and the products, summed over channels, are 36 matrix products. Under a 5x5 kernel the same tiles
overlap by four and give 2x2 results each, by 36 multiplications instead of 100. The matrices follow
from the points at which the polynomials behind it are evaluated (`matrices`), and on these depends
how many digits are lost: see docs/decisions/0064-larger-tiles.md and 0066.

Dimensions: B images, H and W pixels, C channels in, D out, n = 6 positions a side of a tile, m = 4
or 2 results, T tiles of the images at hand, h and w of one image.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from rcmnet_jax.kernels.conv_forms import in_groups

# A side of a tile, in pixels and in positions at which there is a product.
POSITIONS = 6
# The points of evaluation, infinity beside them: small numbers and their reciprocals, the two pairs
# far enough apart. The usual 0, 1, -1, 2, -2 lose four times as much.
POINTS = (0, 2 / 3, -2 / 3, 3 / 2, -3 / 2)
# A kernel turned round has at each point what the kernel has at the reciprocal.
TURNED = [5, 3, 4, 1, 2, 0]
# Transformed tiles that are held at once, in bytes: a few megabytes stay in the cache.
GROUP_BYTES = 11e6
# Up to so many channels the library computes the product of a group on one core. Each position then
# has its own, and they run side by side; else those of a column of positions are one product.
SEPARATE_CHANNELS = 128
# Up to so many channels the kernel gradient's products are too narrow for the library that XLA
# takes where the left side has its tiles down the columns.
TURNED_CHANNELS = 64


@dataclasses.dataclass(frozen=True)
class Matrices:
    """Of one size of kernel, r pixels a side, and its m = n - r + 1 results.

    Attributes:
      pixels: B^T (n, n).
      kernel: G (n, r).
      result: A^T (m, n).
    """

    pixels: np.ndarray
    kernel: np.ndarray
    result: np.ndarray

    @property
    def results(self) -> int:
        """A side of a tile, in results."""
        return len(self.result)

    @property
    def padding(self) -> int:
        """Pixels on each side of the image, so that there are as many results."""
        return self.kernel.shape[1] // 2

    def tiles_along(self, side: int) -> int:
        """Tiles for so many results."""
        return -(-side // self.results)


def matrices(points: Sequence[float], taps: int) -> Matrices:
    """The matrices for a kernel of so many taps a side, after Cook and Toom.

    Row j of A^T's transpose and of G holds the powers of point p_j; B^T the coefficients of the
    product of (x - p_l) over all other points, divided by its value at p_j. The last row is
    infinity's, where only the highest power counts. G's rows are divided by the power of p_j in
    their middle, so that they are (1/p, 1, p) and a turned kernel has the same values in another
    order (`TURNED`), and B^T's are multiplied by it.
    """
    results = POSITIONS - taps + 1
    pixels, kernel = [], []
    for j, point in enumerate(points):
        others = np.delete(points, j)
        scale = point ** (taps // 2) or 1
        pixels.append(np.append(np.poly(others)[::-1], 0) * scale / np.prod(point - others))
        kernel.append(point ** np.arange(taps) / scale)
    pixels.append(np.poly(points)[::-1])
    kernel.append(np.eye(taps)[-1])
    powers = np.vander(points, results, increasing=True).T
    at_infinity = np.eye(results)[:, -1:]
    return Matrices(np.array(pixels), np.array(kernel), np.hstack([powers, at_infinity]))


BY_TAPS = {taps: matrices(POINTS, taps) for taps in (3, 5)}


@jax.custom_vjp
def winograd_conv2d(x_BxHxWxC: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution with stride 1, padded to as many results as pixels.

    Args:
      x_BxHxWxC: input, float32.
      kernel: (3, 3, C, D) or (5, 5, C, D), float32.

    Returns:
      (B, H, W, D).
    """
    return _convolve(x_BxHxWxC, kernel)


def _convolve(x, kernel: jax.Array, transposed: bool = False) -> jax.Array:
    """The convolution by a kernel; or by the same turned round, from D to C."""
    by = BY_TAPS[len(kernel)]
    kernel_columns = _transform_kernel(kernel, by.kernel)
    order = TURNED if transposed else slice(None)
    sums = (((2,), (2 if transposed else 1,)), ((0,), (0,)))
    channels = max(kernel.shape[2:])
    pieces = _pieces(1 if channels <= SEPARATE_CHANNELS else POSITIONS)

    def convolve(x):
        columns = _tiles(x, by, by.pixels[order])
        products = [
            [
                lax.dot_general(tiles[rows], kernel[rows], sums)
                for tiles, kernel in zip(columns, kernel_columns, strict=True)
            ]
            for rows in pieces
        ]
        return _results(products, by, by.result[:, order], x.shape[:3])

    at_once = _images_at_once(x.shape, channels, by)
    if at_once == len(x):
        return convolve(x)
    return lax.map(convolve, in_groups(x, at_once)).reshape(*x.shape[:3], -1)


def _forward(x, kernel):
    return winograd_conv2d(x, kernel), (x, kernel)


def _backward(residuals, g):
    x, kernel = residuals
    # What is not asked for (of images, of frozen kernels) the compiler leaves out.
    return _convolve(g, kernel, transposed=True), _kernel_gradient(x, g, len(kernel))


winograd_conv2d.defvjp(_forward, _backward)


def _kernel_gradient(x, g, taps: int) -> jax.Array:
    """``G^T [sum over tiles of (B^T d B) (A g A^T)] G``: the transpose of the convolution."""
    by = BY_TAPS[taps]
    channels, features = x.shape[-1], g.shape[-1]
    widest = max(channels, features)
    turned = widest <= TURNED_CHANNELS
    sums = (((2 if turned else 1,), (1,)), ((0,), (0,)))
    pieces = _pieces(POSITIONS // 2 if turned else POSITIONS)

    def over_tiles(x, g) -> list[jax.Array]:
        tiles, spread = _tiles(x, by, by.pixels), _spread(g, by, turned)
        left, right = (spread, tiles) if turned else (tiles, spread)
        return [
            lax.dot_general(a[rows], b[rows], sums)
            for a, b in zip(left, right, strict=True)
            for rows in pieces
        ]

    at_once = _images_at_once(x.shape, widest, by)
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
    back = np.einsum("ia,jb->abji", by.kernel, by.kernel).reshape(taps**2, -1).astype(np.float32)
    gradient = (back @ total).reshape(taps, taps, *products[0].shape[1:])
    return gradient.swapaxes(2, 3) if turned else gradient


def _transform_kernel(kernel, matrix: np.ndarray) -> list[jax.Array]:
    """``G k G^T`` of every pair of channels: for each column of positions (n, C, D)."""
    both = np.einsum("ia,jb->jiab", matrix, matrix).reshape(POSITIONS, POSITIONS, -1)
    taps = kernel.reshape(-1, kernel[0, 0].size)
    return [(column.astype(np.float32) @ taps).reshape(-1, *kernel.shape[2:]) for column in both]


def _tiles(x, by: Matrices, matrix: np.ndarray) -> list[jax.Array]:
    """``B^T d B`` of every tile: for each column of positions (n, T, C)."""
    height, width, channels = x.shape[1:]
    down, across = by.tiles_along(height), by.tiles_along(width)
    # Pixels before, as many behind, and what the last tile has beyond.
    beyond = [
        (by.padding, by.results * tiles + by.padding - side)
        for side, tiles in ((height, down), (width, across))
    ]
    x = jnp.pad(x, ((0, 0), *beyond, (0, 0)))
    step = by.results
    rows = [x[:, i : i + step * (down - 1) + 1 : step] for i in range(POSITIONS)]
    rows_nxBxhxWxC = _combine(matrix, rows, axis=0)
    columns = [
        rows_nxBxhxWxC[:, :, :, j : j + step * (across - 1) + 1 : step] for j in range(POSITIONS)
    ]
    return [_sum(factors, columns).reshape(POSITIONS, -1, channels) for factors in matrix]


def _spread(g, by: Matrices, turned: bool) -> list[jax.Array]:
    """``A g A^T`` of every tile: for each column of positions (n, T, D), or turned (n, D, T)."""
    batch, height, width, features = g.shape
    down, across = by.tiles_along(height), by.tiles_along(width)
    step = by.results
    beyond = [(0, step * tiles - side) for side, tiles in ((height, down), (width, across))]
    g = jnp.pad(g, ((0, 0), *beyond, (0, 0)))
    g = g.reshape(batch, down, step, across, step, features)
    if turned:
        # Before it is spread to twice its size, and kept so, or the compiler turns it back.
        g = g.transpose(2, 4, 5, 0, 1, 3).reshape(step, step, features, -1)
        g = with_layout_constraint(g, Layout((0, 1, 2, 3)))
    else:
        g = g.transpose(2, 4, 0, 1, 3, 5).reshape(step, step, -1, features)
    # (n, m, T, D), or turned (n, m, D, T).
    spread_rows = _combine(by.result.T, list(g), axis=0)
    columns = [spread_rows[:, j] for j in range(step)]
    return [_sum(factors, columns) for factors in by.result.T]


def _results(
    pieces: list[list[jax.Array]], by: Matrices, matrix: np.ndarray, shape: tuple[int, int, int]
) -> jax.Array:
    """``A^T m A`` of every tile, side by side: (B, H, W, D).

    The pieces are some rows of positions each, and of these for every column (rows, T, D).
    """
    batch, height, width = shape
    down, across = by.tiles_along(height), by.tiles_along(width)
    features = pieces[0][0].shape[-1]
    rows = []
    for columns in pieces:
        columns = [column.reshape(-1, batch, down, across, features) for column in columns]
        # The results in a row of a tile go next to the tiles.
        piece = _combine(matrix, columns, axis=4)
        rows += list(piece.reshape(-1, batch, down, across * by.results, features))
    y = jnp.stack([_sum(factors, rows) for factors in matrix], axis=2)
    y = y.reshape(batch, down * by.results, across * by.results, features)
    return y[:, :height, :width]


def _combine(matrix: np.ndarray, parts: list[jax.Array], axis: int) -> jax.Array:
    """The rows of a matrix applied to as many arrays as it has columns, stacked.

    Kept in memory: the compiler would compute it anew for every position.
    """
    return lax.optimization_barrier(jnp.stack([_sum(row, parts) for row in matrix], axis))


def _sum(factors: np.ndarray, parts: list[jax.Array]) -> jax.Array:
    """``sum of factor * part``, without those whose factor is 0."""
    terms = [
        part if factor == 1 else np.float32(factor) * part
        for factor, part in zip(factors, parts, strict=True)
        if factor
    ]
    return sum(terms[1:], terms[0])


def _pieces(size: int) -> list[slice]:
    """The rows of positions, so many at a time."""
    return [slice(row, row + size) for row in range(0, POSITIONS, size)]


def _images_at_once(shape, channels: int, by: Matrices) -> int:
    """The most images that divide the batch and whose tiles are at most `GROUP_BYTES`."""
    batch, height, width, _ = shape
    of_one = POSITIONS**2 * by.tiles_along(height) * by.tiles_along(width) * channels * 4
    return max(
        n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * of_one <= GROUP_BYTES)
    )
