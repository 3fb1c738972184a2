"""A trained network with the images and the split that it was trained with."""

import dataclasses
import functools

import numpy as np

from rcmnet_jax.data.cache import load_pixels
from rcmnet_jax.data.dataset import CellDataset
from rcmnet_jax.data.splits import Split
from rcmnet_jax.errors import DataError
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.training.inputs import open_dataset, split_dataset
from rcmnet_jax.workdir.config_file import with_added_keys

_ELSEWHERE = (
    "say with --source where they are now, or score other images with rcmnet evaluate --data FOLDER"
)


@dataclasses.dataclass(frozen=True, eq=False)
class RunData:
    """A trained network with its data; hashes prove that they are those of its training.

    Attributes:
      network: the network.
      dataset: all images.
      split: which image is in which part.
      data_dir: where built data sets are kept; the default place when None.
    """

    network: TrainedNetwork
    dataset: CellDataset
    split: Split
    data_dir: str | None

    @functools.cached_property
    def pixels(self) -> np.ndarray:
        """(N, H, W, 3) uint8 at the network's size; decoded on first use."""
        return load_pixels(self.dataset, self.network.preprocess, data_dir=self.data_dir)

    def rows(self, part: str) -> np.ndarray:
        """Row numbers of train, val or test; may be empty."""
        return self.split.indices(part)

    def labels(self, part: str) -> np.ndarray:
        """Class index of each image of a part, in the network's order."""
        return np.asarray(self.dataset.records.label)[self.rows(part)]

    def groups(self, part: str) -> list[str] | None:
        """Patient, slide or lab of each image of a part; None unless all are known."""
        groups = self.split.group[self.rows(part)]
        return groups.tolist() if np.all(groups != "") else None


def open_run_data(
    network: TrainedNetwork, *, source: str | None = None, data_dir: str | None = None
) -> RunData:
    """Opens the images that a network was trained on, and their split.

    Args:
      network: from `load_model`.
      source: where the images are now, if not where they were.
      data_dir: where built data sets are kept.

    Raises:
      DataError: the images are not there, or images or split are not those of the run.
    """
    data = with_added_keys(network.meta["config"]).data
    data.source = source or data.source
    data.data_dir = data_dir or data.data_dir
    try:
        dataset = open_dataset(data, progress=True)
    except DataError as error:
        if source:
            raise
        raise DataError(f"the run's own images cannot be opened ({error}): {_ELSEWHERE}") from error
    split = split_dataset(dataset, data.split)
    _require_hash("images", dataset.data_sha256, network.meta["data"]["sha256"])
    _require_hash("split", split.sha256, network.meta["split"]["sha256"])
    return RunData(network, dataset, split, data.data_dir or None)


def _require_hash(what: str, now: str, then: str) -> None:
    if now != then:
        raise DataError(
            f"these are not the {what} of the run (hash {now[:12]}, trained on {then[:12]}):"
            f" {_ELSEWHERE}"
        )
