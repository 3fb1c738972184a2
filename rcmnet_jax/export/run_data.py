"""The images of a run, found again for what an export must measure on them."""

import dataclasses

import numpy as np

from rcmnet_jax.data.cache import load_pixels
from rcmnet_jax.data.dataset import CellDataset
from rcmnet_jax.data.splits import Split
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.scoring.run import split_of_run


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
    network: TrainedNetwork, *, source: str | None = None, data_dir: str | None = None
) -> RunData:
    """Opens the images that a network was trained on.

    Args:
      network: the network.
      source: where the images are now, if not where they were.
      data_dir: where built data sets are kept.

    Raises:
      DataError: they are not there, or are not those of the run.
    """
    dataset, split = split_of_run(network, source=source, data_dir=data_dir)
    data_dir = data_dir or network.meta["config"]["data"]["data_dir"] or None
    return RunData(dataset, split, load_pixels(dataset, network.preprocess, data_dir=data_dir))
