"""Commands run in this process, as a user would see them end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rcmnet_jax.cli.main import main as rcmnet_main
from rcmnet_jax.cli.train import main as train_main
from rcmnet_jax.training.loop import train
from tests.training.runs import config_of

CONFIG = Path(__file__).parents[1] / "training" / "tiny_config.py"


@pytest.fixture
def error_of(capfd) -> Callable[..., str]:
    """Runs ``main(argv)`` and gives its error: one line at the end, exit status 2, no traceback."""

    def run(main: Callable[[list[str]], int], *argv: Any) -> str:
        status = main([str(word) for word in argv])
        err = capfd.readouterr().err
        assert status == 2
        assert "Traceback" not in err
        *before, line = err.strip().splitlines()
        assert line.startswith("error: ")
        assert "error: " not in "\n".join(before)
        return line

    return run


@pytest.fixture
def rcmnet_error(error_of) -> Callable[..., str]:
    """The error of ``rcmnet ...``."""
    return lambda *argv: error_of(rcmnet_main, *argv)


@pytest.fixture
def train_error(error_of, cells, tmp_path) -> Callable[..., str]:
    """The error of ``train.py`` with the tests' experiment and these arguments added."""

    def run(*argv: Any, config: Any = f"{CONFIG}:model=resnet18,size=32,epochs=2") -> str:
        source = [] if any("data.source" in str(a) for a in argv) else [f"data.source={cells}"]
        given = ["--config", config, "--workdir", tmp_path / "run"]
        return error_of(train_main, *given, *(f"--config.{word}" for word in source), *argv)

    return run


@pytest.fixture(scope="session")
def trained(cells: Path, tmp_path_factory) -> Path:
    """The folder of a run of one epoch."""
    workdir = tmp_path_factory.mktemp("runs") / "trained"
    train(config_of(cells, "epochs=1"), workdir)
    return workdir
