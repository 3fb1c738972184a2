"""Whole runs in this process: what they leave, and how they end."""

import gc
import json
import logging
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rcmnet_jax.checkpoints import CheckpointStore, load_run
from rcmnet_jax.errors import CheckpointError, ConfigError, TrainingError
from rcmnet_jax.training.loop import Interrupted, train
from tests.checkpoints.damage import flip_bit
from tests.training.runs import (
    assert_same_arrays,
    config_of,
    last_digest,
    open_store,
    rows_of,
    saved_arrays,
)


@pytest.fixture
def copied(finished, tmp_path) -> Path:
    """The finished run, to do something with."""
    return Path(shutil.copytree(finished[0], tmp_path / "copied"))


def test_a_run_leaves_its_config_split_metrics_checkpoints_and_scores(finished):
    workdir, summary = finished
    assert json.loads((workdir / "config.json").read_text())["train"]["epochs"] == 3
    assert [row["step"] for row in rows_of(workdir, "step")] == list(range(1, 16))
    assert [row["epoch"] for row in rows_of(workdir, "epoch")] == [1, 2, 3]
    assert {p.name for p in (workdir / "checkpoints" / "last").iterdir()} == {"10", "15"}
    assert summary["steps"] == 15
    # 12 test images in batches of 6, none dropped; 3 to validate.
    assert summary["test"]["accuracy"]["n"] == 12
    assert json.loads((workdir / "test_metrics.json").read_text())["accuracy"]["n"] == 12
    assert len((workdir / "test_predictions.csv").read_text().splitlines()) >= 13


def test_the_loss_falls(finished):
    rows = rows_of(finished[0], "epoch")
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]


@pytest.mark.two_devices
def test_two_runs_on_two_devices_are_the_same_bit_for_bit(finished, cells, tmp_path):
    assert jax.device_count() == 2
    test_two_runs_of_one_config_are_the_same_bit_for_bit(finished, cells, tmp_path)


def test_two_runs_of_one_config_are_the_same_bit_for_bit(finished, cells, tmp_path):
    train(config_of(cells, "epochs=3"), tmp_path / "again")
    assert_same_arrays(
        saved_arrays(tmp_path / "again" / "checkpoints" / "last"),
        saved_arrays(finished[0] / "checkpoints" / "last"),
    )


@pytest.mark.parametrize("cache", ["host", "stream"])
def test_pixels_from_host_or_stream_train_the_same_network(cache, finished, cells, tmp_path):
    train(config_of(cells, "epochs=3", **{"data.cache": cache}), tmp_path / cache)
    expected = saved_arrays(finished[0] / "checkpoints" / "last")
    for path, array in saved_arrays(tmp_path / cache / "checkpoints" / "last").items():
        # Another compiled step: the same batches, sums in another order.
        np.testing.assert_allclose(array, expected[path], rtol=2e-3, atol=2e-4, err_msg=path)


def test_a_finished_run_only_scores_again(finished, copied, cells):
    summary = train(config_of(cells, "epochs=3"), copied)
    assert summary == finished[1]
    assert last_digest(copied) == last_digest(finished[0])


def test_the_best_checkpoint_is_that_of_the_lowest_loss_and_patience_ends_the_run(cells, tmp_path):
    changes = {"eval.metric": "loss", "train.early_stop": 2, "train.epochs": 12}
    summary = train(config_of(cells, **changes), tmp_path)
    losses = [row["val_loss"] for row in rows_of(tmp_path, "epoch")]
    best = int(np.argmin(losses))
    assert summary["best"]["epoch"] == best + 1
    assert summary["best"]["value"] == losses[best]
    assert summary["best"]["step"] == 5 * (best + 1)
    assert len(losses) == min(best + 3, 12)
    restored = load_run(tmp_path)
    assert restored.step == summary["best"]["step"]
    assert restored.meta["best"] == summary["best"]


def test_a_loss_that_is_not_finite_stops_with_step_remedy_and_the_last_checkpoint(cells, tmp_path):
    changes = {"optim.learning_rate": 1e30, "checkpoint.every_steps": 1}
    with pytest.raises(TrainingError) as caught:
        train(config_of(cells, **changes), tmp_path)
    message = str(caught.value)
    kept, _ = last_digest(tmp_path)
    assert f"at step {kept + 1} " in message
    assert f"checkpoint of step {kept} is kept" in message
    assert "optim.learning_rate" in message
    assert "\n" not in message
    assert [row["step"] for row in rows_of(tmp_path)] == list(range(1, kept + 1))


def terminate_after(rows: int, workdir: Path) -> threading.Thread:
    """Sends SIGTERM to this process once the run has written so many rows."""

    def wait_and_kill():
        path = workdir / "metrics.jsonl"
        while not path.exists() or len(path.read_text().splitlines()) < rows:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait_and_kill, daemon=True)
    thread.start()
    return thread


