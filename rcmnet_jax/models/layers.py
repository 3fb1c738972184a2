"""The layers all networks share: convolution, normalisation, named activations, input check."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.errors import UserError
from rcmnet_jax.kernels.conv import conv2d
from rcmnet_jax.kernels.gpu_stem import blocked_conv2d
from rcmnet_jax.kernels.max_pool import max_pool

NORMS = ("batch", "group")
# Largest number of groups of a group normalisation.
MAX_GROUPS = 32
EPSILON = 1e-5
# Weight of the old running statistics; PyTorch states the weight of the new ones (0.1).
MOMENTUM = 0.9
# torchvision's initialisation of convolutions: kaiming normal, fan out (He et al. 2015).
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# PyTorch's default for dense layers: uniform in +-1/sqrt(fan_in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class Conv(nn.Module):
    """A convolution layer with a square kernel and explicit padding.

    Attributes:
      features: output channels D.
      kernel_size: side k of the kernel, in pixels.
      stride: in pixels, both directions.
      padding: zeros on each side, in pixels.
      use_bias: whether to add a bias per output channel.
      in_blocks: results in blocks of 2x2, (B, h / 2, w / 2, 2, 2, D); see `kernels.gpu_stem`.
      dtype: compute type; parameters are stored as ``param_dtype``.
      kernel_init: initialiser of the (k, k, C, D) kernel.
      bias_init: initialiser of the (D,) bias.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = False
    in_blocks: bool = False
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = kaiming_normal
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x_BxHxWxC.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        x = x_BxHxWxC.astype(self.dtype)
        convolve = blocked_conv2d if self.in_blocks else conv2d
        y = convolve(x, kernel.astype(self.dtype), stride=self.stride, padding=self.padding)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            y = y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + bias.shape)
        return y


class Norm(nn.Module):
    """Normalises each channel (``batch``) or group of channels (``group``), then scales and shifts.

    ``batch`` is the paper's; Flax keeps the biased running variance where PyTorch keeps the
    unbiased one (factor n / (n - 1)). ``group`` (Wu & He 2018) has no running statistics, which are
    the first thing to be wrong on another laboratory's stain. Both take their statistics in float32
    whatever the compute type.

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
            norm = nn.BatchNorm(momentum=MOMENTUM, epsilon=EPSILON, name="bn", **common)
            return norm(x_BxHxWxC, use_running_average=not train)
        if self.kind == "group":
            groups = num_groups(x_BxHxWxC.shape[-1])
            return nn.GroupNorm(num_groups=groups, epsilon=EPSILON, name="gn", **common)(x_BxHxWxC)
        raise ValueError(f"norm {self.kind!r} is not one of {NORMS}")


class ReLU(nn.Module):
    """``max(x, 0)`` as a module, so that its feature map has a name for Grad-CAM."""

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array) -> jax.Array:
        return nn.relu(x_BxhxwxC)


class MaxPool(nn.Module):
    """Max-pooling without padding as a module, so that its feature map has a name."""

    size: int
    stride: int

    @nn.compact
    def __call__(self, x_BxhxwxC: jax.Array) -> jax.Array:
        return max_pool(x_BxhxwxC, size=self.size, stride=self.stride)


def num_groups(channels: int) -> int:
    """The largest number of groups up to `MAX_GROUPS` that divides the channels."""
    return next(n for n in range(min(MAX_GROUPS, channels), 0, -1) if channels % n == 0)


def require_images(x_BxHxWx3: jax.Array, *, smallest: int) -> None:
    """Raises `UserError` unless the shape is (B, H, W, 3) with both sides at least ``smallest``."""
    if x_BxHxWx3.ndim != 4 or x_BxHxWx3.shape[-1] != 3:
        raise UserError(
            f"images must be shaped (B, H, W, 3), channels last; got {tuple(x_BxHxWx3.shape)}"
        )
    height, width = x_BxHxWx3.shape[1:3]
    if min(height, width) < smallest:
        raise UserError(
            f"images of {height}x{width} pixels are too small for this network: it needs at least"
            f" {smallest} a side; set a larger data.height and data.width"
        )
