"""Max-pooling, formulated by backend as `rcmnet_jax.models.conv` is.

Measured by ``python benchmarks/conv.py`` (jax 0.10.2, two cores of an AMD EPYC with AVX-512,
2026-11-23): 3x3/2 of (64, 32, 32, 64), forward / gradient: windowed 2.4 / 71 ms, maxima of slices
differentiated by JAX 1.6 / 21 ms. The gradient below saves 2 % of a training step over that.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from rcmnet_jax.models.conv import on_cpu


def max_pool(x_BxHxWxC: jax.Array, *, size: int, stride: int, padding: int = 0) -> jax.Array:
    """Max-pooling with explicit padding by minus infinity.

    On CPU it is the maximum of strided slices, over rows and then over columns, because the
    gradient of XLA's windowed reduction (select-and-scatter) is several times slower there
    (benchmarks/conv.py). Values are the same. Where several entries of a window tie, the gradient
    goes to one of them, as in XLA and PyTorch, though not always to the same one.
    """
    if not on_cpu():
        return nn.max_pool(
            x_BxHxWxC, (size, size), (stride, stride), ((padding, padding), (padding, padding))
        )
    return _sliced_max_pool(x_BxHxWxC, size, stride, padding, x_BxHxWxC.shape[1:3])


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def _sliced_max_pool(x, size: int, stride: int, padding: int, sides: tuple[int, int]) -> jax.Array:
    del sides  # Of the input, for the backward pass.
    return _max_and_place(x, size, stride, padding)[0]


def _sliced_max_pool_forward(x, size: int, stride: int, padding: int, sides: tuple[int, int]):
    del sides
    return _max_and_place(x, size, stride, padding)


def _max_and_place(x, size: int, stride: int, padding: int) -> tuple[jax.Array, jax.Array]:
    """The maximum of each window, and its place there: ``row * size + column``, uint8."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    place = jnp.zeros((1,) * x.ndim, jnp.uint8)
    x, place = _running_max(x, place, 1, size, stride, step=size)
    return _running_max(x, place, 2, size, stride, step=1)


def _sliced_max_pool_backward(
    size: int, stride: int, padding: int, sides: tuple[int, int], place, g
):
    """Each entry of the input collects from the windows that have found it the largest.

    Rows and columns fall into ``stride`` classes each, by the offsets in a window that meet them.
    Every class is a sum over shifted windows, and the classes are laid side by side.
    """
    batch, out_h, out_w, channels = g.shape
    reach = -(-size // stride)
    edges = ((0, 0), (reach - 1, reach - 1), (reach - 1, reach - 1), (0, 0))
    g, place = jnp.pad(g, edges), jnp.pad(place, edges, constant_values=255)
    high, wide = out_h + reach - 1, out_w + reach - 1

    def collect(row_class: int, column_class: int) -> jax.Array:
        total = jnp.zeros((batch, high, wide, channels), g.dtype)
        for row in range(row_class, size, stride):
            for column in range(column_class, size, stride):
                top, left = reach - 1 - row // stride, reach - 1 - column // stride
                window = (slice(None), slice(top, top + high), slice(left, left + wide))
                here = place[window] == row * size + column
                total = total + jnp.where(here, g[window], 0)
        return total

    classes = range(stride)
    rows = [jnp.stack([collect(r, c) for c in classes], axis=3) for r in classes]
    dx = jnp.stack(rows, axis=2).reshape(batch, high * stride, wide * stride, channels)
    # Off with the padding; what no window reaches has none.
    lengths = [min(padding + side, n) for side, n in zip(sides, dx.shape[1:3], strict=True)]
    dx = dx[:, padding : lengths[0], padding : lengths[1]]
    missing = [(0, side - n) for side, n in zip(sides, dx.shape[1:3], strict=True)]
    return (jnp.pad(dx, ((0, 0), *missing, (0, 0))),)


_sliced_max_pool.defvjp(_sliced_max_pool_forward, _sliced_max_pool_backward)


def _running_max(x, place, axis: int, size: int, stride: int, *, step: int):
    """Maximum over windows of ``size`` entries along one axis, and ``place + step * offset``.

    The gradient goes to that place, always one. That of `jax.numpy.maximum` goes to the operands
    *equal* to the result: recomputed in another fusion they may round differently, and it is lost
    (see `pooling.max_over`).
    """
    length = (x.shape[axis] - size) // stride * stride + 1
    place = jnp.broadcast_to(place, x.shape)
    best, best_place = (lax.slice_in_dim(a, 0, length, stride, axis) for a in (x, place))
    for offset in range(1, size):
        other, other_place = (
            lax.slice_in_dim(a, offset, offset + length, stride, axis) for a in (x, place)
        )
        # NaN is the only value unlike itself; it must come through.
        larger = (other > best) | (other != other)
        best = jnp.where(larger, other, best)
        best_place = jnp.where(larger, other_place + jnp.uint8(step * offset), best_place)
    return best, best_place
