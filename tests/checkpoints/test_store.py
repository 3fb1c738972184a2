"""Checkpoints come back bit for bit, or say that they do not."""

import contextlib
import gc
import logging
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.checkpoints import CheckpointStore, tree_sha256
from rcmnet_jax.errors import CheckpointError
from tests.checkpoints.damage import DAMAGE, flip_bit, largest_file

META = {"config": {"seed": 0, "rate": 0.1}, "class_names": ["a", "b"], "note": "π"}
PROGRESS = {"epoch": 1, "loss_sum": 0.1 + 0.2, "seen": 7, "best": None}


def tree_of(step: int):
    key = jax.random.key(step)
    return {
        "params": {"kernel": jax.random.normal(key, (64, 65)), "bias": jnp.full((3,), 1e-30)},
        "step": jnp.asarray(step, jnp.int32),
        "half": jnp.arange(5, dtype=jnp.bfloat16),
    }


def open_store(directory, **options):
    return contextlib.closing(CheckpointStore(directory, **options))


def save(directory, *steps, **options) -> None:
    with open_store(directory, **options) as store:
        for step in steps:
            store.save(step, tree_of(step), progress=PROGRESS, meta=META)


def restore(directory, **options):
    with open_store(directory, **options) as store:
        return store.restore(tree_of(0))


def test_arrays_and_records_come_back_bit_for_bit(tmp_path):
    save(tmp_path, 5)
    saved = restore(tmp_path)
    assert (saved.step, saved.progress, saved.meta) == (5, PROGRESS, META)
    assert tree_sha256(saved.state) == tree_sha256(tree_of(5))
    assert saved.state["half"].dtype == jnp.bfloat16


def test_only_the_newest_are_kept(tmp_path):
    with open_store(tmp_path, keep=2) as store:
        for step in (5, 10, 15):
            store.save(step, tree_of(step), progress={}, meta={})
        assert store.steps == [10, 15]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["10", "15"]


def test_an_empty_folder_holds_nothing(tmp_path):
    with open_store(tmp_path) as store:
        assert store.steps == []
        assert store.newest_meta() is None
        assert store.restore(tree_of(0)) is None


def test_a_relative_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save(Path("run"), 1)
    assert restore(Path("run")).step == 1


def test_the_saved_arrays_are_those_of_the_call_though_their_source_is_donated(tmp_path):
    # As in the loop: a copy is saved while the next step takes the original's buffers.
    advance = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    with open_store(tmp_path) as store:
        tree = tree_of(5)
        expected = tree_sha256(tree)
        store.save(5, jax.tree.map(jnp.copy, tree), progress={}, meta={})
        for _ in range(20):
            tree = advance(tree)
        store.wait()
    assert tree_sha256(restore(tmp_path).state) == expected


# Orbax forgets coroutines and callbacks when a read fails; they are told when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_it(tmp_path, caplog, damage):
    directory = tmp_path / "last"
    save(directory, 5, 10)
    damage(directory / "10")
    with caplog.at_level(logging.WARNING):
        saved = restore(directory)
    gc.collect()
    assert saved.step == 5
    assert tree_sha256(saved.state) == tree_sha256(tree_of(5))
    (told,) = [r.getMessage() for r in caplog.records if r.name.startswith("rcmnet_jax")]
    assert "10 is damaged" in told
    assert "going back to step 5" in told
    # Kept for who wants to look, and out of the way of the run that goes on.
    assert (tmp_path / "corrupt-last-10").is_dir()
    save(directory, 10)
    assert restore(directory).step == 10


def test_where_all_are_damaged_nothing_is_moved_and_the_error_stays(tmp_path):
    directory = tmp_path / "last"
    save(directory, 5, 10)
    for step in ("5", "10"):
        flip_bit(directory / step)
    for _ in range(2):
        with pytest.raises(CheckpointError, match="none of the 2 checkpoints"):
            restore(directory)
    assert sorted(p.name for p in directory.iterdir()) == ["10", "5"]


def test_reading_changes_nothing_in_the_folder(tmp_path):
    save(tmp_path, 5, 10)
    flip_bit(tmp_path / "10")
    unfinished = tmp_path / "15.orbax-checkpoint-tmp"
    unfinished.mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert restore(tmp_path, read_only=True).step == 5
    assert sorted(tmp_path.rglob("*")) == before


def test_what_was_saved_after_a_step_can_be_dropped(tmp_path):
    save(tmp_path, 5, 10, 15, keep=3)
    with open_store(tmp_path) as store:
        store.drop_after(5)
        assert store.steps == [5]
        store.save(10, tree_of(10), progress={}, meta={})
    assert restore(tmp_path).step == 10


def test_a_save_that_would_be_passed_over_in_silence_is_refused(tmp_path):
    with open_store(tmp_path) as store:
        store.save(10, tree_of(10), progress={}, meta={})
        with pytest.raises(AssertionError, match="step 5 is not after 10"):
            store.save(5, tree_of(5), progress={}, meta={})