def test_sigterm_saves_within_an_epoch_and_the_rest_is_bit_identical(finished, cells, tmp_path):
    # The second falls into the end of an epoch, the first within one.
    for rows in (2, 5):
        workdir = tmp_path / str(rows)
        thread = terminate_after(rows, workdir)
        with pytest.raises(Interrupted, match="run the same command to go on"):
            train(config_of(cells, "epochs=3"), workdir)
        thread.join()
        stopped, _ = last_digest(workdir)
        assert rows_of(workdir)[-1]["step"] == stopped < 15
        train(config_of(cells, "epochs=3"), workdir)
        assert last_digest(workdir) == last_digest(finished[0])
        assert_same_rows(workdir, finished[0])


def assert_same_rows(first: Path, second: Path) -> None:
    """All but the speed."""
    one, two = (
        [{name: v for name, v in row.items() if name != "images_per_second"} for row in rows_of(d)]
        for d in (first, second)
    )
    assert one == two


def test_a_damaged_newest_checkpoint_costs_an_epoch_and_nothing_else(
    finished, copied, cells, caplog
):
    flip_bit(copied / "checkpoints" / "last" / "15")
    with caplog.at_level(logging.WARNING):
        train(config_of(cells, "epochs=3"), copied)
    assert "15 is damaged" in caplog.text
    assert "going back to step 10" in caplog.text
    assert last_digest(copied) == last_digest(finished[0])
    assert_same_rows(copied, finished[0])
    assert (copied / "checkpoints" / "corrupt-last-15").is_dir()


def test_a_best_checkpoint_ahead_of_the_training_state_is_made_again(finished, copied, cells):
    # As after a kill between the two saves of the last epoch.
    shutil.rmtree(copied / "checkpoints" / "last" / "15")
    store = CheckpointStore(copied / "checkpoints" / "best", keep=2)
    assert store.steps[-1] < 14
    store.save(14, {"of": np.zeros(3)}, progress={}, meta={})
    store.close()
    assert train(config_of(cells, "epochs=3"), copied) == finished[1]
    assert load_run(copied).step == finished[1]["best"]["step"]


def test_a_best_checkpoint_that_cannot_be_saved_leaves_no_state_that_counts_on_it(
    finished, cells, small_disk, tmp_path
):
    workdir = tmp_path / "run"
    disk = small_disk(kilobytes=64, at=workdir / "checkpoints" / "best")
    with pytest.raises(CheckpointError, match="the disk is full"):
        train(config_of(cells, "epochs=3"), workdir)
    assert open_store(workdir / "checkpoints" / "last").steps == []
    enlarge(disk)
    assert train(config_of(cells, "epochs=3"), workdir) == finished[1]
    assert last_digest(workdir) == last_digest(finished[0])


# Orbax forgets the tasks that fail beside the first; they are told when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_disk_that_fills_up_keeps_the_earlier_checkpoint_and_the_run_goes_on_with_room(
    finished, cells, small_disk, tmp_path
):
    size = sum(
        p.stat().st_size
        for p in (finished[0] / "checkpoints" / "last" / "15").rglob("*")
        if p.is_file()
    )
    workdir = tmp_path / "run"
    disk = small_disk(kilobytes=int(1.6 * size / 1024), at=workdir / "checkpoints" / "last")
    with pytest.raises(CheckpointError, match="the disk is full: free some space") as caught:
        train(config_of(cells, "epochs=3"), workdir)
    assert "\n" not in str(caught.value)
    gc.collect()
    assert open_store(disk).steps == [5]
    enlarge(disk)
    train(config_of(cells, "epochs=3"), workdir)
    assert last_digest(workdir) == last_digest(finished[0])


def enlarge(disk: Path) -> None:
    command = ["mount", "-o", "remount,size=100m", str(disk)]
    subprocess.run(command, check=True, capture_output=True)


def test_other_images_than_the_checkpoints_are_refused(copied, write_cell_folder, tmp_path):
    other = write_cell_folder(tmp_path / "other", per_class=20, seed=1)
    with pytest.raises(CheckpointError, match="was trained on another data"):
        train(config_of(other, "epochs=3"), copied)
    (other / "blue").rename(other / "azure")
    (other / "extra").mkdir()
    for path in sorted((other / "pale").iterdir())[:5]:
        path.rename(other / "extra" / path.name)
    # With other classes the arrays would not fit either; the images are what is wrong.
    with pytest.raises(CheckpointError, match="was trained on another data"):
        train(config_of(other, "epochs=3"), copied)
    assert not list((copied / "checkpoints").glob("corrupt-*"))


def test_a_changed_config_is_refused_before_anything_is_loaded(copied, cells):
    with pytest.raises(ConfigError, match=r"optim\.momentum was 0\.9, is 0\.8"):
        train(config_of(cells, "epochs=3", **{"optim.momentum": 0.8}), copied)


def test_a_config_that_turned_out_wrong_does_not_bind_the_folder(cells, tmp_path):
    with pytest.raises(ConfigError, match="fewer than one batch"):
        train(config_of(cells, **{"train.batch_size": 1000}), tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_no_thread_is_left_behind(finished):
    names = [t.name for t in threading.enumerate() if "save" in t.name or "rcmnet" in t.name]
    assert names == []
