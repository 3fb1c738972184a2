"""Convolution, formulated by static shape and backend.

One place owns the choice, so that every network gets it and no network mentions it. On GPU and
TPU XLA's own convolution is used throughout. On CPU some of its cases are slow, and each has a
rule here with the measurement that justifies it; values and gradients equal the plain formulation
(tests/models/test_conv.py).

Measured by ``python benchmarks/conv.py`` (jax 0.10.2, two cores of an AMD EPYC with AVX-512,
2026-11-23), float32, batch 64, milliseconds for forward / input gradient / kernel gradient:

======================  ==================  ================  ==================================
case                    XLA convolution     patch product     rule
======================  ==================  ================  ==================================
3x3, 512 ch, 2x2 map    543 / 553 / 6.8     11 / 6.5 / 7.6    result smaller than kernel: patches
3x3/2, 4x4 to 2x2 map   5.1 / 156 / 4.4     3.7 / 3.7 / 3.9   the same
3x3, 256 ch, 4x4 map    11 / 6.5 / 6.6      7.2 / 6.5 / 9.2   leave to XLA
3x3, 64 ch, 16x16 map   13 / 12 / 22        35 / 25 / 43      leave to XLA
======================  ==================  ================  ==================================

Kernel gradients of larger maps go through `scanned_conv2d`; milliseconds of one core, the least of
five: 64 ch, 16x16 map 21.3 by XLA and 9.3 in a scan; 7x7/2 stem of 64x64 images 32 and 18; 64 ch,
32x32 map 67 and 46; 128 ch, 16x16 map 52 and 30; 128 ch, 8x8 map 9.3 and 7.8 (left to XLA).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

# From which side of the result and which number of output channels the kernel gradient is taken in
# a scan, and how many rows of patches it holds at once: about a megabyte or two.
SMALLEST_SCANNED = 12
FEWEST_SCANNED = 32
ROWS_AT_ONCE = 2048
# torchvision's initialisation of convolutions: kaiming normal, fan out (He et al. 2015).
kaiming_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# PyTorch's default for dense layers: uniform in +-1/sqrt(fan_in).
torch_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def on_cpu() -> bool:
    """Whether computations run on the CPU backend, where the special formulations pay."""
    return jax.default_backend() == "cpu"


def conv2d(
    x_BxHxWxC: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0
) -> jax.Array:
    """Two-dimensional cross-correlation, channels last, with explicit symmetric padding.

    Args:
      x_BxHxWxC: input.
      kernel: (k, k, C, D), same dtype as the input.
      stride: step in both directions, in pixels.
      padding: zeros added on each of the four sides, in pixels.

    Returns:
      (B, (H + 2 padding - k) // stride + 1, (W + ...) // stride + 1, D).
    """
    kernel_size = kernel.shape[0]
    height, width = x_BxHxWxC.shape[1:3]
    if kernel_size == 1 and padding == 0:
        # A 1x1 convolution is a matrix product over channels, after the strided selection.
        return jnp.einsum("bhwc,cd->bhwd", x_BxHxWxC[:, ::stride, ::stride], kernel[0, 0])
    if not on_cpu():
        return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
    # The gradient with respect to the input convolves the output map, so its size counts too.
    smallest = (min(height, width) + 2 * padding - kernel_size) // stride + 1
    if smallest < kernel_size and x_BxHxWxC.shape[-1] > 8:
        return patch_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
    # With the batch spread over several devices the scan would move images between them.
    alone = jax.device_count() == 1
    if alone and smallest >= SMALLEST_SCANNED and kernel.shape[-1] >= FEWEST_SCANNED:
        return scanned_conv2d(x_BxHxWxC, kernel, stride, padding)
    return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)


def plain_conv2d(
    x_BxHxWxC: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0
) -> jax.Array:
    """`conv2d` by XLA's convolution: the reference the other formulations are tested against."""
    return lax.conv_general_dilated(
        x_BxHxWxC,
        kernel,
        window_strides=(stride, stride),
        padding=((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def patch_conv2d(
    x_BxHxWxC: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0
) -> jax.Array:
    """`conv2d` as one matrix product of image patches with the flattened kernel.

    Kernel taps that only ever see padding are left out: under a 3x3 kernel a 1x1 map needs one
    product instead of nine.
    """
    k = kernel.shape[0]
    batch, height, width, channels = x_BxHxWxC.shape
    out_h = (height + 2 * padding - k) // stride + 1
    out_w = (width + 2 * padding - k) // stride + 1
    rows = _taps_on_image(k, height, out_h, stride, padding)
    cols = _taps_on_image(k, width, out_w, stride, padding)
    x = jnp.pad(x_BxHxWxC, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = _windows(x, rows, cols, out_h, out_w, stride)
    patches = jnp.concatenate(windows, axis=-1).reshape(batch * out_h * out_w, -1)
    # Slices, not index arrays, whose gradient would be a scatter into a kernel of zeros.
    taps = kernel[rows.start : rows.stop, cols.start : cols.stop]
    taps = taps.reshape(len(windows) * channels, -1)
    return (patches @ taps).reshape(batch, out_h, out_w, -1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def scanned_conv2d(x_BxHxWxC: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`plain_conv2d` whose kernel gradient is a sum over a few images at a time.

    The gradient is the product of the result's gradient with the patches of the input. The patches
    of a whole batch are nine times the input or more; of a few images they stay in the cache.
    """
    return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)


def _scanned_forward(x, kernel, stride: int, padding: int):
    return plain_conv2d(x, kernel, stride=stride, padding=padding), (x, kernel)


def _scanned_backward(stride: int, padding: int, residuals, g):
    x, kernel = residuals
    # What is not asked for (of images, of frozen kernels) the compiler leaves out.
    _, pull = jax.vjp(lambda x: plain_conv2d(x, kernel, stride=stride, padding=padding), x)
    return pull(g)[0], _kernel_gradient(x, g, kernel.shape[0], stride, padding)


scanned_conv2d.defvjp(_scanned_forward, _scanned_backward)


def _kernel_gradient(x, g, k: int, stride: int, padding: int) -> jax.Array:
    """Gradient (k, k, C, D) of a convolution's kernel, in a scan over groups of images."""
    batch, out_h, out_w, features = g.shape
    at_once = _images_at_once(batch, out_h * out_w)
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))

    def add(total_DxP, images):
        x, g = images
        windows = _windows(jnp.pad(x, pads), range(k), range(k), out_h, out_w, stride)
        patches = jnp.concatenate(windows, axis=-1).reshape(at_once * out_h * out_w, -1)
        # This way round the longer side is the contiguous one of the product.
        return total_DxP + g.reshape(-1, features).T @ patches, None

    def groups(a):
        return a.reshape(batch // at_once, at_once, *a.shape[1:])

    zeros = jnp.zeros((features, k * k * x.shape[-1]), g.dtype)
    total_DxP, _ = jax.lax.scan(add, zeros, (groups(x), groups(g)))
    return total_DxP.T.reshape(k, k, x.shape[-1], features)


def _images_at_once(batch: int, positions: int) -> int:
    """The most images that divide the batch and whose patches are at most `ROWS_AT_ONCE` rows."""
    return max(
        n
        for n in range(1, batch + 1)
        if batch % n == 0 and (n == 1 or n * positions <= ROWS_AT_ONCE)
    )


class Conv(nn.Module):
    """A convolution layer over `conv2d`, with square kernel and explicit padding.

    Attributes:
      features: output channels D.
      kernel_size: side k of the kernel, in pixels.
      stride: in pixels, both directions.
      padding: zeros on each side, in pixels.
      use_bias: whether to add a bias per output channel.
      dtype: compute type; parameters are stored as ``param_dtype``.
      kernel_init: initialiser of the (k, k, C, D) kernel.
      bias_init: initialiser of the (D,) bias.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: int = 0
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32
    param_dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = kaiming_normal
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x_BxHxWxC: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x_BxHxWxC.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        x = x_BxHxWxC.astype(self.dtype)
        y = conv2d(x, kernel.astype(self.dtype), stride=self.stride, padding=self.padding)
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
            y = y + bias.astype(self.dtype)[None, None, None, :]
        return y


def _taps_on_image(k: int, size: int, out: int, stride: int, padding: int) -> range:
    """Kernel offsets along one axis that touch the image for at least one output position."""
    first = max(0, padding - (out - 1) * stride)
    return range(first, min(k, size + padding))


def _windows(x, rows, cols, out_h: int, out_w: int, stride: int) -> list[jax.Array]:
    """The padded input seen through each kernel offset: a list of (B, out_h, out_w, C)."""
    return [
        x[:, r : r + (out_h - 1) * stride + 1 : stride, c : c + (out_w - 1) * stride + 1 : stride]
        for r in rows
        for c in cols
    ]
