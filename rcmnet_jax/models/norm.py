"""Normalisation between convolutions: batch statistics, or groups of channels.

BatchNorm is the paper's. GroupNorm (Wu & He 2018) is an option for images from several
laboratories: running statistics of one stain are the first thing to be wrong on another.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

NORMS = ("batch", "group")
MAX_GROUPS = 32
# Of the running statistics; Flax counts the old part, PyTorch the new one (0.1).
MOMENTUM = 0.9
EPSILON = 1e-5


class Norm(nn.Module):
    """Normalises each channel (``batch``) or group of channels (``group``), then scales and shifts.

    Statistics are taken in float32 whatever the compute type. ``batch`` keeps running statistics
    in the ``batch_stats`` collection: eps 1e-5 and momentum 0.9, which is PyTorch's 0.1. Flax
    keeps the biased running variance where PyTorch keeps the unbiased one (factor n / (n - 1)).

    Attributes:
      kind: one of `NORMS`.
      dtype: compute type of the result.
      param_dtype: storage type of scale and bias.
      scale_init: initialiser of the scale; zeros make a residual branch start as the identity.
    """

    kind: str = "batch"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, *, train: bool) -> jax.Array:
        common: dict[str, Any] = {
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
            "scale_init": self.scale_init,
        }
        if self.kind == "batch":
            return BatchNorm(name="bn", **common)(x_BxHxWxC, train=train)
        if self.kind == "group":
            groups = num_groups(x_BxHxWxC.shape[-1])
            return nn.GroupNorm(num_groups=groups, epsilon=EPSILON, name="gn", **common)(x_BxHxWxC)
        raise ValueError(f"norm {self.kind!r} is not one of {NORMS}")


class BatchNorm(nn.Module):
    """Flax's batch normalisation over all axes but the last, with a gradient that keeps less.

    Same parameters, statistics and values as ``flax.linen.BatchNorm(momentum=0.9, epsilon=1e-5)``.
    What it differentiates is written down (`_normalize`): from the compiler's own derivation the
    centred input is stored between the passes, which on CPU costs as much as the normalisation.
    """

    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array, *, train: bool) -> jax.Array:
        shape = x_BxHxWxC.shape[-1:]
        mean_C = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var_C = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale_C = self.param("scale", self.scale_init, shape, self.param_dtype)
        bias_C = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
        if not train:
            y = _affine(x_BxHxWxC, mean_C.value, var_C.value, scale_C, bias_C)
            return y.astype(self.dtype)
        y, batch_mean_C, batch_var_C = _normalize(x_BxHxWxC, scale_C, bias_C)
        if not self.is_initializing():
            mean_C.value = MOMENTUM * mean_C.value + (1 - MOMENTUM) * batch_mean_C
            var_C.value = MOMENTUM * var_C.value + (1 - MOMENTUM) * batch_var_C
        return y.astype(self.dtype)


@jax.custom_vjp
def _normalize(x_BxHxWxC, scale_C, bias_C):
    """Normalised by the batch's own statistics, in float32; and these: mean and biased variance.

    With x^ = (x - mean) / sqrt(var + eps), gradient g and means over all axes but the last::

        dx = scale / sqrt(var + eps) * (g - mean(g) - x^ mean(g x^))

    Through the returned statistics nothing is differentiated.
    """
    mean_C, var_C = _statistics(x_BxHxWxC)
    return _affine(x_BxHxWxC, mean_C, var_C, scale_C, bias_C), mean_C, var_C


def _normalize_forward(x_BxHxWxC, scale_C, bias_C):
    y, mean_C, var_C = _normalize(x_BxHxWxC, scale_C, bias_C)
    return (y, mean_C, var_C), (x_BxHxWxC, mean_C, var_C, scale_C, bias_C)


def _normalize_backward(residuals, gradients):
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


_normalize.defvjp(_normalize_forward, _normalize_backward)


def _statistics(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance of each channel, float32, in one pass as Flax takes them."""
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.float32)
    mean_C = x.mean(axes)
    return mean_C, jnp.maximum((x * x).mean(axes) - mean_C * mean_C, 0)


def _affine(x, mean_C, var_C, scale_C, bias_C) -> jax.Array:
    factor_C = jax.lax.rsqrt(var_C + EPSILON) * scale_C
    return (x - _row(mean_C, x)) * _row(factor_C, x) + _row(bias_C, x)


def _row(values_C: jax.Array, x: jax.Array) -> jax.Array:
    """(1, ..., 1, C), as many axes as ``x``."""
    return values_C.reshape((1,) * (x.ndim - 1) + values_C.shape)


def num_groups(channels: int) -> int:
    """The largest number of groups up to `MAX_GROUPS` that divides the channels."""
    return next(n for n in range(min(MAX_GROUPS, channels), 0, -1) if channels % n == 0)
