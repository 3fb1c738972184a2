"""Runs in this process that stop half-way, by a real SIGTERM, and what they must end as."""

import os
import signal
from pathlib import Path
from typing import Any

import ml_collections
import pytest

from rcmnet_jax.training.loop import Interrupted, train
from rcmnet_jax.training.saving import Progress
from tests.training.runs import config_of, last_digest, rows_of


def broken_config(source: Path) -> ml_collections.ConfigDict:
    """Three epochs of five steps, a training state every three steps."""
    return config_of(source, "epochs=3", **{"checkpoint.every_steps": 3})


def run_until(step: int, source: Path, workdir: Path) -> None:
    """Trains until so many steps are accounted for, and is told to stop."""
    add = Progress.add

    def add_and_stop(progress: Progress, **metrics: Any) -> None:
        add(progress, **metrics)
        if progress.accounted == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "add", add_and_stop)
        with pytest.raises(Interrupted):
            train(broken_config(source), workdir)


def outcome(workdir: Path) -> tuple[Any, ...]:
    """Parameters, metrics and test predictions: what must not depend on what happened between."""
    rows = [
        {key: value for key, value in row.items() if key != "images_per_second"}
        for row in rows_of(workdir)
    ]
    return last_digest(workdir), rows, (workdir / "test_predictions.csv").read_bytes()
