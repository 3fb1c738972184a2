"""Adaptive average pooling in torch's bins, and maxima over axes with a safe gradient."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def adaptive_average_pool(x_BxHxWxC: jax.Array, *, size: int) -> jax.Array:
    """Averages to (B, size, size, C).

    Bin i of an axis of length L covers ``floor(i L / size)`` to ``ceil((i + 1) L / size)``, so
    bins overlap where the length is no multiple, and repeat where it is shorter than the grid.
    """
    rows = jnp.asarray(bin_weights(x_BxHxWxC.shape[1], size), x_BxHxWxC.dtype)
    cols = jnp.asarray(bin_weights(x_BxHxWxC.shape[2], size), x_BxHxWxC.dtype)
    return jnp.einsum("bhwc,ih,jw->bijc", x_BxHxWxC, rows, cols)


def all_but_repeats(x_BxHxWxC: jax.Array, *, size: int) -> jax.Array:
    """Adaptive averages of ``size * size`` bins, or the map itself where it has fewer cells.

    Either way the adaptive averages of the result are those of the map.
    """
    if math.prod(x_BxHxWxC.shape[1:3]) < size**2:
        return x_BxHxWxC
    return adaptive_average_pool(x_BxHxWxC, size=size)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_over(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """The maximum over some axes, with a gradient that survives compilation.

    `jax.numpy.max` sends the gradient to the entries *equal* to the maximum. Under `jax.jit` the
    compiler recomputes the entries inside another fusion, where a fused multiply-add rounds them
    differently, so that none may be equal: the gradient then silently vanishes (ResNet18-C, jax
    0.10.2 on CPU: gradient norms off by 1 to 16 %). Here the entries within rounding of the maximum
    share the gradient, as ties do in `jax.numpy.max` and PyTorch's ``amax``.

    Args:
      x: array of any floating type.
      axes: the axes to reduce, counted from zero.

    Returns:
      Array of the same type without these axes.
    """
    return x.max(axes)


def _max_over_forward(x: jax.Array, axes: tuple[int, ...]):
    maximum = x.max(axes, keepdims=True)
    # Rounding errors are relative to the largest magnitude, not to a maximum that may be near 0.
    scale = jnp.abs(x).max(axes, keepdims=True)
    return maximum.squeeze(axes), (x, maximum, scale)


def _max_over_backward(axes: tuple[int, ...], residuals, g: jax.Array):
    x, maximum, scale = residuals
    # Eight units of float32; in half precision one, as the compiler may leave a rounding out.
    tolerance = max(2.0**-20, float(jnp.finfo(x.dtype).eps))
    near = (x >= maximum - tolerance * scale).astype(x.dtype)
    count = jnp.maximum(near.sum(axes, keepdims=True), 1)
    return (near * (jnp.expand_dims(g, axes) / count),)


max_over.defvjp(_max_over_forward, _max_over_backward)


def bin_weights(length: int, bins: int) -> np.ndarray:
    """(bins, length) matrix whose rows average the entries of one bin each."""
    weights = np.zeros((bins, length), np.float32)
    for i in range(bins):
        start, stop = i * length // bins, -(-(i + 1) * length // bins)
        weights[i, start:stop] = 1 / (stop - start)
    return weights
