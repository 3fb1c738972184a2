"""Random images and labels, the same on every side. Imports no framework."""

import numpy as np

from benchmarks.cases import CLASSES, EPOCH_STEPS, Case

# About those of PBC's training images.
MEAN, STD = (0.86, 0.74, 0.72), (0.18, 0.2, 0.08)


def batch_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (B, H, W, 3) uint8 and labels (B,) int32."""
    return _draw(case.shape, seed=1)


def split_of(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """The images of an epoch: (N, H, W, 3) uint8 and (N,) int32."""
    return _draw((EPOCH_STEPS * case.batch, *case.shape[1:]), seed=2)


def order_of(case: Case) -> np.ndarray:
    """Rows of the split for each step of an epoch: (S, B) int32."""
    rows = np.random.default_rng(3).permutation(EPOCH_STEPS * case.batch)
    return rows.astype(np.int32).reshape(EPOCH_STEPS, case.batch)


def _draw(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, shape[0]).astype(np.int32)
    return rng.integers(0, 256, shape, dtype=np.uint8), labels
