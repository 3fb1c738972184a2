"""Runs that several tests look at."""

from pathlib import Path
from typing import Any

import pytest

from rcmnet_jax.training.loop import train
from tests.training.runs import config_of


@pytest.fixture(scope="session")
def finished(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A finished run of three epochs, five steps each: its folder (leave it so) and its summary."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    return workdir, train(config_of(cells, "epochs=3"), workdir)
