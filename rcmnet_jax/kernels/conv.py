"""Convolution, formulated by static shape and backend.

One function owns the choice, so that every network gets it and none mentions it. Values and
gradients equal the plain formulation (tests/kernels/test_conv.py), and
``benchmarks/time_convolutions.py`` times every form at every shape. On TPU XLA's own convolution is
used throughout.

Milliseconds for forward / input gradient / kernel gradient, float32, batch 64 (jax 0.10.2, two
Zen 4 cores, 2026-11-27):

=========================  ==================  ===================  ==============================
case                       XLA convolution     chosen form          rule
=========================  ==================  ===================  ==============================
3x3, 64 ch, 16x16 map      11 / 12 / 15        3.2 / 3.6 / 6.0      Winograd
3x3, 256 ch, 4x4 map       5.9 / 6.2 / 6.3     3.1 / 2.9 / 4.3      Winograd
3x3/2, 64 ch, 16x16 map    5.7 / 3.7 / 6.3     5.8 / 3.5 / 5.5      scan for the kernel gradient
7x7/2, 3 ch, 64x64 image   14 / 32 / 18        14 / 26 / 9.8        planes for the kernel gradient
7x7, 2 to 1 ch, 16x16      3.3 / 2.0 / 0.3     0.2 / 0.4 / 0.5      band matrix
3x3, 512 ch, 2x2 map       542 / 540 / 7.1     4.0 / 4.3 / 4.6      pixels (Winograd 13, 14, 15)
3x3, 512 ch, 3x3 map       16 / 21 / 16        10 / 11 / 13         pixels (Winograd 12, 12, 14)
3x3/2, 4x4 to 2x2 map      5.8 / 148 / 4.2     4.8 / 3.0 / 4.9      pixels (patches 4.3, 3.7, 3.9)
=========================  ==================  ===================  ==============================

On an NVIDIA H200, batch 128 of 363x360, forward / forward and the gradients that training needs
(jax 0.11.2, 2026-11-26):

================================  =============  ===========  ====================================
case                              XLA's own      chosen form  rule
================================  =============  ===========  ====================================
7x7/2, 3 to 64 ch, bfloat16       2.33 / 3.75    0.97 / 1.56  space to depth, 12 channels as 16
whole stem in the form above      1.32 / 3.76    0.84 / 2.98  results in blocks of 2x2
7x7, 2 to 1 ch, 91x90, float32    0.10 / 0.29    0.08 / 0.14  band matrix
================================  =============  ===========  ====================================
"""

import jax
import jax.numpy as jnp

from rcmnet_jax.kernels.backend import backend
from rcmnet_jax.kernels.conv_forms import (
    PATCH_CHANNELS,
    band_conv2d,
    patch_conv2d,
    plain_conv2d,
    scanned_conv2d,
)
from rcmnet_jax.kernels.gpu_stem import space_to_depth_conv2d
from rcmnet_jax.kernels.small_map_conv import small_map_conv2d
from rcmnet_jax.kernels.winograd import winograd_conv2d

# Minimum channels, and input values, for Winograd to pay off: below, transforming the kernel costs
# more than it saves.
WINOGRAD_CHANNELS = 64
WINOGRAD_VALUES = 2**17
# Largest result, in pixels, and fewest channels for sums of products of pixels.
SMALL_MAP_PIXELS = 9
SMALL_MAP_CHANNELS = 64
# Most channels in and out, and most pixels in a row, for a product with a band matrix.
BAND_CHANNELS = 2
BAND_WIDTH = 128
# Fewest output channels for a kernel gradient in a scan.
SCANNED_CHANNELS = 32


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
    by_shape = {"cpu": _conv2d_on_cpu, "gpu": _conv2d_on_gpu}.get(backend())
    if by_shape is None:
        return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
    return by_shape(x_BxHxWxC, kernel, stride, padding)


def _conv2d_on_gpu(x_BxHxWxC, kernel, stride: int, padding: int) -> jax.Array:
    """The choice by shape.

    1x1 convolutions stay convolutions: XLA fuses a product after a strided selection into a Triton
    kernel and aborts the process while compiling it (jaxlib 0.11.2, 91x90 pixels).
    """
    kernel_size, _, channels, features = kernel.shape
    if channels < PATCH_CHANNELS and 1 < stride < kernel_size:
        return space_to_depth_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
    few = max(channels, features) <= BAND_CHANNELS
    if stride == 1 and few and x_BxHxWxC.shape[2] <= BAND_WIDTH:
        return band_conv2d(x_BxHxWxC, kernel, padding=padding)
    return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)


def _conv2d_on_cpu(x_BxHxWxC, kernel, stride: int, padding: int) -> jax.Array:
    """The choice by shape."""
    kernel_size, _, channels, features = kernel.shape
    if kernel_size == 1 and padding == 0:
        # A matrix product over channels, after the strided selection. Of two axes: the gradient of
        # a product of four takes five times as long.
        x = x_BxHxWxC[:, ::stride, ::stride]
        return (x.reshape(-1, channels) @ kernel[0, 0]).reshape(*x.shape[:3], -1)
    batch, height, width, _ = x_BxHxWxC.shape
    out_h, out_w = ((n + 2 * padding - kernel_size) // stride + 1 for n in (height, width))
    shortest = min(out_h, out_w)
    is_small = out_h * out_w <= SMALL_MAP_PIXELS
    if padding and is_small and min(channels, features) >= SMALL_MAP_CHANNELS:
        return small_map_conv2d(x_BxHxWxC, kernel, stride, padding)
    # Winograd and the scan work on groups of images, which would move between devices, and which an
    # exported program of unknown batch size does not have.
    groups = jax.device_count() == 1 and isinstance(batch, int)
    if groups and (kernel_size, stride, padding) == (3, 1, 1) and shortest > 1:
        wide = min(channels, features) >= WINOGRAD_CHANNELS
        values = batch * height * width * channels
        if x_BxHxWxC.dtype == jnp.float32 and wide and values >= WINOGRAD_VALUES:
            return winograd_conv2d(x_BxHxWxC, kernel)
    if stride == 1 and max(channels, features) <= BAND_CHANNELS and width <= BAND_WIDTH:
        return band_conv2d(x_BxHxWxC, kernel, padding=padding)
    # The input gradient convolves the result's map, so a small result is slow too.
    if shortest < kernel_size and channels >= PATCH_CHANNELS:
        return patch_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
    if groups and features >= SCANNED_CHANNELS:
        return scanned_conv2d(x_BxHxWxC, kernel, stride, padding)
    return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
