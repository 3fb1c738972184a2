"""Pixels decoded when they are asked for, for sets larger than memory and disk."""

import concurrent.futures
import os

import numpy as np

from rcmnet_jax.data.dataset import CellDataset
from rcmnet_jax.data.preprocess import Preprocess, decode_image


class OnDemandPixels:
    """Looks like the (N, H, W, 3) uint8 array of `load_pixels`, but decodes at every access.

    Args:
      dataset: a prepared data set.
      preprocess: the size, and the rule to reach it.
      workers: threads for accesses of several images; one for each core when None.
    """

    def __init__(self, dataset: CellDataset, preprocess: Preprocess, *, workers: int | None = None):
        self._dataset, self._preprocess = dataset, preprocess
        self.shape = (len(dataset), preprocess.height, preprocess.width, 3)
        self._threads = concurrent.futures.ThreadPoolExecutor(workers or os.cpu_count())

    def __len__(self) -> int:
        return self.shape[0]

    def one(self, index: int) -> np.ndarray:
        """The image of one record, (H, W, 3) uint8."""
        return decode_image(self._dataset.read(index), self._preprocess)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        """The images of some records, (n, H, W, 3) uint8."""
        images = list(self._threads.map(self.one, np.asarray(indices).tolist()))
        return np.stack(images) if images else np.empty((0, *self.shape[1:]), np.uint8)
