"""A small run to score."""

from pathlib import Path

import pytest

from rcmnet_jax.training.loop import train
from tests.training.runs import config_of


@pytest.fixture(scope="session")
def trained(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of one epoch."""
    workdir = tmp_path_factory.mktemp("runs") / "scored"
    train(config_of(cells, "epochs=1"), workdir)
    return workdir
