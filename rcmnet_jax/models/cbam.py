"""Convolutional block attention (CBAM): which channels, then where.

Source: RCMNet (arXiv 2205.04230), Table 4, Figure 5, Eq. 3-6, after Woo et al. 2018. The dialect
is the paper's (docs/decisions/0003-cbam-dialect.md): a shared MLP with biases, the spatial
descriptor ordered (average, maximum), and no normalisation after the 7x7 convolution. The CBAM
authors' code normalises there (``spatial_norm=True``) and orders (maximum, average), so importing
their weights swaps two input channels.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.kernels.pooling import max_over
from rcmnet_jax.models.layers import Conv, Norm, torch_uniform


class ChannelAttention(nn.Module):
    """Gate per channel: ``sigmoid(MLP(mean x) + MLP(max x))``, one MLP C -> R -> C for both.

    RCMNet Eq. 3-4; R = C / reduction. The gate is computed in float32.
    """

    reduction: int = 16
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array) -> jax.Array:
        channels = x_BxhxwxC.shape[-1]
        dense: dict[str, Any] = {"kernel_init": torch_uniform, "param_dtype": self.param_dtype}
        reduce = nn.Dense(max(channels // self.reduction, 1), name="reduce", **dense)
        expand = nn.Dense(channels, name="expand", **dense)
        # Pooled descriptors are tiny, so the gate costs nothing in float32 and stays exact.
        x = x_BxhxwxC.astype(jnp.float32)
        maximum_BxC = max_over(x_BxhxwxC, (1, 2)).astype(jnp.float32)
        pooled_2xBxC = jnp.stack([x.mean((1, 2)), maximum_BxC])
        logits_2xBxC = expand(nn.relu(reduce(pooled_2xBxC)))
        gate_BxC = nn.sigmoid(logits_2xBxC.sum(0))
        self.sow("intermediates", "gate", gate_BxC)
        return x_BxhxwxC * gate_BxC[:, None, None, :].astype(x_BxhxwxC.dtype)


class SpatialAttention(nn.Module):
    """Gate per position: ``sigmoid(conv7x7([mean_c x, max_c x]))``. RCMNet Eq. 5-6.

    Attributes:
      use_norm: batch normalisation after the convolution, as in the CBAM authors' code.
    """

    use_norm: bool = False
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array, *, train: bool) -> jax.Array:
        x = x_BxhxwxC.astype(jnp.float32)
        maximum_Bxhxw = max_over(x_BxhxwxC, (3,)).astype(jnp.float32)
        descriptor_Bxhxwx2 = jnp.stack([x.mean(-1), maximum_Bxhxw], axis=-1)
        conv = Conv(1, 7, padding=3, param_dtype=self.param_dtype, name="conv")
        logits_Bxhxwx1 = conv(descriptor_Bxhxwx2)
        if self.use_norm:
            logits_Bxhxwx1 = Norm(param_dtype=self.param_dtype, name="norm")(
                logits_Bxhxwx1, train=train
            )
        gate_Bxhxwx1 = nn.sigmoid(logits_Bxhxwx1)
        self.sow("intermediates", "gate", gate_Bxhxwx1[..., 0])
        return x_BxhxwxC * gate_Bxhxwx1.astype(x_BxhxwxC.dtype)


class CBAM(nn.Module):
    """Channel attention, then spatial attention; the shape stays (B, h, w, C)."""

    reduction: int = 16
    spatial_norm: bool = False
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array, *, train: bool) -> jax.Array:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = ChannelAttention(self.reduction, name="channel", **types)(x_BxhxwxC)
        return SpatialAttention(self.spatial_norm, name="spatial", **types)(x, train=train)
