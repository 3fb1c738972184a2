"""Scoring a trained network after the fact: on a part of its own split, or on other images."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.data.cache import load_pixels
from rcmnet_jax.data.dataset import CellDataset, prepare_dataset
from rcmnet_jax.data.splits import Split
from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.metrics import Evaluation
from rcmnet_jax.evaluation.results import write_evaluation
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.inference.predictor import Predictor, softmax
from rcmnet_jax.training.inputs import open_dataset, split_dataset
from rcmnet_jax.workdir.workdir import log_test_access, with_added_keys, write_errors_told


@dataclasses.dataclass(frozen=True, eq=False)
class Scored:
    """Images, and what a network said of them.

    Attributes:
      part: test, val, train, or "external" for another set.
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
        """Writes ``<part>_metrics.json`` and its companions."""
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


class HomeImages:
    """The images and the split that a run was trained with, proved to be the same.

    Args:
      restored: from `load_run`.
      source: where the images are now, if not where they were.
      data_dir: where built data sets are kept.
      batch_size: images a call.

    Raises:
      DataError: the images or the split are not those of the run.
    """

    def __init__(
        self,
        restored: TrainedNetwork,
        *,
        source: str | None = None,
        data_dir: str | None = None,
        batch_size: int = 64,
    ):
        self.restored = restored
        self.dataset, self.split = split_of_run(restored, source=source, data_dir=data_dir)
        data_dir = data_dir or with_added_keys(restored.meta["config"]).data.data_dir or None
        self.pixels = load_pixels(self.dataset, restored.preprocess, data_dir=data_dir)
        self._predictor = _predictor(restored, batch_size)

    def score(self, part: str) -> Scored:
        """What the network says of a part.

        Raises:
          DataError: the split has no such part.
        """
        rows = self.split.indices(part)
        if not len(rows):
            raise DataError(f"the split of this run has no {part} part: choose another --part")
        groups = self.split.group[rows]
        return Scored(
            part=part,
            dataset=self.dataset,
            rows=rows,
            labels=self.dataset.records.label[rows],
            logits=self._predictor.logits(self.restored.variables, self.pixels, rows),
            groups=groups.tolist() if np.all(groups != "") else None,
            meta={**self.restored.meta, "step": self.restored.step},
        )


def score_part(
    restored: TrainedNetwork,
    part: str,
    *,
    out: Path,
    source: str | None = None,
    data_dir: str | None = None,
    batch_size: int = 64,
) -> Evaluation:
    """Scores a part of the run's own split, proved to be the split it was trained with.

    Args:
      restored: from `load_run`.
      part: train, val or test.
      out: folder for ``<part>_metrics.json`` and its companions.
      source: where the images are now, if not where they were.
      data_dir: where built data sets are kept.
      batch_size: images a call.

    Raises:
      DataError: the images or the split are not those of the run, or the part is empty.
    """
    images = HomeImages(restored, source=source, data_dir=data_dir, batch_size=batch_size)
    scored = images.score(part)
    tell_test_access(scored, out)
    return scored.write(out, restored.class_names)


def tell_test_access(scored: Scored, out: Path) -> None:
    """Notes that the test part was looked at, in the folder where its scores go."""
    if scored.part == "test":
        with write_errors_told(out):
            log_test_access(out, scored.meta["step"], "scored by rcmnet evaluate")


def split_of_run(
    restored: TrainedNetwork, *, source: str | None = None, data_dir: str | None = None
) -> tuple[CellDataset, Split]:
    """The images of a run and their split, proved to be those it was trained with.

    Args:
      restored: from `load_run`.
      source: where the images are now, if not where they were.
      data_dir: where built data sets are kept.

    Raises:
      DataError: the images or the split are not those of the run.
    """
    data = with_added_keys(restored.meta["config"]).data
    data.source = source or data.source
    data.data_dir = data_dir or data.data_dir
    dataset = open_dataset(data, progress=True)
    split = split_dataset(dataset, data.split)
    _require_hash("images", dataset.data_sha256, restored.meta["data"]["sha256"])
    _require_hash("split", split.sha256, restored.meta["split"]["sha256"])
    return dataset, split


def score_other_images(
    restored: TrainedNetwork,
    source: str,
    *,
    out: Path,
    data_dir: str | None = None,
    batch_size: int = 64,
) -> Evaluation:
    """Scores all images of another folder, zip or manifest, whose classes the network knows.

    Args:
      restored: from `load_run`.
      source: the images; their class names must be among the network's.
      out: folder for ``external_metrics.json`` and its companions.
      data_dir: where built data sets are kept.
      batch_size: images a call.

    Raises:
      DataError: a class that the network does not know.
    """
    dataset = prepare_dataset("cell_folder", source, data_dir)
    unknown = sorted(set(dataset.class_names) - set(restored.class_names))
    if unknown:
        raise DataError(
            f"{source} has classes the network does not know ({', '.join(unknown)}): rename the"
            f" folders to some of {', '.join(restored.class_names)}, or give --external with --map"
        )
    to_ours = np.asarray([restored.class_names.index(name) for name in dataset.class_names])
    pixels = load_pixels(dataset, restored.preprocess, data_dir=data_dir)
    rows = np.arange(len(dataset))
    logits = _predictor(restored, batch_size).logits(restored.variables, pixels, rows)
    return external_scored(
        restored, dataset, rows, to_ours[dataset.records.label], logits, source
    ).write(out, restored.class_names)


def external_scored(
    restored: TrainedNetwork,
    dataset: CellDataset,
    rows: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    source: str,
) -> Scored:
    """Other images with what the network said of them; their groups are their own."""
    try:
        groups, level = dataset.groups("auto")
    except DataError:
        # Too many images without an id: their intervals are by image.
        groups, level = None, "image"
    # Nothing of this set was trained on, so what its scores claim is decided by its own groups.
    meta = {
        **restored.meta,
        "split": {"protocol": "external", "level": level},
        "external": {"source": str(source), "sha256": dataset.data_sha256},
        "step": restored.step,
    }
    chosen = None if groups is None else groups[rows].tolist()
    return Scored("external", dataset, rows, labels, logits, chosen, meta)


def _predictor(restored: TrainedNetwork, batch_size: int) -> Predictor:
    return Predictor(restored.model, mean=restored.mean, std=restored.std, batch_size=batch_size)


def _require_hash(what: str, now: str, then: str) -> None:
    if now != then:
        raise DataError(
            f"these are not the {what} of the run (hash {now[:12]}, trained on {then[:12]}):"
            " say with --source where the run's own are, or score these as other images"
        )
