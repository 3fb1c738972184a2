"""Max-pooling as a maximum of strided slices, with a gradient of its own.

The gradient of XLA's windowed maximum (select-and-scatter) is slow: 71 against 21 ms for 3x3/2 of
(64, 32, 32, 64) on two AVX-512 cores, 2.9 against 1.6 ms for (128, 182, 180, 64) in bfloat16 on an
H200. JAX's own gradient of a maximum of slices can get lost in compiled code (`pooling.max_over`).
"""

import itertools
from collections.abc import Iterable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rcmnet_jax.kernels.backend import backend


def max_pool(x_BxHxWxC: jax.Array, *, size: int, stride: int, padding: int = 0) -> jax.Array:
    """Max-pooling with explicit padding by minus infinity.

    Where several entries of a window tie, the gradient goes to one of them, as in XLA and PyTorch,
    though not always to the same one.
    """
    if backend() not in ("cpu", "gpu"):
        return plain_max_pool(x_BxHxWxC, size=size, stride=stride, padding=padding)
    return _sliced_max_pool(x_BxHxWxC, size, stride, padding, x_BxHxWxC.shape[1:3])


def plain_max_pool(x_BxHxWxC: jax.Array, *, size: int, stride: int, padding: int = 0) -> jax.Array:
    """`max_pool` by XLA's windowed reduction: the reference in tests."""
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x_BxHxWxC, -np.inf, lax.max, window, strides, pads)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _sliced_max_pool(x, size: int, stride: int, padding: int, sides: tuple[int, int]) -> jax.Array:
    del sides  # Height and width of the input, for the backward pass.
    return _max_and_place(x, size, stride, padding)[0]


def _sliced_max_pool_forward(x, size: int, stride: int, padding: int, sides: tuple[int, int]):
    del sides
    return _max_and_place(x, size, stride, padding)


def _max_and_place(x, size: int, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window, and its place there: ``row * size + column``, uint8."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    if backend() == "gpu":
        # Rows and columns at once are a single GPU kernel.
        ends = [(n - size) // stride * stride + 1 for n in x.shape[1:3]]
        return largest(
            x[:, row : row + ends[0] : stride, column : column + ends[1] : stride]
            for row, column in itertools.product(range(size), repeat=2)
        )
    place = jnp.zeros((1,) * x.ndim, jnp.uint8)
    x, place = _running_max(x, place, 1, size, stride, step=size)
    return _running_max(x, place, 2, size, stride, step=1)


def _sliced_max_pool_backward(
    size: int, stride: int, padding: int, sides: tuple[int, int], place, g
):
    batch, out_h, out_w, channels = g.shape
    reach = -(-size // stride) - 1
    # Counted from the padding, which comes off at the end; aligned with the image from the start
    # it takes twice as long on CPU.
    high, wide = out_h + reach, out_w + reach
    rows = collect(place, g, size, stride, 0, (high, wide))
    dx = jnp.stack(rows, axis=2).reshape(batch, high * stride, wide * stride, channels)
    lengths = [min(padding + side, n) for side, n in zip(sides, dx.shape[1:3], strict=True)]
    dx = dx[:, padding : lengths[0], padding : lengths[1]]
    # Pixels that no window reaches have no gradient.
    missing = [(0, side - n) for side, n in zip(sides, dx.shape[1:3], strict=True)]
    return (jnp.pad(dx, ((0, 0), *missing, (0, 0))),)


_sliced_max_pool.defvjp(_sliced_max_pool_forward, _sliced_max_pool_backward)


def collect(
    place, g, size: int, stride: int, padding: int, blocks: tuple[int, int]
) -> list[jax.Array]:
    """Gradient of the input in ``blocks`` (h, w): each row of a block, (B, h, w, stride, C).

    Each entry sums the gradients of the windows whose maximum it is. Line ``stride * r + p`` of an
    axis lies in the windows ``r + e``, at their offset ``p + padding - stride * e``.
    """
    first, last = -((size - 1 - padding) // stride), (stride - 1 + padding) // stride
    ends = [
        (-first, n - 1 + last - (out - 1), 0) for n, out in zip(blocks, g.shape[1:3], strict=True)
    ]
    pads = ((0, 0, 0), *ends, (0, 0, 0))
    g = lax.pad(g, jnp.zeros((), g.dtype), pads)
    place = lax.pad(place, np.uint8(255), pads)

    def at(row: int, column: int) -> jax.Array:
        """The gradient of the entries at one position of their block."""
        total = jnp.zeros((g.shape[0], *blocks, g.shape[-1]), g.dtype)
        for a, b in itertools.product(range(first, last + 1), repeat=2):
            offsets = row + padding - stride * a, column + padding - stride * b
            if all(0 <= offset < size for offset in offsets):
                top, left = a - first, b - first
                window = (slice(None), slice(top, top + blocks[0]), slice(left, left + blocks[1]))
                here = place[window] == np.uint8(offsets[0] * size + offsets[1])
                total = total + jnp.where(here, g[window], 0)
        return total

    lines = range(stride)
    return [jnp.stack([at(i, j) for j in lines], axis=3) for i in lines]


def _running_max(x, place, axis: int, size: int, stride: int, *, step: int):
    """Maximum over windows of ``size`` entries along one axis, and ``place + step * offset``.

    The gradient goes to that place. The gradient of `jax.numpy.maximum` goes to the operands equal
    to the result; recomputed in another fusion they may round differently, and it is lost.
    """
    length = (x.shape[axis] - size) // stride * stride + 1
    place = jnp.broadcast_to(place, x.shape)
    best, best_place = (lax.slice_in_dim(a, 0, length, stride, axis) for a in (x, place))
    for offset in range(1, size):
        other, other_place = (
            lax.slice_in_dim(a, offset, offset + length, stride, axis) for a in (x, place)
        )
        best, best_place = _larger(best, best_place, other, other_place + jnp.uint8(step * offset))
    return best, best_place


def largest(entries: Iterable[jax.Array]) -> tuple[jax.Array, jax.Array]:
    """Elementwise maximum of arrays of one shape, and the number of the array it is in, uint8."""
    best, *others = entries
    best_place = jnp.zeros(best.shape, jnp.uint8)
    for number, other in enumerate(others, 1):
        best, best_place = _larger(best, best_place, other, jnp.uint8(number))
    return best, best_place


def _larger(best, best_place, other, other_place) -> tuple[jax.Array, jax.Array]:
    # NaN, the only value unlike itself, must come through.
    larger = (other > best) | (other != other)
    return jnp.where(larger, other, best), jnp.where(larger, other_place, best_place)
