"""A trained run and its report."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rcmnet_jax.cli.main import main
from rcmnet_jax.training.loop import train
from tests.training.runs import config_of


@pytest.fixture(scope="session")
def cells(write_cell_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough images for a temperature and thresholds: 57 to validate, 48 to test."""
    return write_cell_folder(tmp_path_factory.mktemp("source") / "cells", per_class=80)


@pytest.fixture(scope="session")
def run(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch: it makes errors."""
    workdir = tmp_path_factory.mktemp("runs") / "reported"
    train(config_of(cells, "epochs=1", **{"data.split.val_fraction": 0.3}), workdir)
    return workdir


@pytest.fixture(scope="session")
def report(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict]:
    """The page as text, and the JSON."""
    out = tmp_path_factory.mktemp("report")
    argv = ["evaluate", "--workdir", str(run), "--report", "--out", str(out), "--worst", "2"]
    argv += ["--against", str(run), "--seeds", str(run), str(run), "--review-budget", "0.25"]
    assert main(argv) == 0
    content = json.loads((out / "test_report.json").read_text())
    return (out / "test_report.html").read_text(), content
