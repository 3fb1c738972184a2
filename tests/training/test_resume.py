"""The real command, killed: the same command again ends with the same bits.

Marked slow: twenty kills at random moments, and a kill while a checkpoint is written.
"""

import random
import resource
import signal
import time

import pytest

from tests.training.command import (
    STEPS,
    assert_calm,
    assert_same_run,
    error_line,
    signal_after,
)
from tests.training.runs import last_digest


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
