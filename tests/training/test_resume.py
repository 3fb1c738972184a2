"""The real command, killed: the same command again ends with the same bits.

Marked slow: twenty kills at random moments, and a kill while a checkpoint is written.
"""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.runs import last_digest, rows_of

ROOT = Path(__file__).parents[2]
EPOCHS = 4
STEPS = 5 * EPOCHS


class Command:
    """``python train.py`` on the tests' experiment, on one device as most users have it."""

    def __init__(self, source: Path):
        self.source = source

    def start(self, workdir: Path, *extra: str) -> subprocess.Popen:
        command = [
            *(sys.executable, "train.py"),
            f"--config=tests/training/tiny_config.py:model=resnet18,size=32,epochs={EPOCHS}",
            f"--workdir={workdir}",
            f"--config.data.source={self.source}",
            "--config.optim.ema=0.9",
            "--config.checkpoint.every_steps=3",
            *extra,
        ]
        environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def finish(self, workdir: Path, *extra: str) -> tuple[int, str, str]:
        process = self.start(workdir, *extra)
        out, err = process.communicate(timeout=300)
        return process.returncode, out, err


@pytest.fixture(scope="module")
def command(cells: Path) -> Command:
    return Command(cells)


@pytest.fixture(scope="module")
def straight(command: Command, tmp_path_factory) -> Path:
    """A run that nobody disturbed."""
    workdir = tmp_path_factory.mktemp("straight")
    code, out, err = command.finish(workdir)
    assert code == 0, err
    assert "test top-1" in out
    assert_calm(err)
    return workdir


def assert_calm(err: str) -> None:
    """What the run tells about itself, without warnings, tracebacks and bars for no terminal."""
    assert not any(word in err for word in ("Traceback", "WARNING", "Warning", "ERROR", "\r")), err


def error_line(err: str) -> str:
    """The one line that says what to mend, behind what the run told before."""
    *before, line = err.splitlines()
    assert line.startswith("error: ")
    assert_calm(err)
    assert "error: " not in "\n".join(before)
    return line


def signal_after(process: subprocess.Popen, workdir: Path, rows: int, number: int) -> None:
    """Sends a signal once so many metrics rows are written."""
    path = workdir / "metrics.jsonl"
    while process.poll() is None:
        if path.exists() and path.read_text().count("\n") >= rows:
            process.send_signal(number)
            return
        time.sleep(0.002)


def assert_same_run(workdir: Path, straight: Path) -> None:
    assert last_digest(workdir) == last_digest(straight)
    mine, theirs = (
        [{name: v for name, v in row.items() if name != "images_per_second"} for row in rows_of(d)]
        for d in (workdir, straight)
    )
    assert mine == theirs
    assert best_step(workdir) == best_step(straight)


def best_step(workdir: Path) -> int:
    return max(int(path.name) for path in (workdir / "checkpoints" / "best").iterdir())


def test_killed_then_terminated_then_finished_is_the_undisturbed_run(command, straight, tmp_path):
    workdir = tmp_path / "run"
    process = command.start(workdir)
    signal_after(process, workdir, 7, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL

    process = command.start(workdir)
    signal_after(process, workdir, 12, signal.SIGTERM)
    # While it stops, nobody else may have the folder; afterwards everybody may.
    _, err = process.communicate(timeout=300)
    assert process.returncode == 75, err
    assert err.splitlines()[-1].startswith("stopped at step ")
    assert_calm(err)
    assert last_digest(workdir)[0] < STEPS

    code, _, err = command.finish(workdir)
    assert code == 0, err
    assert_calm(err)
    assert_same_run(workdir, straight)


def test_a_second_command_on_the_folder_is_refused_at_once(command, straight, tmp_path):
    workdir = tmp_path / "run"
    first = command.start(workdir)
    while not (workdir / ".lock").exists() or not (workdir / ".lock").read_text():
        assert first.poll() is None
        time.sleep(0.01)
    code, out, err = command.finish(workdir)
    first.kill()
    first.communicate()
    assert code == 2
    assert out == ""
    assert f"in use by another run (process {first.pid})" in error_line(err)


def test_a_file_size_limit_while_saving_is_one_line_and_the_process_ends(
    command, straight, tmp_path
):
    # After the undisturbed run, which has built the data set without a limit.
    workdir = tmp_path / "run"
    limit = 150_000  # The arrays of either checkpoint are larger; everything else is smaller.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        process = command.start(workdir)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2, err
    # Among the complaints of tensorstore's threads about an event loop that Orbax has closed.
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: cannot save checkpoint")
    assert "the disk is full: free some space" in line


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_twenty_kills_at_random_moments_change_no_bit(command, straight, tmp_path):
    random_seconds = random.Random(0)
    workdir = tmp_path / "run"
    kills = 0
    while kills < 20:
        process = command.start(workdir, "--config.checkpoint.every_steps=1")
        path = workdir / "metrics.jsonl"
        # From within the start (nothing may break there either) to a few steps later.
        time.sleep(random_seconds.uniform(0.5, 2))
        known = path.read_text() if path.exists() else ""
        while process.poll() is None and (path.read_text() if path.exists() else "") == known:
            time.sleep(0.002)
        time.sleep(random_seconds.uniform(0, 0.4))
        process.kill()
        process.communicate()
        kills += 1
        if process.returncode == 0:
            break
    code, _, err = command.finish(workdir, "--config.checkpoint.every_steps=1")
    assert code == 0, err
    assert_same_run(workdir, straight)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_kill_while_a_checkpoint_is_written_changes_no_bit(command, straight, tmp_path):
    workdir = tmp_path / "run"
    series = workdir / "checkpoints" / "last"
    for _ in range(4):
        process = command.start(workdir)
        while process.poll() is None:
            if series.exists() and any("tmp" in path.name for path in series.iterdir()):
                process.kill()
                break
            time.sleep(0.0005)
        process.communicate()
    code, _, err = command.finish(workdir)
    assert code == 0, err
    assert_same_run(workdir, straight)
    assert not [path for path in series.iterdir() if "tmp" in path.name]
