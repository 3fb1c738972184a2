"""A dense layer over a map's averages, formulated by shape as `rcmnet_jax.kernels.conv` is.

Where the map has fewer cells than the grid of averages, these repeat what it holds: at 64 pixels
AlexNet's 36 averages are one cell, 36 times. The kernel is then summed over what repeats, once, and
not multiplied with every image.

Milliseconds for forward / gradient of the map / of the kernel, float32, 4096 units (``python
benchmarks/conv.py --baselines``; jax 0.10.2, two Zen 3 cores, 2026-11-27):

==================================  ==================  ==================  ====================
case                                averages first      kernel first        rule
==================================  ==================  ==================  ====================
6x6 of 1x1, 256 ch, batch 64        38 / 42 / 33        7 / 8 / 10          kernel
6x6 of 3x3, 256 ch, batch 64        48 / 43 / 39        25 / 23 / 23        kernel
7x7 of 2x2, 512 ch, batch 64        129 / 100 / 95      38 / 30 / 77        kernel
7x7 of 4x4, 512 ch, batch 64        196 / 98 / 93       85 / 72 / 95        kernel
7x7 of 4x4, 512 ch, batch 16        72 / 48 / 43        77 / 65 / 84        averages
==================================  ==================  ==================  ====================
"""

import jax
import jax.numpy as jnp
import numpy as np

from rcmnet_jax.kernels.backend import backend
from rcmnet_jax.kernels.pooling import adaptive_average_pool, bin_weights


def pooled_product(f_BxhxwxC: jax.Array, kernel: jax.Array, grid: int) -> jax.Array:
    """The product of a map's averages, flattened, and a kernel.

    Args:
      f_BxhxwxC: the map.
      kernel: (grid * grid * C, D), same dtype.
      grid: bins a side.

    Returns:
      (B, D).
    """
    batch, height, width, channels = f_BxhxwxC.shape
    if sums_kernel(batch, height * width, grid, f_BxhxwxC.dtype):
        averages = np.einsum("ih,jw->hwij", bin_weights(height, grid), bin_weights(width, grid))
        # As one product: in two, rows and then columns, the kernel is laid out anew between them.
        summed = averages.reshape(height * width, -1) @ kernel.reshape(grid**2, -1)
        kernel = summed.reshape(height * width * channels, -1)
    else:
        f_BxhxwxC = adaptive_average_pool(f_BxhxwxC, size=grid)
    return f_BxhxwxC.reshape(batch, -1) @ kernel


def sums_kernel(batch: int, cells: int, grid: int, dtype: jnp.dtype) -> bool:
    """Whether the kernel is summed before the product: on CPU, where that multiplies less.

    In half precision the sums would be rounded. How many images an exported program will be given
    nobody knows.
    """
    if backend() != "cpu" or dtype != jnp.float32 or not isinstance(batch, int):
        return False
    return cells * (grid**2 + batch) < grid**2 * batch
