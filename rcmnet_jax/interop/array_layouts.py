"""How one array lies in PyTorch and how it lies here, as pairs of exact inverses.

PyTorch keeps convolutions as (out, in, height, width) and dense layers as (out, in); Flax keeps
(height, width, in, out) and (in, out). Only axes move: no value is computed with, so that going
there and back returns the same bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Layout:
    """One correspondence of layouts; both functions use array methods only (numpy or traced)."""

    to_ours: Callable[[Any], Any]
    to_torch: Callable[[Any], Any]

    def torch_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape in PyTorch of an array that has ``shape`` here."""
        return jax.eval_shape(self.to_torch, jax.ShapeDtypeStruct(shape, jnp.float32)).shape


def _same(array):
    return array


def _flattened(grid: int) -> Layout:
    """The dense layer after ``flatten``: PyTorch counts (C, grid, grid), we (grid, grid, C)."""

    def to_ours(weight):
        maps = weight.reshape(weight.shape[0], -1, grid, grid)
        return maps.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])

    def to_torch(kernel):
        maps = kernel.reshape(grid, grid, -1, kernel.shape[-1])
        return maps.transpose(3, 2, 0, 1).reshape(kernel.shape[-1], -1)

    return Layout(to_ours, to_torch)


SAME = Layout(_same, _same)
CONV = Layout(lambda w: w.transpose(2, 3, 1, 0), lambda k: k.transpose(3, 2, 0, 1))
DENSE = Layout(lambda w: w.transpose(1, 0), lambda k: k.transpose(1, 0))
# The CBAM authors' spatial gate reads (maximum, average), ours (average, maximum).
CONV_SWAPPED = Layout(
    lambda w: w.transpose(2, 3, 1, 0)[:, :, ::-1], lambda k: k[:, :, ::-1].transpose(3, 2, 0, 1)
)
# torchvision pools to 7x7 before VGG's classifier and to 6x6 before AlexNet's.
FLATTENED_7X7 = _flattened(7)
FLATTENED_6X6 = _flattened(6)
