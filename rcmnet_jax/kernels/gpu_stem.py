"""The stem on a GPU: convolution of few channels on blocks of pixels, and pooling of blocks."""

import itertools

import jax
import jax.numpy as jnp

from rcmnet_jax.kernels.backend import backend
from rcmnet_jax.kernels.conv_forms import pixel_blocks, plain_conv2d
from rcmnet_jax.kernels.max_pool import collect, largest

# Channels that NVIDIA's matrix units take at once in half precision.
CHANNEL_MULTIPLE = 8


def blocks_pay(height: int, width: int, *, kernel_size: int, stride: int, padding: int) -> bool:
    """Whether a stem should compute in blocks of 2x2 up to its max-pool: on GPU, even sides."""
    sides = [(n + 2 * padding - kernel_size) // stride + 1 for n in (height, width)]
    return backend() == "gpu" and all(side % 2 == 0 for side in sides)


def space_to_depth_conv2d(
    x_BxHxWxC: jax.Array, kernel: jax.Array, *, stride: int, padding: int
) -> jax.Array:
    """`plain_conv2d` with stride 1 over blocks of stride x stride pixels.

    The pixels of a block become its channels, and the kernel, padded to whole blocks, is cut the
    same way: few channels become many, which is what matrix units are made for.
    """
    k, _, channels, features = kernel.shape
    x = pixel_blocks(x_BxHxWxC, k, stride, padding)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(len(x), *x.shape[1:4:2], -1)
    taps = -(-k // stride)
    beyond = (0, taps * stride - k)
    kernel = jnp.pad(kernel, (beyond, beyond, (0, 0), (0, 0)))
    kernel = kernel.reshape(taps, stride, taps, stride, channels, features)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(taps, taps, -1, features)
    # To a multiple that matrix units take; otherwise cuDNN pads in a pass of its own.
    spare = -x.shape[-1] % CHANNEL_MULTIPLE
    x = jnp.pad(x, (*((0, 0),) * 3, (0, spare)))
    return plain_conv2d(x, jnp.pad(kernel, ((0, 0), (0, 0), (0, spare), (0, 0))))


def blocked_conv2d(
    x_BxHxWxC: jax.Array, kernel: jax.Array, *, stride: int, padding: int
) -> jax.Array:
    """`plain_conv2d`, its results in blocks of 2x2: (B, h / 2, w / 2, 2, 2, D).

    One convolution of twice the stride computes the four results of a block as its channels, from
    a kernel that holds the given one at four places. Three times the arithmetic for a 7x7 kernel,
    and still faster on matrix units, for which 3 channels in and 64 out are few.

    Raises:
      ValueError: an odd number of results along an axis.
    """
    k, features = kernel.shape[0], kernel.shape[-1]
    sides = [(n + 2 * padding - k) // stride + 1 for n in x_BxHxWxC.shape[1:3]]
    if any(side % 2 for side in sides):
        raise ValueError(f"{sides[0]}x{sides[1]} results do not fall into blocks of 2x2")
    places = [
        jnp.pad(kernel, ((row, stride - row), (column, stride - column), (0, 0), (0, 0)))
        for row in (0, stride)
        for column in (0, stride)
    ]
    fourfold = jnp.concatenate(places, axis=-1)
    y = space_to_depth_conv2d(x_BxHxWxC, fourfold, stride=2 * stride, padding=padding)
    return y.reshape(*y.shape[:3], 2, 2, features)


def max_pool_of_blocks(x_Bxhxwx2x2xC: jax.Array) -> jax.Array:
    """`max_pool` of size 3, stride 2, padding 1, over a map that lies in blocks of 2x2.

    Every entry of a window is a slice of blocks, without a stride.

    Args:
      x_Bxhxwx2x2xC: a map of 2 h rows and 2 w columns, from `blocked_conv2d`.

    Returns:
      (B, h, w, C).
    """
    return _block_max_pool(x_Bxhxwx2x2xC)


@jax.custom_vjp
def _block_max_pool(x):
    return _block_max_and_place(x)[0]


def _block_max_and_place(x):
    """As `_max_and_place`. Rows -1, 0 and 1 of a window are one of the block above and its own."""
    high, wide = x.shape[1:3]
    x = jnp.pad(x, ((0, 0), (1, 0), (1, 0), *((0, 0),) * 3), constant_values=-jnp.inf)
    lines = ((0, 1), (1, 0), (1, 1))  # (block, line within it)
    return largest(
        x[:, row : row + high, column : column + wide, i, j]
        for (row, i), (column, j) in itertools.product(lines, repeat=2)
    )


def _block_max_pool_backward(place, g):
    return (jnp.stack(collect(place, g, 3, 2, 1, g.shape[1:3]), axis=3),)


_block_max_pool.defvjp(_block_max_and_place, _block_max_pool_backward)
