"""Mean and standard deviation of the colour channels, for normalisation."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError

# Rows of pixels summed at once: 65,535 * 255**2 still fits 32 bits, so the sums are exact.
_MAX_ROWS = 2**32 // 255**2


def channel_statistics(
    pixels: Any, indices: Sequence[int] | np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exact statistics over some images, read in small pieces.

    Args:
        pixels: uint8 (N, H, W, 3): an array, a memory map, or `OnDemandPixels`.
        indices: which images; give the train split only.

    Returns:
        Mean and population standard deviation of each channel in units of [0, 1], both float32
        (3,). A channel with no variation has deviation 0: whoever divides must guard.

    Raises:
        DataError: there are no images.
    """
    indices = np.sort(np.asarray(indices, dtype=np.int64))
    if len(indices) == 0:
        raise DataError("there are no training images to compute channel statistics from")
    _, height, width, channels = pixels.shape
    total = np.zeros(channels, dtype=np.uint64)
    squares = np.zeros(channels, dtype=np.uint64)
    # Integers throughout: the result does not depend on the order or the size of the pieces.
    step = max(1, min(_MAX_ROWS // height, 2**24 // (height * width * channels)))
    for start in range(0, len(indices), step):
        rows = pixels[indices[start : start + step]].reshape(-1, width * channels)
        total += _sum_rows(rows, channels)
        squares += _sum_rows(np.multiply(rows, rows, dtype=np.uint16), channels)
    count = len(indices) * height * width
    mean = [int(value) / count for value in total]
    variance = [
        int(square) / count - average**2 for square, average in zip(squares, mean, strict=True)
    ]
    deviation = np.sqrt(np.maximum(variance, 0.0))
    return (np.asarray(mean) / 255).astype(np.float32), (deviation / 255).astype(np.float32)


def _sum_rows(rows: np.ndarray, channels: int) -> np.ndarray:
    """Channel sums of (rows, width * channels), exact, uint64 (channels,)."""
    columns = np.add.reduce(rows, axis=0, dtype=np.uint32)
    return columns.reshape(-1, channels).sum(axis=0, dtype=np.uint64)
