"""What a run writes about itself, and what it takes back when it resumes."""

import contextlib
import json
import struct

import pytest

from configs.base import base_config
from rcmnet_jax.training.log import RunLog


def open_log(workdir, *, start_step=0, **changes):
    log = base_config().log
    log.update({"progress": False, "tensorboard": False, "plots": False, **changes})
    return contextlib.closing(
        RunLog(workdir, log, start_step=start_step, total_steps=10, batch_size=8)
    )


def write_epoch(log: RunLog, step: int) -> None:
    values = {"train_loss": 1 / step, "train_accuracy": 0.5, "val_loss": 2.0, "val_accuracy": 0.4}
    log.write("epoch", step, step / 5, values | {"images_per_second": 80.0})


def steps_of(workdir) -> list[int]:
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


def test_rows_after_the_step_resumed_from_are_dropped_and_others_kept(tmp_path):
    with open_log(tmp_path) as log:
        for step in (5, 6, 7):
            log.write("step", step, step / 5, {"train_loss": 0.1 * step})
    with open_log(tmp_path, start_step=6) as log:
        log.write("step", 7, 1.4, {"train_loss": 0.9})
    assert steps_of(tmp_path) == [5, 6, 7]
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])["train_loss"] == 0.5


def test_a_line_cut_off_by_a_kill_is_left_out(tmp_path):
    with open_log(tmp_path) as log:
        log.write("step", 1, 0.2, {"train_loss": 1.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "step": 2, "ep')
    with open_log(tmp_path, start_step=2) as log:
        log.write("step", 3, 0.6, {"train_loss": 1.0})
    assert steps_of(tmp_path) == [1, 3]


def test_without_a_terminal_an_epoch_is_one_line_and_a_step_none(tmp_path, capfd):
    with open_log(tmp_path, progress=True) as log:
        log.step(3)
        log.write("step", 3, 0.6, {"train_loss": 1.0})
        write_epoch(log, 5)
    told = capfd.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert "\r" not in told.err
    assert "step 5/10" in told.err
    assert "val_accuracy 0.4000" in told.err


def test_progress_off_is_silent(tmp_path, capfd):
    with open_log(tmp_path) as log:
        write_epoch(log, 5)
    assert capfd.readouterr() == ("", "")


def test_curves_are_drawn_at_the_end_of_an_epoch(tmp_path):
    with open_log(tmp_path, plots=True) as log:
        write_epoch(log, 5)
        write_epoch(log, 10)
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_tensorboard_files_hold_every_value_and_the_step_from_which_to_forget(tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    with open_log(tmp_path, tensorboard=True, start_step=4) as log:
        write_epoch(log, 5)
    (path,) = (tmp_path / "tensorboard").iterdir()
    data, events = path.read_bytes(), []
    while data:
        # A record: length, checksum of it, content, checksum of that.
        (length,) = struct.unpack("<Q", data[:8])
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    assert events[1].session_log.status == SessionLog.START
    assert events[1].step == 5
    scalars = {event.summary.value[0].tag: event for event in events[2:]}
    assert scalars["val_loss"].summary.value[0].simple_value == 2.0
    assert all(event.step == 5 for event in scalars.values())
    assert len(scalars) == 5


def test_values_reach_the_disk_before_the_next_step(tmp_path):
    with open_log(tmp_path, tensorboard=True) as log:
        (path,) = (tmp_path / "tensorboard").iterdir()
        empty = path.stat().st_size
        write_epoch(log, 5)
        # A kill from here on loses nothing.
        assert path.stat().st_size > empty
        assert steps_of(tmp_path) == [5]


def test_a_full_disk_is_an_error_and_not_a_thread_that_waits(small_disk):
    def write_much(disk):
        with open_log(disk, tensorboard=True) as log:
            for step in range(1, 2000):
                write_epoch(log, step)

    with pytest.raises(OSError, match="No space left"):
        write_much(small_disk(kilobytes=64))


def test_speed_is_counted_from_the_last_question(tmp_path):
    with open_log(tmp_path) as log:
        assert log.images_per_second(4) > 0
        assert log.images_per_second(4) == 0


def test_lines_that_are_no_text_are_left_out(tmp_path):
    with open_log(tmp_path) as log:
        write_epoch(log, 5)
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'\x80"kind"\n' + path.read_bytes() + b"\xff\n")
    with open_log(tmp_path, start_step=5):
        pass
    assert steps_of(tmp_path) == [5]
