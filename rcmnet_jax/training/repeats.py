"""One experiment repeated over folds, left-out patients or seeds, its results pooled.

Each run has a folder of its own, such as ``seed1/fold3``. Finished runs are not trained again, so
the same command resumes a stopped experiment.
"""

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.evaluation.predictions import Predictions, read_predictions
from rcmnet_jax.evaluation.results import write_evaluation, write_json
from rcmnet_jax.training.inputs import count_folds
from rcmnet_jax.training.loop import train
from rcmnet_jax.workdir.config_file import require_same_config, write_config
from rcmnet_jax.workdir.disk_errors import disk_errors_as_user_errors
from rcmnet_jax.workdir.lock import locked_workdir

logger = logging.getLogger(__name__)

SUMMARY_FILE = "summary.json"


def is_repeated(config: ml_collections.ConfigDict) -> bool:
    """Whether a config asks for more than one run."""
    split = config.data.split
    return config.train.repeats > 1 or ((split.folds or split.leave_out) and split.fold < 0)


def run_repeats(config: ml_collections.ConfigDict, workdir: str | Path) -> dict[str, Any]:
    """Trains all runs that a config asks for, and pools their test results.

    Args:
      config: with ``data.split.folds`` or ``data.split.leave_out``, or ``train.repeats``.
      workdir: gets a folder for each run, ``test_*`` of each seed with every image tested once,
        and summary.json.

    Returns:
      The content of summary.json.

    Raises:
      UserError, Interrupted: as `rcmnet_jax.training.loop.train`.
    """
    workdir = Path(workdir).absolute()
    if config.train.repeats < 1:
        raise ConfigError("train.repeats must be at least 1: see configs/base.py")
    with locked_workdir(workdir), disk_errors_as_user_errors(workdir):
        require_same_config(config, workdir)
        folds = count_folds(config)
        if jax.process_index() == 0:
            write_config(config, workdir)
        seeds = [config.seed + i for i in range(config.train.repeats)]
        runs = list(itertools.product(seeds, range(folds)))
        for number, (seed, fold) in enumerate(runs, 1):
            run_config, folder = _one_run(config, seed, fold, folds)
            logger.info("run %d of %d: %s", number, len(runs), folder)
            _train_unless_finished(run_config, workdir / folder)
        # Only the first of several processes has the files to pool.
        return {} if jax.process_index() else _write_summary(config, workdir, seeds, folds)


def run_folders(workdir: Path) -> Iterator[Path]:
    """The folders of the repeated runs, or the folder itself where it is one run."""
    found = sorted(
        path.parent.parent for path in workdir.glob("seed*/**/checkpoints/best") if path.is_dir()
    )
    yield from found or [workdir]


def _one_run(
    config: ml_collections.ConfigDict, seed: int, fold: int, folds: int
) -> tuple[ml_collections.ConfigDict, str]:
    """The config and the folder of one of the runs."""
    run_config = config.copy_and_resolve_references()
    with run_config.unlocked():
        run_config.seed = seed
        run_config.train.repeats = 1
        run_config.data.split.fold = fold if folds > 1 else -1
    return run_config, f"seed{seed}" + (f"/fold{fold}" if folds > 1 else "")


def _train_unless_finished(config: ml_collections.ConfigDict, folder: Path) -> None:
    if (folder / "test_metrics.json").exists():
        require_same_config(config, folder)
        logger.info("finished already")
        return
    train(config, folder)


def _write_summary(
    config: ml_collections.ConfigDict, workdir: Path, seeds: list[int], folds: int
) -> dict[str, Any]:
    """Scores every seed on all its test images; spread over seeds and folds."""
    per_seed, per_fold = [], []
    for seed in seeds:
        folders = [workdir / _one_run(config, seed, fold, folds)[1] for fold in range(folds)]
        metrics = [json.loads((folder / "test_metrics.json").read_text()) for folder in folders]
        per_fold += [content["balanced_accuracy"]["value"] for content in metrics]
        if folds > 1:
            evaluation = _pool(folders, metrics, workdir / f"seed{seed}").to_dict()
        else:
            evaluation = metrics[0]
        per_seed.append(evaluation)
    from rcmnet_jax.evaluation.seeds import SeedSummary

    summary = {
        "runs": len(seeds) * folds,
        "folds": folds,
        "split_note": metrics[0]["split_note"],
        "synthetic": metrics[0]["synthetic"],
        "seeds": {
            str(seed): {name: content[name] for name in ("accuracy", "balanced_accuracy")}
            for seed, content in zip(seeds, per_seed, strict=True)
        },
        "accuracy": SeedSummary.of([c["accuracy"]["value"] for c in per_seed]).to_dict(),
        "balanced_accuracy": SeedSummary.of(
            [c["balanced_accuracy"]["value"] for c in per_seed]
        ).to_dict(),
        "balanced_accuracy_by_run": per_fold,
    }
    write_json(workdir / SUMMARY_FILE, summary)
    return summary


def _pool(folders: list[Path], metrics: list[dict[str, Any]], out: Path):
    """Every image's prediction by the network that was not trained on it, scored as one set."""
    parts = [read_predictions(folder / "test_predictions.csv") for folder in folders]
    first, meta = parts[0], metrics[0]["meta"]
    groups = _groups_of(folders, [file for part in parts for file in part.files])
    # Records of one fold's data and weights do not hold for all.
    meta = {
        **{key: value for key, value in meta.items() if key in ("config", "class_names", "data")},
        "split": {**meta["split"], "protocol": f"{len(folders)} folds, pooled", "sha256": None},
        "runs": [str(folder.relative_to(out)) for folder in folders],
    }
    return write_evaluation(
        out,
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        files=[file for part in parts for file in part.files],
        sha256=_hashes(parts),
        class_names=first.class_names,
        groups=groups,
        synthetic=metrics[0]["synthetic"],
        meta=meta,
    )


def _hashes(parts: list[Predictions]) -> list[str] | None:
    hashes = [value for part in parts for value in part.sha256]
    return hashes if all(hashes) else None


def _groups_of(folders: list[Path], files: list[str]) -> list[str] | None:
    """Patient or slide of each file, from the runs' splits; None where they have none."""
    import csv

    with (folders[0] / "split.csv").open(newline="") as file:
        group_of = {row["file"]: row["group"] for row in csv.DictReader(file)}
    groups = [group_of[name] for name in files]
    return groups if all(groups) else None