def test_a_full_disk_is_one_line_and_leaves_the_earlier_checkpoint(small_disk):
    disk = small_disk(kilobytes=400)
    save(disk / "last", 5)
    (disk / "other").write_bytes(bytes(330 * 1024 - used_by(disk)))

    def save_on_full_disk():
        with open_store(disk / "last") as store:
            store.save(10, tree_of(10) | {"more": jnp.arange(50_000.0)}, progress={}, meta={})
            store.wait()

    with pytest.raises(CheckpointError, match="the disk is full") as caught:
        save_on_full_disk()
    assert "\n" not in str(caught.value)
    (disk / "other").unlink()
    assert restore(disk / "last").step == 5
    # What the failed save left is gone, and there is room again.
    save(disk / "last", 10)
    assert restore(disk / "last").step == 10


def used_by(disk: Path) -> int:
    usage = os.statvfs(disk)
    return (usage.f_blocks - usage.f_bfree) * usage.f_bsize


def test_a_folder_that_cannot_be_written_is_one_line(small_disk):
    disk = small_disk(kilobytes=400)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True, capture_output=True)
    with pytest.raises(CheckpointError, match="not writable"):
        CheckpointStore(disk / "last")


def test_digest_sees_paths_types_shapes_and_values():
    tree = {"a": jnp.zeros((2, 3)), "b": jnp.ones(2)}
    others = [
        {"a": jnp.zeros((3, 2)), "b": jnp.ones(2)},
        {"c": jnp.zeros((2, 3)), "b": jnp.ones(2)},
        {"a": jnp.zeros((2, 3)), "b": jnp.ones(2, jnp.bfloat16)},
        {"a": jnp.zeros((2, 3)), "b": -jnp.ones(2)},
    ]
    assert tree_sha256(tree) == tree_sha256(jax.tree.map(np.asarray, tree))
    assert len({tree_sha256(t) for t in [tree, *others]}) == 5


OTHER_DEVICES = """
import sys
from pathlib import Path
import jax, jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rcmnet_jax.checkpoints import CheckpointStore, tree_sha256
from rcmnet_jax.hosts.mesh import make_mesh, put_replicated

action, directory, devices = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
assert jax.device_count() == devices
tree = put_replicated({"kernel": jax.random.normal(jax.random.key(0), (8, 5))}, make_mesh())
store = CheckpointStore(directory)
if action == "save":
    store.save(1, tree, progress={}, meta={})
else:
    state = store.restore(jax.tree.map(jnp.zeros_like, tree)).state
    assert len(state["kernel"].sharding.device_set) == devices
    assert tree_sha256(state) == tree_sha256(tree)
store.close()
"""


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8)])
def test_a_checkpoint_opens_on_another_number_of_devices(tmp_path, before, after):
    for action, devices in (("save", before), ("restore", after)):
        environment = {name: v for name, v in os.environ.items() if name != "JAX_NUM_CPU_DEVICES"}
        environment["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
        command = [sys.executable, "-c", OTHER_DEVICES, action, str(tmp_path / "run"), str(devices)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


def test_largest_file_is_the_arrays(tmp_path):
    # The damage above must hit what matters.
    save(tmp_path, 5)
    assert largest_file(tmp_path / "5").is_relative_to(tmp_path / "5" / "state")


@pytest.mark.parametrize(
    "name",
    ["run [2024]", "a*b", "what?", "{x} 100%#", "中文 é", "back\\slash", os.fsdecode(b"\xff\xfe")],
)
def test_any_name_that_a_folder_can_have_will_do(tmp_path, name):
    save(tmp_path / name / "last", 5, 10)
    saved = restore(tmp_path / name / "last", read_only=True)
    assert tree_sha256(saved.state) == tree_sha256(tree_of(10))
    # The files themselves are whole, under whatever name.
    (tmp_path / name).rename(tmp_path / "moved")
    assert restore(tmp_path / "moved" / "last").step == 10
    assert restore(tmp_path / "moved" / "last", read_only=True).meta == META


def test_a_first_checkpoint_that_cannot_be_read_back_is_an_error(tmp_path, monkeypatch):
    with open_store(tmp_path) as store:
        save_arrays = store._manager.save

        def spoilt(step, **items):
            written = save_arrays(step, **items)
            store._manager.wait_until_finished()
            flip_bit(tmp_path / str(step))
            return written

        monkeypatch.setattr(store._manager, "save", spoilt)
        with pytest.raises(CheckpointError, match=r"just written.*cannot be read back"):
            store.save(5, tree_of(5), progress=PROGRESS, meta=META)
        assert store.steps == []
        monkeypatch.undo()
        store.save(5, tree_of(5), progress=PROGRESS, meta=META)
        assert store.steps == [5]
