"""One run on one device, on eight, and in two processes: the same training."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.hosts.join import join_hosts
from tests.training.runs import last_digest, rows_of, saved_arrays

ROOT = Path(__file__).parents[2]


def command(source: Path, workdir: Path, *extra: str) -> list[str]:
    return [
        *(sys.executable, "train.py"),
        "--config=tests/training/tiny_config.py:model=resnet18,size=32,epochs=2",
        f"--workdir={workdir}",
        f"--config.data.source={source}",
        # Small, or ten steps of so small batches would make rounding errors large.
        "--config.optim.learning_rate=0.002",
        *extra,
    ]


def start(arguments: list[str], devices: int, **environment: str) -> subprocess.Popen:
    environment = {
        **os.environ,
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
        **environment,
    }
    return subprocess.Popen(
        arguments,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(
    source: Path, workdir: Path, *extra: str, different: tuple[str, ...] = ()
) -> list[subprocess.Popen]:
    """Both processes of a run on this machine, one by flags and one by the environment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"
    flags = [f"--coordinator={coordinator}", "--num_processes=2", "--process_id=0"]
    variables = {
        "RCMNET_COORDINATOR": coordinator,
        "RCMNET_NUM_PROCESSES": "2",
        "RCMNET_PROCESS_ID": "1",
    }
    return [
        start([*command(source, workdir, *extra), *flags], 1),
        start(command(source, workdir, *extra, *different), 1, **variables),
    ]


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=500)
    return process.returncode, out, err


def assert_same_training(first: Path, second: Path) -> None:
    """The same steps to rounding: sums over devices are made in another order."""
    steps = [
        np.array(
            [[row[name] for name in ("train_loss", "gradient_norm")] for row in rows_of(d, "step")]
        )
        for d in (first, second)
    ]
    assert len(steps[0]) == 10
    # Rounding grows with the steps; the first has seen none of it.
    np.testing.assert_allclose(steps[0][0], steps[1][0], rtol=1e-5)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-3)
    arrays, others = (saved_arrays(d / "checkpoints" / "last") for d in (first, second))
    assert arrays.keys() == others.keys()
    for path, array in arrays.items():
        atol = 2e-3 * np.abs(array).max()
        np.testing.assert_allclose(array, others[path], rtol=0, atol=atol, err_msg=path)


@pytest.fixture(scope="module")
def one_device(cells, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("hosts") / "one"
    code, _, err = finish(start(command(cells, workdir), 1))
    assert code == 0, err
    return workdir


def test_eight_devices_train_as_one(cells, one_device, tmp_path):
    code, _, err = finish(start(command(cells, tmp_path / "run"), 8))
    assert code == 0, err
    assert "x 8" in err
    assert_same_training(one_device, tmp_path / "run")


@pytest.fixture(scope="module")
def two_processes(cells, tmp_path_factory) -> Path:
    """A run of two processes, which the first alone reports."""
    workdir = tmp_path_factory.mktemp("hosts") / "two"
    (code, out, err), (other_code, other_out, other_err) = map(finish, start_two(cells, workdir))
    assert (code, other_code) == (0, 0), f"{err}\n{other_err}"
    assert "test top-1" in out
    assert "x 2" in err
    assert "test" not in other_out
    assert "error" not in other_err
    return workdir


def test_two_processes_train_as_one(one_device, two_processes):
    assert_same_training(one_device, two_processes)
    names = {"config.json", "split.csv", "metrics.jsonl", "test_metrics.json", "checkpoints"}
    assert names <= {path.name for path in two_processes.iterdir()}


def test_a_run_of_two_goes_on_in_one(cells, two_processes, tmp_path):
    workdir = Path(shutil.copytree(two_processes, tmp_path / "run"))
    code, out, err = finish(start(command(cells, workdir), 1))
    assert code == 0, err
    assert "test top-1" in out
    assert last_digest(workdir) == last_digest(two_processes)


def wait_for_rows(workdir: Path, count: int, process: subprocess.Popen) -> None:
    path = workdir / "metrics.jsonl"
    while not (path.exists() and path.read_text().count("\n") >= count):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_and_the_run_goes_on(
    cells, two_processes, tmp_path, victim
):
    workdir = tmp_path / "run"
    longer = ("--config.checkpoint.every_steps=1",)
    processes = start_two(cells, workdir, *longer)
    wait_for_rows(workdir, 4, processes[0])
    processes[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    code, _, err = finish(processes[1 - victim])
    assert code == 75, err
    assert f"error: process {victim} of 2 is gone" in err
    assert "Traceback" not in err
    assert time.monotonic() - killed < 60
    finish(processes[victim])
    results = [finish(process) for process in start_two(cells, workdir, *longer)]
    assert [code for code, _, _ in results] == [0, 0], results
    assert "going on from step" in results[0][2]
    assert_same_training(two_processes, workdir)


@pytest.mark.slow
def test_sigterm_to_one_process_saves_and_stops_both(cells, two_processes, tmp_path):
    workdir = tmp_path / "run"
    processes = start_two(cells, workdir)
    wait_for_rows(workdir, 3, processes[0])
    processes[1].send_signal(signal.SIGTERM)
    results = [finish(process) for process in processes]
    assert [code for code, _, _ in results] == [75, 75], results
    assert "stopped at step" in results[0][2]
    results = [finish(process) for process in start_two(cells, workdir)]
    assert [code for code, _, _ in results] == [0, 0], results
    assert_same_training(two_processes, workdir)


@pytest.mark.slow
def test_processes_of_different_configs_are_told(cells, tmp_path):
    first, second = start_two(cells, tmp_path / "run", different=("--config.seed=1",))
    results = [finish(first), finish(second)]
    # The one that ends first may end the other before it has said the same.
    assert {code for code, _, _ in results} in ({2}, {2, 75}), results
    errors = "".join(err for _, _, err in results)
    assert "error: process 1 was started with another config than process 0" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "run" / "config.json").exists()


def test_one_process_needs_no_address(monkeypatch):
    for name in ("RCMNET_COORDINATOR", "RCMNET_NUM_PROCESSES", "RCMNET_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    hosts = join_hosts({})
    assert (hosts.process, hosts.count, hosts.first) == (0, 1, True)
    hosts.leave(0)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ({"coordinator": "here:1"}, "--num_processes (or $RCMNET_NUM_PROCESSES) and --process_id"),
        ({"num_processes": "2", "process_id": "0"}, "--coordinator"),
        ({"coordinator": "here", "num_processes": "2", "process_id": "0"}, "HOST:PORT"),
        ({"coordinator": "here:1", "num_processes": "two", "process_id": "0"}, "numbers"),
        ({"coordinator": "here:1", "num_processes": "2", "process_id": "2"}, "from 0 to 1"),
    ],
)
def test_a_wrong_address_is_told_before_anything_waits(address, told):
    with pytest.raises(UserError) as error:
        join_hosts(address)
    assert told in str(error.value)
