"""The parts of ResNet18 (He et al. 2016), as torchvision builds them, with room for attention."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.kernels.gpu_stem import blocks_pay, max_pool_of_blocks
from rcmnet_jax.kernels.max_pool import max_pool
from rcmnet_jax.models.cbam import CBAM
from rcmnet_jax.models.grid import Grid
from rcmnet_jax.models.layers import Conv, Norm

STEMS = ("imagenet", "small")


class Stem(nn.Module):
    """From the image to the first feature map.

    ``imagenet``: 7x7/2 convolution, norm, ReLU, 3x3/2 max-pool, as torchvision; the map is a
    quarter of the image. ``small``: 3x3/1 convolution, norm, ReLU, no pooling, for images of
    about 28 to 64 pixels where a quarter would leave nothing to look at (and 16 times the work).
    """

    width: int = 64
    kind: str = "imagenet"
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxHxWx3: jax.Array, *, train: bool) -> jax.Array:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        in_blocks = False
        if self.kind == "imagenet":
            shape: dict[str, Any] = {"kernel_size": 7, "stride": 2, "padding": 3}
            in_blocks = blocks_pay(*x_BxHxWx3.shape[1:3], **shape)
            x = Conv(self.width, **shape, in_blocks=in_blocks, name="conv", **types)(x_BxHxWx3)
        elif self.kind == "small":
            x = Conv(self.width, 3, padding=1, name="conv", **types)(x_BxHxWx3)
        else:
            raise ValueError(f"stem {self.kind!r} is not one of {STEMS}")
        x = Norm(self.norm, name="norm", **types)(x, train=train)
        if in_blocks:
            # The maximum before the ReLU: the same, and a quarter of the work after it.
            return nn.relu(max_pool_of_blocks(x))
        x = nn.relu(x)
        return max_pool(x, size=3, stride=2, padding=1) if self.kind == "imagenet" else x


def stem_grid(kind: str) -> Grid:
    """Where the cells of the stem's map lie."""
    if kind == "small":
        return Grid().after(3, padding=1)
    return Grid().after(7, stride=2, padding=3).after(3, stride=2, padding=1)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut; CBAM, where used, before the sum (RCMNet Figure 5)."""

    features: int
    stride: int = 1
    use_cbam: bool = False
    reduction: int = 16
    spatial_norm: bool = False
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array, *, train: bool) -> jax.Array:
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = Conv(self.features, 3, stride=self.stride, padding=1, name="conv1", **types)(x_BxhxwxC)
        y = nn.relu(Norm(self.norm, name="norm1", **types)(y, train=train))
        y = Conv(self.features, 3, padding=1, name="conv2", **types)(y)
        y = Norm(self.norm, name="norm2", **types)(y, train=train)
        if self.use_cbam:
            y = CBAM(self.reduction, self.spatial_norm, name="cbam", **types)(y, train=train)
        shortcut = x_BxhxwxC
        if self.stride != 1 or x_BxhxwxC.shape[-1] != self.features:
            conv = Conv(self.features, 1, stride=self.stride, name="shortcut_conv", **types)
            shortcut = Norm(self.norm, name="shortcut_norm", **types)(conv(x_BxhxwxC), train=train)
        return nn.relu(y + shortcut)


class ResNetStage(nn.Module):
    """A run of `BasicBlock`s of one width; the first may halve the map."""

    num_blocks: int
    features: int
    stride: int = 1
    use_cbam: bool = False
    reduction: int = 16
    spatial_norm: bool = False
    norm: str = "batch"
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array, *, train: bool) -> jax.Array:
        x = x_BxhxwxC
        for number in range(1, self.num_blocks + 1):
            x = BasicBlock(
                features=self.features,
                stride=self.stride if number == 1 else 1,
                use_cbam=self.use_cbam,
                reduction=self.reduction,
                spatial_norm=self.spatial_norm,
                norm=self.norm,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"block{number}",
            )(x, train=train)
        return x
