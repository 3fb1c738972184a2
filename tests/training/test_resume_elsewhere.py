"""A run with checkpoints of its own goes on without the weights that it started from."""

import shutil
from pathlib import Path

import pytest

from rcmnet_jax.training.loop import train
from tests.training.runs import config_of, last_digest


@pytest.fixture
def fine_tuned(cells, tmp_path) -> Path:
    """A finished run that started from ``tmp_path / "start"``."""
    train(config_of(cells, "epochs=1"), tmp_path / "start")
    train(tuned(cells, tmp_path / "start"), tmp_path / "run")
    return tmp_path / "run"


def tuned(cells: Path, start: Path):
    return config_of(cells, "epochs=1", **{"init.checkpoint": str(start)})


@pytest.mark.xfail(strict=True, reason="the start weights are opened before the run's own state")
@pytest.mark.parametrize("moved", [True, False], ids=["moved", "gone"])
def test_start_weights_may_move_or_go_once_the_run_has_checkpoints(
    moved, fine_tuned, cells, tmp_path
):
    before = last_digest(fine_tuned)
    start = tmp_path / "start"
    if moved:
        start = Path(shutil.move(start, tmp_path / "elsewhere"))
    else:
        shutil.rmtree(start)
    train(tuned(cells, start), fine_tuned)
    assert last_digest(fine_tuned) == before
