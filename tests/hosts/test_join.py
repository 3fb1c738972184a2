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
from rcmnet_jax.hosts.join import HEARTBEAT_SECONDS, Hosts, join_hosts
from tests.training.runs import last_digest, rows_of, saved_arrays

ROOT = Path(__file__).parents[2]
CONFIG = "tests/training/tiny_config.py:model=resnet18,size=32,epochs=2"
# A config file that makes one process of two fail while both train.
CRASHING = """
import jax
from tests.training.tiny_config import get_config as get_tiny
from rcmnet_jax.hosts import stop

look = stop.StopRequest.look

def failing_look(self):
    look(self)
    if jax.process_index() == {failing} and self._dispatches == 5:
        raise RuntimeError("made to fail")

stop.StopRequest.look = failing_look

def get_config(arguments=""):
    return get_tiny(arguments)
"""


def command(source: Path, workdir: Path, *extra: str, config: str = CONFIG) -> list[str]:
    return [
        *(sys.executable, "train.py"),
        f"--config={config}",
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
    source: Path,
    workdir: Path,
    *extra: str,
    different: tuple[str, ...] = (),
    config: str = CONFIG,
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
        start([*command(source, workdir, *extra, config=config), *flags], 1),
        start(command(source, workdir, *extra, *different, config=config), 1, **variables),
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
    assert time.monotonic() - killed < HEARTBEAT_SECONDS + 10
    assert "Traceback" not in err
    assert f"process {1 - victim} of 2; if one is lost the others end within" in err
    # JAX aborts where it notices first: process 0, which it runs its service in, or a barrier.
    assert code in (75, -signal.SIGABRT), err
    if code == 75:
        assert err.splitlines()[-1].startswith("error: another of the 2 processes is gone")
    else:
        assert "most likely indicates that another task died" in err
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
    assert [code for code, _, _ in results] == [2, 2], results
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
    hosts.end_after_error(2)
    assert not hosts.lost_another(ValueError("UNKNOWN: Gloo all-reduce failed: Read error"))


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("UNKNOWN: Gloo all-reduce failed: [pair.cc:538] Connection reset by peer", True),
        ("INTERNAL: NCCL operation ncclAllReduce failed: remote process exited", True),
        ("UNAVAILABLE: Task 1 heartbeat timeout.", True),
        ("DEADLINE_EXCEEDED: Barrier timed out. Id: x", True),
        ("UNAVAILABLE: Failed to send RPC to coordination service.", True),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 12 bytes", False),
        ("train.batch_size=3 cannot be split evenly", False),
    ],
)
def test_the_loss_of_another_process_is_recognised_wherever_it_is_raised(text, lost):
    wrapped = UserError("the checkpoint could not be saved")
    wrapped.__cause__ = RuntimeError(text)
    assert Hosts(0, 2).lost_another(wrapped) is lost
    assert Hosts(0, 2).lost_another(RuntimeError(text)) is lost
    assert not Hosts(0, 1).lost_another(RuntimeError(text))


@pytest.mark.slow
@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_one_process_does_not_leave_the_other_waiting(
    cells, two_processes, tmp_path, failing
):
    """Process `failing` crashes in its fifth step, by a config file that reads its number."""
    config = tmp_path / "crashing.py"
    config.write_text(CRASHING.format(failing=failing))
    workdir = tmp_path / "run"
    processes = start_two(cells, workdir, config=f"{config}:model=resnet18,size=32,epochs=2")
    started = time.monotonic()
    results = [finish(process) for process in processes]
    assert time.monotonic() - started < 300
    assert results[failing][0] == 70, results
    assert "RuntimeError: made to fail" in results[failing][2]
    assert results[1 - failing][0] in (75, -signal.SIGABRT), results


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
