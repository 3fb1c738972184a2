"""Scoring a trained network after the fact: on a part of its own split, or on other images."""

from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.checkpoints.restored import Restored
from rcmnet_jax.data.cache import load_pixels
from rcmnet_jax.data.dataset import CellDataset, prepare_dataset
from rcmnet_jax.data.splits import Split
from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.metrics import Evaluation
from rcmnet_jax.evaluation.report import write_evaluation
from rcmnet_jax.training.inputs import open_dataset, split_dataset
from rcmnet_jax.training.predict import Predictor, softmax
from rcmnet_jax.training.workdir import log_test_access, with_added_keys, write_errors_told


def score_part(
    restored: Restored,
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
    dataset, split = split_of_run(restored, source=source, data_dir=data_dir)
    rows = split.indices(part)
    if not len(rows):
        raise DataError(f"the split of this run has no {part} part: choose another --part")
    groups = split.group[rows]
    if part == "test":
        with write_errors_told(out):
            log_test_access(out, restored.step, "scored by rcmnet evaluate")
    return _score(
        restored,
        dataset,
        rows,
        dataset.records.label,
        groups=groups if np.all(groups != "") else None,
        out=out,
        part=part,
        data_dir=data_dir or restored.meta["config"]["data"]["data_dir"] or None,
        batch_size=batch_size,
        meta=restored.meta,
    )


def split_of_run(
    restored: Restored, *, source: str | None = None, data_dir: str | None = None
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
    restored: Restored,
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
            f" folders to some of {', '.join(restored.class_names)}"
        )
    to_ours = np.asarray([restored.class_names.index(name) for name in dataset.class_names])
    groups, level = dataset.groups("auto")
    # Nothing of this set was trained on, so what its scores claim is decided by its own groups.
    meta = {
        **restored.meta,
        "split": {"protocol": "external", "level": level},
        "external": {"source": str(source), "sha256": dataset.data_sha256},
    }
    return _score(
        restored,
        dataset,
        np.arange(len(dataset)),
        to_ours[dataset.records.label],
        groups=groups,
        out=out,
        part="external",
        data_dir=data_dir,
        batch_size=batch_size,
        meta=meta,
    )


def _score(
    restored: Restored,
    dataset: CellDataset,
    rows: np.ndarray,
    labels: np.ndarray,
    *,
    groups: np.ndarray | None,
    out: Path,
    part: str,
    data_dir: str | None,
    batch_size: int,
    meta: dict[str, Any],
) -> Evaluation:
    pixels = load_pixels(dataset, restored.preprocess, data_dir=data_dir)
    predictor = Predictor(
        restored.model, mean=restored.mean, std=restored.std, batch_size=batch_size
    )
    return write_evaluation(
        out,
        labels[rows],
        softmax(predictor.logits(restored.variables, pixels, rows)),
        files=dataset.records.file[rows],
        sha256=dataset.records.sha256[rows],
        class_names=restored.class_names,
        groups=None if groups is None else groups.tolist(),
        synthetic=dataset.synthetic,
        meta={**meta, "step": restored.step},
        part=part,
    )


def _require_hash(what: str, now: str, then: str) -> None:
    if now != then:
        raise DataError(
            f"these are not the {what} of the run (hash {now[:12]}, trained on {then[:12]}):"
            " restore them, or score them as other images with --data"
        )
