"""Batch normalisation over all axes but the last, with a gradient that stores less."""

import jax
import jax.numpy as jnp

EPSILON = 1e-5


@jax.custom_vjp
def normalize_batch(x_BxHxWxC, scale_C, bias_C):
    """Normalised by the batch's own statistics, in float32; and these: mean and biased variance.

    With x^ = (x - mean) / sqrt(var + eps), gradient g and means over all axes but the last::

        dx = scale / sqrt(var + eps) * (g - mean(g) - x^ mean(g x^))

    Through the returned statistics nothing is differentiated.
    """
    mean_C, var_C = _statistics(x_BxHxWxC)
    return normalize(x_BxHxWxC, mean_C, var_C, scale_C, bias_C), mean_C, var_C


def _forward(x_BxHxWxC, scale_C, bias_C):
    y, mean_C, var_C = normalize_batch(x_BxHxWxC, scale_C, bias_C)
    return (y, mean_C, var_C), (x_BxHxWxC, mean_C, var_C, scale_C, bias_C)


def _backward(residuals, gradients):
    x, mean_C, var_C, scale_C, bias_C = residuals
    g = gradients[0]
    axes = tuple(range(x.ndim - 1))
    inverse_C = jax.lax.rsqrt(var_C + EPSILON)
    # The sums of g x^ by way of those of g (x - mean), whose factor comes out.
    g_sum_C = g.sum(axes)
    gx_sum_C = inverse_C * (g * (x - _row(mean_C, x))).sum(axes)
    count = x.size // x.shape[-1]
    normalized = (x - _row(mean_C, x)) * _row(inverse_C, x)
    centred = g - _row(g_sum_C / count, x) - normalized * _row(gx_sum_C / count, x)
    dx = centred * _row(inverse_C * scale_C, x)
    return dx.astype(x.dtype), gx_sum_C.astype(scale_C.dtype), g_sum_C.astype(bias_C.dtype)


normalize_batch.defvjp(_forward, _backward)


def _statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel, float32, in one pass as Flax takes them."""
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.float32)
    mean_C = x.mean(axes)
    return mean_C, jnp.maximum((x * x).mean(axes) - mean_C * mean_C, 0)


def normalize(x, mean_C, var_C, scale_C, bias_C) -> jax.Array:
    factor_C = jax.lax.rsqrt(var_C + EPSILON) * scale_C
    return (x - _row(mean_C, x)) * _row(factor_C, x) + _row(bias_C, x)


def _row(values_C: jax.Array, x: jax.Array) -> jax.Array:
    """(1, ..., 1, C), as many axes as ``x``."""
    return values_C.reshape((1,) * (x.ndim - 1) + values_C.shape)
