"""A program in a file: found again, computing the same, and never in the way."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import SingleDeviceSharding

from rcmnet_jax.training import stored_program
from rcmnet_jax.training.stored_program import StoredStep
from tests.training.tiny import tiny_batch, tiny_state
from tests.training.traced import Traced, assert_same, past_jaxs_cache, plain_run, run


@pytest.fixture(autouse=True)
def _compiled_here():
    """A program of its own for each test, so that JAX's cache has none."""
    with past_jaxs_cache():
        yield


def test_the_second_start_traces_nothing_and_computes_the_same(tmp_path):
    path = tmp_path / "steps" / "one.step"
    first, second = Traced(), Traced()
    fresh = run(path, first)
    assert first.times == 1
    assert path.stat().st_size > 1000
    found = run(path, second)
    assert second.times == 0
    assert_same(found, fresh)
    assert_same(fresh, plain_run())
    assert set(found[1][0]) >= {"loss", "correct", "gradient_norm"}


@pytest.mark.parametrize("damage", ["cut", "other bytes", "empty", "other content"])
def test_a_damaged_file_is_made_anew(tmp_path, damage):
    path = tmp_path / "one.step"
    fresh = run(path, Traced())
    whole = path.read_bytes()
    path.write_bytes(
        {
            "cut": whole[: len(whole) // 2],
            "other bytes": bytes(len(whole)),
            "empty": b"",
            "other content": b"\x80\x04}\x94.",
        }[damage]
    )
    step = Traced()
    assert_same(run(path, step), fresh)
    assert step.times == 1
    again = Traced()
    run(path, again)
    assert again.times == 0


def test_a_program_that_jaxs_cache_has_is_kept_too(tmp_path):
    # What jaxlib 0.10 writes down of such a program lacks its code.
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_enable_compilation_cache", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "xla"))
    compilation_cache.reset_cache()
    fresh = run(tmp_path / "one.step", Traced())
    for times in (1, 0):
        step = Traced()
        assert_same(run(tmp_path / "two.step", step), fresh)
        assert step.times == times
    # And does not lie there a second time.
    assert not list((tmp_path / "xla").glob("*stored*"))
    jax.config.update("jax_compilation_cache_dir", before)


def test_another_batch_size_compiles_its_own_and_leaves_the_file(tmp_path):
    path = tmp_path / "one.step"
    run(path, Traced())
    before = path.read_bytes()
    step = Traced()
    state, losses = run(path, step, batch_size=8)
    assert step.times == 1
    assert int(state.step) == 3
    assert np.isfinite([row["loss"] for row in losses]).all()
    assert path.read_bytes() == before


def test_two_objects_compile_once(tmp_path):
    steps = Traced(), Traced()
    device = SingleDeviceSharding(jax.devices()[0])
    both = [StoredStep(step, device, tmp_path / "one.step") for step in steps]
    for stored in both:
        stored(tiny_state(optax.adam(0.1)), tiny_batch(), jax.random.key(0))
    assert [step.times for step in steps] == [1, 0]


def test_what_cannot_be_written_down_is_done_without(tmp_path, monkeypatch):
    def broken(pickled):
        raise KeyError("no such computation")

    monkeypatch.setattr(stored_program, "_slimmed", broken)
    step = Traced()
    assert_same(run(tmp_path / "one.step", step), plain_run())
    assert step.times == 1
    assert not list(tmp_path.iterdir())


def test_within_a_run_other_shapes_are_compiled_beside_it(tmp_path):
    step = Traced()
    stored = StoredStep(step, SingleDeviceSharding(jax.devices()[0]), tmp_path / "one.step")
    state = tiny_state()
    for size in (12, 8, 12, 8):
        state, _ = stored(state, tiny_batch(size), jax.random.key(0))
    assert int(state.step) == 4
    assert step.times == 2


def test_a_state_of_other_types_is_compiled_anew(tmp_path):
    path = tmp_path / "one.step"
    run(path, Traced())
    step = Traced()
    stored = StoredStep(step, SingleDeviceSharding(jax.devices()[0]), path)
    state = tiny_state(optax.adam(0.1))
    state = state.replace(step=state.step.astype(jnp.int16))
    for _ in range(2):
        state, _ = stored(state, tiny_batch(), jax.random.key(0))
    assert (int(state.step), state.step.dtype, step.times) == (2, jnp.int16, 1)


def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").write_text("")
    step = Traced()
    run(tmp_path / "file" / "one.step", step)
    assert step.times == 1


def test_only_the_newest_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_program, "KEPT", 2)
    for age in range(3):
        path = tmp_path / f"{age}.step"
        path.write_bytes(b"")
        os.utime(path, (age, age))
    run(tmp_path / "new.step", Traced())
    assert {path.name for path in tmp_path.iterdir()} == {"2.step", "new.step"}


@pytest.mark.parametrize("command", ["exit", "interrupt"])
def test_a_process_that_ends_while_a_program_is_read_ends_as_it_would(tmp_path, command):
    """XLA hands over what it has read to a thread, which must still be there."""
    path = tmp_path / "one.step"
    run(path, Traced())
    ends = {"exit": "sys.exit(2)", "interrupt": "raise KeyboardInterrupt"}[command]
    code = (
        "import sys, time, jax\n"
        "from pathlib import Path\n"
        "from rcmnet_jax.training.stored_program import _begin_to_read\n"
        "jax.devices()\n"
        f"_begin_to_read([Path({str(path)!r})])\n"
        f"_begin_to_read([Path({str(path)!r}), Path('nowhere')])\n"
        "time.sleep(float(sys.argv[1]))\n"
        f"{ends}"
    )
    for seconds in ("0", "0.005", "0.02"):
        done = subprocess.run(
            [sys.executable, "-c", code, seconds], capture_output=True, text=True, check=False
        )
        # Python ends an uncaught interrupt by the signal itself.
        assert done.returncode in (2, -2)
        assert "terminate" not in done.stderr
