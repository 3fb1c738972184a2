"""Convolution of maps of a few pixels, without products with padding.

Under a 3x3 kernel padding is most of what a 2x2 map's results see. Each tap is therefore multiplied
only with the pixels it sees: 16 matrix products of (B, C) with (C, D) for a 2x2 map, 49 for 3x3,
where the plain form has 36 and 81.

Dimensions: B images, H and W pixels, C channels in, D out, N pixels under a tap.
"""

from collections.abc import Collection, Iterator
from functools import partial, reduce
from operator import add

import jax
import jax.numpy as jnp
from jax import lax

# Row and column of a pixel, a result or a tap.
Place = tuple[int, int]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def small_map_conv2d(
    x_BxHxWxC: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> jax.Array:
    """Two-dimensional cross-correlation; the compiled program grows with the number of pixels.

    Args:
      x_BxHxWxC: input.
      kernel: (k, k, C, D), same dtype as the input.
      stride: step in both directions, in pixels.
      padding: zeros added on each of the four sides, in pixels; less than k.

    Returns:
      (B, (H + 2 padding - k) // stride + 1, (W + ...) // stride + 1, D).
    """
    height, width = (_results(n, kernel.shape[0], stride, padding) for n in x_BxHxWxC.shape[1:3])
    sums = _Sums()
    for tap, pixel_of in _taps(x_BxHxWxC.shape, kernel.shape[0], stride, padding):
        sums.add(pixel_of, _gather(x_BxHxWxC, pixel_of.values()) @ kernel[tap])
    return sums.image(height, width)


def _forward(x, kernel, stride: int, padding: int):
    return small_map_conv2d(x, kernel, stride, padding), (x, kernel)


def _backward(stride: int, padding: int, residuals, g):
    x, kernel = residuals
    size, _, channels, features = kernel.shape
    of_pixels = _Sums()
    nothing = jnp.zeros((channels, features), g.dtype)
    of_taps = {(row, column): nothing for row in range(size) for column in range(size)}
    # The compiler drops whichever is not used (gradients of images, of frozen kernels).
    for tap, pixel_of in _taps(x.shape, size, stride, padding):
        g_NxBxD = _gather(g, pixel_of)
        to_channels = (((2,), (1,)), ((), ()))
        of_pixels.add(pixel_of.values(), lax.dot_general(g_NxBxD, kernel[tap], to_channels))
        over_images = (((0, 1), (0, 1)), ((), ()))
        of_taps[tap] = lax.dot_general(_gather(x, pixel_of.values()), g_NxBxD, over_images)
    of_kernel = jnp.stack(list(of_taps.values())).reshape(kernel.shape)
    return of_pixels.image(*x.shape[1:3]), of_kernel


small_map_conv2d.defvjp(_forward, _backward)


class _Sums:
    """Sums of (B, C) arrays by their place on a map."""

    def __init__(self) -> None:
        self._terms: dict[Place, list[jax.Array]] = {}

    def add(self, places: Collection[Place], terms_NxBxC: jax.Array) -> None:
        """Adds one term to each place."""
        for place, term in zip(places, terms_NxBxC, strict=True):
            self._terms.setdefault(place, []).append(term)

    def image(self, height: int, width: int) -> jax.Array:
        """(B, H, W, C); zero where nothing was added."""
        zero = jnp.zeros_like(next(iter(self._terms.values()))[0])
        places = [(i, j) for i in range(height) for j in range(width)]
        pixels = [reduce(add, self._terms.get(place, [zero])) for place in places]
        return jnp.stack(pixels, axis=1).reshape(zero.shape[0], height, width, -1)


def _gather(x_BxHxWxC: jax.Array, places: Collection[Place]) -> jax.Array:
    """Some pixels of all images: (N, B, C), so that a batch stays split over devices."""
    return jnp.stack([x_BxHxWxC[:, i, j] for i, j in places])


def _taps(
    shape, size: int, stride: int, padding: int
) -> Iterator[tuple[Place, dict[Place, Place]]]:
    """Each tap that sees the image, with the pixel it sees for each result.

    `shape` is the input's, (B, H, W, C); only H and W are read, so B may be symbolic.
    """
    along_height, along_width = (_seen(n, size, stride, padding) for n in shape[1:3])
    for row, pixel_rows in along_height.items():
        for column, pixel_columns in along_width.items():
            yield (
                (row, column),
                {
                    (i, j): (pixel_rows[i], pixel_columns[j])
                    for i in pixel_rows
                    for j in pixel_columns
                },
            )


def _seen(length: int, size: int, stride: int, padding: int) -> dict[int, dict[int, int]]:
    """Along one axis: offset in the kernel -> result -> pixel, where there is one."""
    seen: dict[int, dict[int, int]] = {}
    for result in range(_results(length, size, stride, padding)):
        for offset in range(size):
            pixel = result * stride - padding + offset
            if 0 <= pixel < length:
                seen.setdefault(offset, {})[result] = pixel
    return seen


def _results(length: int, size: int, stride: int, padding: int) -> int:
    return (length + 2 * padding - size) // stride + 1
