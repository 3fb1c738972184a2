"""Runs that several tests look at."""

from pathlib import Path
from typing import Any

import pytest

from rcmnet_jax.training.loop import train
from tests.training.command import Command, assert_calm
from tests.training.runs import config_of


@pytest.fixture(scope="session")
def finished(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run of three epochs, five steps each: its folder (leave it so) and its summary."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    return workdir, train(config_of(cells, "epochs=3"), workdir)


@pytest.fixture(scope="session")
def command(cells: Path) -> Command:
    """``python train.py`` on the tests' experiment."""
    return Command(cells)


@pytest.fixture(scope="session")
def straight(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("straight")
    code, out, err = command.finish(workdir)
    assert code == 0, err
    assert "test top-1" in out
    assert_calm(err)
    return workdir
