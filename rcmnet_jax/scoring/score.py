"""A trained network scored on a part of its own split, or on all images of another set."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.data.cache import load_pixels
from rcmnet_jax.data.dataset import CellDataset, prepare_dataset
from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.metrics import Evaluation
from rcmnet_jax.evaluation.results import write_evaluation
from rcmnet_jax.inference import BatchedPass, softmax
from rcmnet_jax.inference import logits as logits_of
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.scoring.run_data import RunData
from rcmnet_jax.workdir.access_log import log_test_access
from rcmnet_jax.workdir.disk_errors import disk_errors_as_user_errors

# The part that images of another set are called in file names.
OTHER = "external"


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """Images with their labels and the network's logits.

    Attributes:
      part: test, val, train, or `OTHER` for another set.
      dataset: where the images are from.
      rows: (N,) records of the data set.
      labels: (N,) class index in the network's order.
      logits: (N, K) float32.
      groups: patient, slide or lab of each image, or None.
      meta: the run's record, its split that of these images, with the step of the weights.
    """

    part: str
    dataset: CellDataset
    rows: np.ndarray
    labels: np.ndarray
    logits: np.ndarray
    groups: list[str] | None
    meta: dict[str, Any]

    @property
    def files(self) -> list[str]:
        """File of each image."""
        return self.dataset.records.file[self.rows].tolist()

    @property
    def probabilities(self) -> np.ndarray:
        """(N, K) float64."""
        return softmax(self.logits)

    def write(self, out: Path, class_names: tuple[str, ...]) -> Evaluation:
        """Writes ``<part>_metrics.json``, predictions and figures into a folder.

        Scores of the test part leave a line in the folder's ``test_access.jsonl``.

        Args:
          out: the folder; made if missing.
          class_names: of the network.

        Raises:
          UserError: a file cannot be written.
        """
        if self.part == "test":
            with disk_errors_as_user_errors(out):
                log_test_access(out, self.meta["step"], "scored by rcmnet evaluate")
        return write_evaluation(
            out,
            self.labels,
            self.probabilities,
            files=self.files,
            sha256=self.dataset.records.sha256[self.rows],
            class_names=class_names,
            groups=self.groups,
            synthetic=self.dataset.synthetic,
            meta=self.meta,
            part=self.part,
        )


def score_part(data: RunData, part: str, *, batch_size: int = 64) -> Scored:
    """Runs the network on a part of its own split.

    Args:
      data: the network with its images.
      part: train, val or test.
      batch_size: images a call.

    Raises:
      DataError: the split has no such part.
    """
    rows, network = data.rows(part), data.network
    if not len(rows):
        raise DataError(f"the split of this run has no {part} part: choose another --part")
    return Scored(
        part=part,
        dataset=data.dataset,
        rows=rows,
        labels=data.labels(part),
        logits=_logits(network, data.pixels, rows, batch_size),
        groups=data.groups(part),
        meta={**network.meta, "step": network.step},
    )


def score_images(
    network: TrainedNetwork, source: str, *, data_dir: str | None = None, batch_size: int = 64
) -> Scored:
    """Runs the network on all images of a folder, zip or manifest whose classes it knows.

    Args:
      network: from `load_model`.
      source: the images, of one class or several; the class names must be among the network's.
      data_dir: where built data sets are kept.
      batch_size: images a call.

    Raises:
      DataError: a class that the network does not know, or images that cannot be used.
    """
    dataset = prepare_dataset("cell_folder", source, data_dir, min_classes=1)
    unknown = sorted(set(dataset.class_names) - set(network.class_names))
    if unknown:
        raise DataError(
            f"{source} has classes the network does not know ({', '.join(unknown)}): rename the"
            f" folders to some of {', '.join(network.class_names)}, or use --other-lab with --map"
        )
    ours = np.asarray([network.class_names.index(name) for name in dataset.class_names])
    pixels = load_pixels(dataset, network.preprocess, data_dir=data_dir)
    rows = np.arange(len(dataset))
    logits = _logits(network, pixels, rows, batch_size)
    return scored_as_other(network, dataset, rows, ours[dataset.records.label], logits, source)


def scored_as_other(
    network: TrainedNetwork,
    dataset: CellDataset,
    rows: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    source: str,
) -> Scored:
    """Images of another set with the network's logits; groups and record are those of the set."""
    try:
        groups, level = dataset.groups("auto")
    except DataError:
        # Too many images without an id: their intervals are by image.
        groups, level = None, "image"
    # None of these images was trained on, so their own groups decide what the scores claim.
    meta = {
        **network.meta,
        "split": {"protocol": OTHER, "level": level},
        "external": {"source": str(source), "sha256": dataset.data_sha256},
        "step": network.step,
    }
    chosen = None if groups is None else groups[rows].tolist()
    return Scored(OTHER, dataset, rows, labels, logits, chosen, meta)


def _logits(network: TrainedNetwork, pixels: Any, rows: np.ndarray, batch_size: int) -> np.ndarray:
    return BatchedPass.of(network, logits_of, batch_size=batch_size)(
        network.variables, pixels, rows
    )
