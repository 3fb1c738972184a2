"""Runs that something happens to: they end as if nothing had, or say in one line what to mend.

docs/reliability.md names these tests beside what is promised.
"""

import gc
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.errors import CheckpointError, UserError
from rcmnet_jax.training.loop import train
from tests.checkpoints.damage import DAMAGE, flip_bit
from tests.training.command import assert_calm, assert_same_run, error_line
from tests.training.interrupted import broken_config, outcome, run_until

# Orbax forgets coroutines and callbacks when a read fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
QUICK_DAMAGE = ("flip_bit",)


@pytest.fixture(autouse=True)
def _collected():
    """They are told when they are collected, which must be while the filter above holds."""
    yield
    gc.collect()


@pytest.fixture(scope="module")
def whole(cells, tmp_path_factory):
    """What a run comes to when it is left alone."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    train(broken_config(cells), workdir)
    return outcome(workdir)


@pytest.fixture(scope="module")
def half(cells, tmp_path_factory) -> Path:
    """A run that was stopped in its second epoch, with two training states."""
    workdir = tmp_path_factory.mktemp("half") / "run"
    run_until(8, cells, workdir)
    assert len(list((workdir / "checkpoints" / "last").iterdir())) == 2
    return workdir


def newest(series: Path) -> Path:
    return max(series.iterdir(), key=lambda path: int(path.name))


@pytest.mark.parametrize(
    "damage",
    [pytest.param(n, marks=[] if n in QUICK_DAMAGE else pytest.mark.slow) for n in DAMAGE],
)
def test_a_damaged_newest_checkpoint_costs_steps_and_changes_no_bit(
    cells, half, whole, tmp_path, damage, monkeypatch
):
    run = shutil.copytree(half, tmp_path / "run")
    step = newest(run / "checkpoints" / "last")
    if damage == "change_a_digit_of_the_progress":
        text = (step / "progress" / "metadata").read_text()
        (step / "progress" / "metadata").write_text(text.replace('"seen": ', '"seen": 1', 1))
    else:
        DAMAGE[damage](step)
    train(broken_config(cells), run)
    assert outcome(run) == whole
    assert (run / "checkpoints" / f"corrupt-last-{step.name}").is_dir()


def test_where_no_training_state_is_whole_the_run_refuses_and_moves_nothing(cells, half, tmp_path):
    run = shutil.copytree(half, tmp_path / "run")
    for step in (run / "checkpoints" / "last").iterdir():
        flip_bit(step)
    before = sorted((run / "checkpoints").rglob("*"))
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
        train(broken_config(cells), run)
    assert sorted((run / "checkpoints").rglob("*")) == before


@pytest.mark.slow
def test_a_deleted_series_starts_from_scratch_to_the_same_end(cells, half, whole, tmp_path):
    run = shutil.copytree(half, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")
    train(broken_config(cells), run)
    assert outcome(run) == whole


def test_a_replaced_image_is_said_by_hash_and_nothing_is_trained(cells, half, tmp_path):
    source = shutil.copytree(cells, tmp_path / "cells")
    image = next((source / "pink").iterdir())
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(image)
    run = shutil.copytree(half, tmp_path / "run")
    before = newest(run / "checkpoints" / "last").name
    with pytest.raises(CheckpointError, match=r"was trained on another data \(\w{12}, now \w{12}"):
        train(broken_config(source), run)
    assert newest(run / "checkpoints" / "last").name == before


def test_a_damaged_built_data_set_is_said(cells, tmp_path, monkeypatch):
    monkeypatch.setenv("RCMNET_DATA_DIR", str(tmp_path / "data"))
    run_until(3, cells, tmp_path / "run")
    for path in (tmp_path / "data" / "pixels").iterdir():
        path.unlink()
    record = max((tmp_path / "data").rglob("*array_record*"), key=lambda p: p.stat().st_size)
    data = bytearray(record.read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
    record.write_bytes(data)
    with pytest.raises(UserError, match="delete th"):
        train(broken_config(cells), tmp_path / "run")


def test_a_disk_that_fills_up_is_one_line_and_the_run_goes_on_when_there_is_room(
    cells, whole, small_disk
):
    disk = small_disk(kilobytes=6000)
    run = disk / "run"
    run_until(4, cells, run)
    usage = os.statvfs(disk)
    (disk / "other").write_bytes(bytes(max(0, usage.f_bavail * usage.f_bsize - 200_000)))
    with pytest.raises(UserError, match="free some space") as caught:
        train(broken_config(cells), run)
    assert "\n" not in str(caught.value)
    (disk / "other").unlink()
    train(broken_config(cells), run)
    assert outcome(run) == whole


def test_a_workdir_that_became_read_only_is_one_line(cells, small_disk):
    disk = small_disk(kilobytes=6000)
    run_until(4, cells, disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
    for workdir in (disk / "run", disk / "new"):
        with pytest.raises(UserError, match="choose another --workdir"):
            train(broken_config(cells), workdir)


def test_a_clock_that_jumps_changes_nothing(cells, whole, tmp_path, monkeypatch):
    real = time.time

    def jumping() -> float:
        # By up to four months, forward or back, several times a second.
        return real() + random.Random(int(time.monotonic() / 0.2)).uniform(-1e7, 1e7)

    monkeypatch.setattr(time, "time", jumping)
    run_until(8, cells, tmp_path / "run")
    # And files from the future, as after a wrong clock was set right.
    for path in (tmp_path / "run").rglob("*"):
        os.utime(path, (real() + 1e8, real() + 1e8))
    train(broken_config(cells), tmp_path / "run")
    assert outcome(tmp_path / "run") == whole


def terminate(process: subprocess.Popen) -> int:
    """SIGTERM; the status that the process ends with, having said one line where it is ours."""
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert_calm(err)
    if process.returncode == 75:
        assert err.splitlines()[-1].startswith("stopped ")
        assert err.splitlines()[-1].endswith("to go on")
    return process.returncode


def test_sigterm_during_the_start_has_its_own_status_and_loses_nothing(command, straight, tmp_path):
    process = command.start(tmp_path / "run")
    # Then it is past its imports, and reads data or compiles.
    while not (tmp_path / "run" / ".lock").exists():
        assert process.poll() is None
        time.sleep(0.005)
    assert terminate(process) == 75
    code, _, err = command.finish(tmp_path / "run")
    assert code == 0, err
    assert_same_run(tmp_path / "run", straight)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_sigterm_at_ten_moments_of_the_start(command, straight, tmp_path):
    statuses = []
    for seconds in np.linspace(0.2, 6, 10):
        process = command.start(tmp_path / "run")
        time.sleep(seconds)
        statuses.append(terminate(process))
    while statuses[0] == -signal.SIGTERM:
        del statuses[0]  # Python had not come to our first line yet
    # Saved, or done already, and nothing else.
    assert len(statuses) >= 5
    assert set(statuses) <= {75, 0}, statuses
    code, _, err = command.finish(tmp_path / "run")
    assert code == 0, err
    assert_same_run(tmp_path / "run", straight)


def test_a_read_only_workdir_is_one_line_of_the_command(command, small_disk):
    disk = small_disk(kilobytes=400)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
    code, _, err = command.finish(disk / "run")
    assert code == 2
    assert "choose another --workdir" in error_line(err)
