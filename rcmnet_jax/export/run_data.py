"""The images of a run, found again for what an export must measure on them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from rcmnet_jax.checkpoints.restored import Restored
from rcmnet_jax.data.cache import load_pixels
from rcmnet_jax.data.dataset import CellDataset
from rcmnet_jax.data.splits import Split
from rcmnet_jax.errors import DataError
from rcmnet_jax.training.inputs import open_dataset, split_dataset
from rcmnet_jax.training.workdir import with_added_keys


@dataclasses.dataclass(frozen=True, eq=False)
class RunData:
    """The data set of a run with its split, proved by their hashes to be those it had.

    Attributes:
      dataset: all images.
      split: which is in which part.
      pixels: (N, H, W, 3) uint8 at the size of the network.
    """

    dataset: CellDataset
    split: Split
    pixels: np.ndarray

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of train, val or test; may be empty."""
        return self.split.indices(part)

    def labels(self, part: str) -> np.ndarray:
        """Their class numbers."""
        return np.asarray(self.dataset.records.label)[self.rows(part)]


def open_run_data(
    restored: Restored, *, source: str | None = None, data_dir: str | None = None
) -> RunData:
    """Opens the images that a network was trained on.

    Args:
      restored: the network.
      source: where the images are now, if not where they were.
      data_dir: where built data sets are kept.

    Raises:
      DataError: they are not there, or are not those of the run.
    """
    config = with_added_keys(restored.meta["config"]).data
    config.source = source or config.source
    config.data_dir = data_dir or config.data_dir
    dataset = open_dataset(config, progress=True)
    split = split_dataset(dataset, config.split)
    for what, now in (("data", dataset.data_sha256), ("split", split.sha256)):
        _require_hash(what, now, restored.meta[what])
    pixels = load_pixels(dataset, restored.preprocess, data_dir=config.data_dir or None)
    return RunData(dataset, split, pixels)


def _require_hash(what: str, now: str, then: Mapping[str, Any]) -> None:
    if now != then["sha256"]:
        raise DataError(
            f"the {what} found is not that of the run (hash {now[:12]}, trained on"
            f" {then['sha256'][:12]}): say with --source where the run's images are"
        )
