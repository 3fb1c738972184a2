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
            "epsilon": 1e-5,
        }
        if self.kind == "batch":
            layer: nn.Module = nn.BatchNorm(
                use_running_average=not train,
                momentum=MOMENTUM,
                scale_init=self.scale_init,
                name="bn",
                **common,
            )
        elif self.kind == "group":
            layer = nn.GroupNorm(
                num_groups=num_groups(x_BxHxWxC.shape[-1]),
                scale_init=self.scale_init,
                name="gn",
                **common,
            )
        else:
            raise ValueError(f"norm {self.kind!r} is not one of {NORMS}")
        return layer(x_BxHxWxC)


def num_groups(channels: int) -> int:
    """The largest number of groups up to `MAX_GROUPS` that divides the channels."""
    return next(n for n in range(min(MAX_GROUPS, channels), 0, -1) if channels % n == 0)
