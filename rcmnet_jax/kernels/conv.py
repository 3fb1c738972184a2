"""Convolution, formulated by static shape and backend.

One place owns the choice, so that every network gets it and no network mentions it. Each rule
below has a measurement that justifies it; values and gradients equal the plain formulation
(tests/models/test_conv.py). On TPU XLA's own convolution is used throughout.

Milliseconds for forward / input gradient / kernel gradient, float32, batch 64 (``python
benchmarks/conv.py`` and ``--maps``; jax 0.10.2, two Zen 4 cores, 2026-11-27; more in
docs/performance.md):

=========================  ==================  ===================  ==============================
case                       XLA convolution     other                rule
=========================  ==================  ===================  ==============================
3x3, 64 ch, 16x16 map      11 / 12 / 15        3.2 / 3.6 / 6.0      Winograd
3x3, 256 ch, 4x4 map       5.9 / 6.2 / 6.3     3.1 / 2.9 / 4.3      Winograd
3x3/2, 64 ch, 16x16 map    5.7 / 3.7 / 6.3     5.8 / 3.5 / 5.5      scan for the kernel gradient
7x7, 2 to 1 ch, 16x16      3.3 / 2.0 / 0.3     0.2 / 0.4 / 0.5      band matrix
3x3, 512 ch, 2x2 map       542 / 540 / 7.1     4.0 / 4.3 / 4.6      pixels (Winograd 13, 14, 15)
3x3, 512 ch, 3x3 map       16 / 21 / 16        10 / 11 / 13         pixels (Winograd 12, 12, 14)
3x3, 512 ch, 4x4 map       48 / 33 / 49        13 / 13 / 14         Winograd (pixels 19, 18, 22)
5x5, 64 to 192 ch, 7x7     27 / 32 / 21 (*)    15 / 18 / 16         Winograd (pixels 14, 14, 19)
5x5, 64 to 192 ch, 15x15   87 / 133 / 154 (*)  59 / 74 / 61         Winograd (patches 77, 79, 86)
3x3/2, 4x4 to 2x2 map      5.8 / 148 / 4.2     4.8 / 3.0 / 4.9      pixels (patches 4.3, 3.7, 3.9)
3x3/2, 6x6 to 3x3 map      8.7 / 10 / 9.7      7.1 / 7.3 / 8.5      pixels
7x7/2, 3 ch, 64x64 image   14 / 32 / 18        14 / 26 / 9.8        planes for the kernel gradient
=========================  ==================  ===================  ==============================

(*) Two Zen 3 cores, ``--baselines``: AlexNet's second convolution at 64 and 128 pixels.

On an NVIDIA H200, batch 128 of 363x360, forward / forward and the gradients that training needs
(jax 0.11.2, 2026-11-26; decision 0060):

================================  =============  ===========  ====================================
case                              XLA's own      other        rule
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
    band_conv2d,
    patch_conv2d,
    plain_conv2d,
    scanned_conv2d,
)
from rcmnet_jax.kernels.gpu_stem import space_to_depth_conv2d
from rcmnet_jax.kernels.small_map_conv import small_map_conv2d
from rcmnet_jax.kernels.winograd import winograd_conv2d

# Kernels of these sides can have Winograd's form. It pays from so many channels, and from so many
# results times channels: below, transforming the kernel takes longer than what it saves.
WINOGRAD_KERNELS = (3, 5)
WINOGRAD_CHANNELS = 64
WINOGRAD_WORK = 2**17
# Results of up to so many pixels are sums of products of pixels, from so many channels on: with
# fewer the products are too small to be worth that many operations.
SMALL_MAP_PIXELS = 9
SMALL_MAP_CHANNELS = 64
# A product with a band matrix pays up to so many channels in and out, and pixels in a row.
BAND_CHANNELS = 2
BAND_WIDTH = 128
# Pixels of fewer channels than this are too short to be copied into patches one by one.
PATCH_CHANNELS = 9
# From so many output channels the kernel gradient is taken in a scan.
SCANNED_CHANNELS = 32
# XLA's library computes a convolution of up to so many output channels on one core. It is cut into
# so many parts of the batch, which run side by side, from so many multiplications on: alone it is
# no quicker, a whole network is (docs/performance.md).
ONE_CORE_CHANNELS = 128
PARTS = 8
PARTED_WORK = 1e8


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
    """The choice by shape; each rule's measurement is in the second table above.

    1x1 convolutions stay what they are, too: as a product after a strided selection XLA fuses
    them into a Triton kernel, and aborts the process in doing so (jaxlib 0.11.2, 91x90 pixels).
    """
    kernel_size, _, channels, features = kernel.shape
    if channels < PATCH_CHANNELS and 1 < stride < kernel_size:
        return space_to_depth_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
    few = max(channels, features) <= BAND_CHANNELS
    if stride == 1 and few and x_BxHxWxC.shape[2] <= BAND_WIDTH:
        return band_conv2d(x_BxHxWxC, kernel, padding=padding)
    return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)


def _conv2d_on_cpu(x_BxHxWxC, kernel, stride: int, padding: int) -> jax.Array:
    """The choice by shape; each rule's measurement is in the first table above."""
    kernel_size, _, channels, features = kernel.shape
    if kernel_size == 1 and padding == 0:
        # A 1x1 convolution is a matrix product over channels, after the strided selection. Of two
        # axes: the gradient of a product of four is laid out anew, for five times as long.
        x = x_BxHxWxC[:, ::stride, ::stride]
        return (x.reshape(-1, channels) @ kernel[0, 0]).reshape(*x.shape[:3], -1)
    batch, height, width, _ = x_BxHxWxC.shape
    out_h, out_w = ((n + 2 * padding - kernel_size) // stride + 1 for n in (height, width))
    shortest = min(out_h, out_w)
    is_small = out_h * out_w <= SMALL_MAP_PIXELS
    if padding and is_small and min(channels, features) >= SMALL_MAP_CHANNELS:
        return small_map_conv2d(x_BxHxWxC, kernel, stride, padding)
    # Groups of images would move between devices if the batch is spread over several, and of an
    # unknown number of images, as an exported program has, there are none.
    alone = jax.device_count() == 1 and isinstance(batch, int)
    keeps_size = stride == 1 and padding == kernel_size // 2
    if kernel_size in WINOGRAD_KERNELS and keeps_size and shortest > 1:
        work = batch * height * width * channels
        exact = x_BxHxWxC.dtype == jnp.float32
        if (
            alone
            and exact
            and work >= WINOGRAD_WORK
            and min(channels, features) >= WINOGRAD_CHANNELS
        ):
            return winograd_conv2d(x_BxHxWxC, kernel)
    if stride == 1 and max(channels, features) <= BAND_CHANNELS and width <= BAND_WIDTH:
        return band_conv2d(x_BxHxWxC, kernel, padding=padding)
    # The gradient with respect to the input convolves the output map, so its size counts too.
    if shortest < kernel_size and channels >= PATCH_CHANNELS:
        return patch_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
    if alone and features >= SCANNED_CHANNELS:
        work = batch * out_h * out_w * kernel.size
        one_core = features <= ONE_CORE_CHANNELS and batch % PARTS == 0 and work >= PARTED_WORK
        parts = PARTS if one_core else 1
        by_planes = channels < PATCH_CHANNELS
        return scanned_conv2d(x_BxHxWxC, kernel, stride, padding, parts, by_planes)
    return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)
