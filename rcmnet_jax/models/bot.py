"""Bottleneck-Transformer block: self-attention over the last feature map.

Source: RCMNet (arXiv 2205.04230), Figure 6 and Table 4 "Layer5", after Srinivas et al. 2021. Equal
value by value to lucidrains' ``BottleStack`` with ``proj_factor=4, heads=4, dim_head=128,
downsample=False, rel_pos_emb=True``.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.errors import UserError
from rcmnet_jax.models.layers import Conv, Norm


class RelativePosition2D(nn.Module):
    """Position logits ``q . (r_h + r_w)`` of every query for every key (Srinivas et al. 2021).

    The tables hold one vector per relative offset, (2h - 1, D) and (2w - 1, D), shared by the
    heads: row ``j - i + h - 1`` is for a key j rows below a query in row i. They fix the size of
    the map, so a network is tied to the image sizes that give that map.

    Raises:
      UserError: the map has another size than the tables in the variables.
    """

    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, q_BxNxhxwxD: jax.Array) -> jax.Array:
        height, width, depth = q_BxNxhxwxD.shape[2:]
        rel_height = self._table("rel_height", height, depth).astype(q_BxNxhxwxD.dtype)
        rel_width = self._table("rel_width", width, depth).astype(q_BxNxhxwxD.dtype)
        logits_h = jnp.einsum("bnhwd,hud->bnhwu", q_BxNxhxwxD, rel_height[relative_offsets(height)])
        logits_w = jnp.einsum("bnhwd,wvd->bnhwv", q_BxNxhxwxD, rel_width[relative_offsets(width)])
        logits = logits_h[..., :, None] + logits_w[..., None, :]
        tokens = height * width
        return logits.reshape(*q_BxNxhxwxD.shape[:2], tokens, tokens)

    def _table(self, name: str, side: int, depth: int) -> jax.Array:
        shape = (2 * side - 1, depth)
        if self.has_variable("params", name):
            found: tuple[int, ...] = self.get_variable("params", name).shape
            if found != shape:
                raise UserError(
                    f"the position table {name} is for a feature map of side {(found[0] + 1) // 2},"
                    f" the images give {side}: use the image size the weights were trained at,"
                    " or transfer them to the new size"
                )
        return self.param(name, nn.initializers.normal(depth**-0.5), shape, self.param_dtype)


class MHSA2D(nn.Module):
    """Multi-head self-attention over the h x w positions of a map, with relative positions.

    ``softmax(s q.k + s q.(r_h + r_w)) v`` with ``s = D ** -0.5``, so the scale is applied to q
    before both terms; no output projection. The softmax is taken in float32.

    Attributes:
      num_heads: N.
      head_dim: D; the result has N * D channels.
    """

    num_heads: int = 4
    head_dim: int = 128
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array) -> jax.Array:
        batch, height, width, _ = x_BxhxwxC.shape
        inner = self.num_heads * self.head_dim
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        qkv = Conv(3 * inner, 1, name="qkv", **types)(x_BxhxwxC)
        qkv = qkv.reshape(batch, height, width, 3, self.num_heads, self.head_dim)
        q, k, v = (qkv[..., i, :, :].transpose(0, 3, 1, 2, 4) for i in range(3))
        q = q * jnp.asarray(self.head_dim**-0.5, self.dtype)
        tokens = (batch, self.num_heads, height * width, self.head_dim)
        position = RelativePosition2D(param_dtype=self.param_dtype, name="position")
        content_BxNxTxT = jnp.einsum("bntd,bnsd->bnts", q.reshape(tokens), k.reshape(tokens))
        logits_BxNxTxT = (content_BxNxTxT + position(q)).astype(jnp.float32)
        attention_BxNxTxT = nn.softmax(logits_BxNxTxT).astype(self.dtype)
        self.sow("intermediates", "attention", attention_BxNxTxT)
        y = jnp.einsum("bnts,bnsd->btnd", attention_BxNxTxT, v.reshape(tokens))
        return y.reshape(batch, height, width, inner)


class BoTBlock(nn.Module):
    """1x1 reduction, self-attention, 1x1 expansion, each normalised; plus the input.

    Three non-linearities and a last norm whose scale starts at zero, so that the block starts as
    the identity on its (non-negative) input.

    Attributes:
      num_heads: attention heads.
      head_dim: width of each head.
      projection: the 1x1 reduction goes from C to C / projection channels.
      norm: kind of `Norm`.
    """

    num_heads: int = 4
    head_dim: int = 128
    projection: int = 4
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array, *, train: bool) -> jax.Array:
        channels = x_BxhxwxC.shape[-1]
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = Conv(channels // self.projection, 1, name="conv1", **types)(x_BxhxwxC)
        y = nn.relu(Norm(self.norm, name="norm1", **types)(y, train=train))
        y = MHSA2D(self.num_heads, self.head_dim, name="mhsa", **types)(y)
        y = nn.relu(Norm(self.norm, name="norm2", **types)(y, train=train))
        y = Conv(channels, 1, name="conv2", **types)(y)
        zero_scale = nn.initializers.zeros
        y = Norm(self.norm, scale_init=zero_scale, name="norm3", **types)(y, train=train)
        return nn.relu(x_BxhxwxC + y)


def relative_offsets(side: int) -> np.ndarray:
    """(side, side) row numbers of a relative table: entry (i, j) is ``j - i + side - 1``."""
    index = np.arange(side)
    return index[None, :] - index[:, None] + side - 1
