"""Formulations of one convolution, among which `kernels.conv` chooses by shape and backend.

All have the values and gradients of `plain_conv2d` up to rounding.
"""

from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Pixels of fewer channels than this are too short to be copied into patches one by one.
PATCH_CHANNELS = 9
# Rows of patches that a scan holds at once: a few megabytes. At least two images, because XLA
# splits an operation between cores by images.
PATCHES_AT_ONCE = 2048
NARROW_PATCHES_AT_ONCE = 8192


def plain_conv2d(
    x_BxHxWxC: jax.Array, kernel: jax.Array, *, stride: int = 1, padding: int = 0
) -> jax.Array:
    """`conv2d` by XLA's convolution: the reference for all others."""
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
    # Slices; the gradient of index arrays would be a scatter.
    taps = kernel[rows.start : rows.stop, cols.start : cols.stop]
    taps = taps.reshape(len(windows) * channels, -1)
    return (patches @ taps).reshape(batch, out_h, out_w, -1)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def scanned_conv2d(x_BxHxWxC: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """`plain_conv2d` whose kernel gradient is a sum over a few images at a time.

    That gradient is the product of the result's gradient with the patches of the input. The patches
    of a whole batch are nine times the input or more; those of a few images stay in the cache.
    """
    return plain_conv2d(x_BxHxWxC, kernel, stride=stride, padding=padding)


def _scanned_forward(x, kernel, stride: int, padding: int):
    return scanned_conv2d(x, kernel, stride, padding), (x, kernel)


def _scanned_backward(stride: int, padding: int, residuals, g):
    x, kernel = residuals
    # The compiler drops whichever is not used (gradients of images, of frozen kernels).
    _, pull = jax.vjp(lambda x: plain_conv2d(x, kernel, stride=stride, padding=padding), x)
    narrow = x.shape[-1] < PATCH_CHANNELS
    of_kernel = _kernel_gradient_by_planes if narrow else _kernel_gradient
    return pull(g)[0], of_kernel(x, g, kernel.shape[0], stride, padding)


scanned_conv2d.defvjp(_scanned_forward, _scanned_backward)


def _kernel_gradient(x, g, k: int, stride: int, padding: int) -> jax.Array:
    """Gradient (k, k, C, D) of a convolution's kernel, in a scan over groups of images."""
    batch, out_h, out_w, features = g.shape
    at_once = _images_at_once(batch, out_h * out_w, PATCHES_AT_ONCE)
    # Padded before the scan: inside, the compiler would pad again for each window.
    x = jnp.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

    def add(total_DxP, images):
        x, g = images
        windows = _windows(x, range(k), range(k), out_h, out_w, stride)
        patches = jnp.concatenate(windows, axis=-1).reshape(at_once * out_h * out_w, -1)
        # Transposed this way, the longer side of the product is the contiguous one.
        return total_DxP + g.reshape(-1, features).T @ patches, None

    zeros = jnp.zeros((features, k * k * x.shape[-1]), g.dtype)
    total_DxP, _ = lax.scan(add, zeros, (in_groups(x, at_once), in_groups(g, at_once)))
    return total_DxP.T.reshape(k, k, x.shape[-1], features)


def _kernel_gradient_by_planes(x, g, k: int, stride: int, padding: int) -> jax.Array:
    """`_kernel_gradient` (k, k, C, D) for few channels, with a row of patches for each tap.

    A pixel of three channels is too short to be copied quickly, a row of an image is not. The
    images are split into planes, one for each channel and position in a block of stride x stride
    pixels, so that what a tap sees is a slice of a plane. Two products, of half the kernel's rows
    each, run at the same time.
    """
    batch, out_h, out_w, features = g.shape
    channels = x.shape[-1]
    at_once = _images_at_once(batch, out_h * out_w, NARROW_PATCHES_AT_ONCE)
    blocks = pixel_blocks(x, k, stride, padding)
    # Rows of a block, places in a row of it times channels, images, rows and columns of blocks.
    planes = blocks.transpose(0, 2, 4, 5, 1, 3).reshape(batch, stride, -1, *blocks.shape[1:4:2])
    # A kernel of one row has no second half.
    halves = [rows for rows in (range(-(-k // 2)), range(-(-k // 2), k)) if rows]

    def add(totals, images):
        planes, g = images
        planes = jnp.moveaxis(planes, 0, 2)
        in_row = [
            planes[:, : (k - first) * channels, ..., first // stride : first // stride + out_w]
            for first in range(0, k, stride)
        ]
        taps = jnp.concatenate(in_row, axis=1)
        products = []
        for rows in halves:
            seen = [taps[i % stride, :, :, i // stride : i // stride + out_h] for i in rows]
            patches_PxT = lax.optimization_barrier(jnp.stack(seen).reshape(-1, g[..., 0].size))
            products.append(patches_PxT @ g.reshape(-1, features))
        return jax.tree.map(jnp.add, totals, products), None

    zeros = [jnp.zeros((len(rows) * k * channels, features), g.dtype) for rows in halves]
    totals, _ = lax.scan(add, zeros, (in_groups(planes, at_once), in_groups(g, at_once)))
    return jnp.concatenate(totals).reshape(k, k, channels, features)


def in_groups(images: jax.Array, at_once: int) -> jax.Array:
    """Images (B, ...) in groups: (B / at_once, at_once, ...); ``at_once`` must divide B."""
    return images.reshape(-1, at_once, *images.shape[1:])


def _images_at_once(batch: int, positions: int, patches: int) -> int:
    """The most images that divide the batch and have at most ``patches`` patches together."""
    return max(
        n for n in range(1, batch + 1) if batch % n == 0 and (n <= 2 or n * positions <= patches)
    )


def band_conv2d(x_BxHxWxC: jax.Array, kernel: jax.Array, *, padding: int) -> jax.Array:
    """`plain_conv2d` with stride 1, for few channels, as a product with a band matrix.

    Each row of pixels is multiplied by a (W C, k W D) matrix that holds the kernel's rows along its
    diagonals; then the products of k neighbouring rows are summed. W / k times the arithmetic of
    the convolution, and still faster where channels are too few for a product of their own.
    """
    k, _, channels, features = kernel.shape
    batch, height, width = x_BxHxWxC.shape[:3]
    out_h, out_w = height + 2 * padding - k + 1, width + 2 * padding - k + 1
    # Tap j brings pixel v to result w: v = w + j - padding.
    pixels, results = np.arange(width)[:, None], np.arange(out_w) - padding
    taps = [pixels == results + j for j in range(k)]
    # A product; the gradient of indexing would be a scatter.
    band = jnp.einsum("ijcd,jvw->vciwd", kernel, np.stack(taps).astype(kernel.dtype))
    rows = x_BxHxWxC.reshape(batch * height, -1) @ band.reshape(width * channels, -1)
    rows = rows.reshape(batch, height, k, out_w, features)
    rows = jnp.pad(rows, ((0, 0), (padding, padding), *((0, 0),) * 3))
    return reduce(add, [rows[:, i : i + out_h, i] for i in range(k)])


def pixel_blocks(x, k: int, stride: int, padding: int) -> jax.Array:
    """Padded images in blocks of stride x stride pixels: (B, h, stride, w, stride, C).

    Only the blocks that a k x k kernel sees; the rest is cut off.
    """
    batch, height, width, channels = x.shape
    # Blocks under the kernel, and under all its positions, in each direction.
    taps = -(-k // stride)
    high, wide = ((n + 2 * padding - k) // stride + taps for n in (height, width))
    # A negative padding cuts off.
    rows, columns = (
        (padding, blocks * stride - padding - n, 0) for n, blocks in ((height, high), (width, wide))
    )
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), rows, columns, (0, 0, 0)))
    return x.reshape(batch, high, stride, wide, stride, channels)


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
