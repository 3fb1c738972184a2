"""The step kept on disk: found again, computing the same, and never in the way."""

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

from rcmnet_jax.training import program_store
from rcmnet_jax.training.experiment import build_experiment
from rcmnet_jax.training.program_store import (
    StoredStep,
    load_ahead,
    remember_programs,
    step_path,
    store_folder,
)
from rcmnet_jax.training.state import initializer
from rcmnet_jax.training.steps import Recipe, train_step
from tests.training.command import Command, assert_calm, assert_same_run
from tests.training.runs import config_of
from tests.training.tiny import TinyNet, tiny_batch, tiny_state


@pytest.fixture(autouse=True)
def _compiled_here(monkeypatch):
    """A program of its own for each test, so that JAX's cache has none."""
    monkeypatch.delenv(program_store.VARIABLE)
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


RECIPE = Recipe(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


class Traced:
    """The tiny network's step, and how often Python ran it."""

    def __init__(self):
        self.times = 0

    def __call__(self, state, batch, key):
        self.times += 1
        return train_step(state, batch, key, recipe=RECIPE)


def run(path, step, *, batch_size=12, steps=3):
    """The state after some steps, and all their losses."""
    stored = StoredStep(step, SingleDeviceSharding(jax.devices()[0]), path)
    state, losses = tiny_state(optax.adam(0.1)), []
    for number in range(steps):
        batch = jax.tree.map(jnp.asarray, tiny_batch(batch_size, seed=number))
        state, metrics = stored(state, batch, jax.random.key(0))
        losses.append({name: float(value) for name, value in metrics.items()})
    return state, losses


def assert_same(first, second):
    jax.tree.map(np.testing.assert_array_equal, first[0].params, second[0].params)
    jax.tree.map(np.testing.assert_array_equal, first[0].opt_state, second[0].opt_state)
    assert int(first[0].step) == int(second[0].step)
    assert first[1] == second[1]


def plain_run(steps=3):
    """Without any store."""
    step = jax.jit(lambda *a: train_step(*a, recipe=RECIPE))
    state, losses = tiny_state(optax.adam(0.1)), []
    for number in range(steps):
        state, metrics = step(state, tiny_batch(seed=number), jax.random.key(0))
        losses.append({name: float(value) for name, value in metrics.items()})
    return state, losses


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

    monkeypatch.setattr(program_store, "_slimmed", broken)
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
    monkeypatch.setattr(program_store, "KEPT", 2)
    for age in range(3):
        path = tmp_path / f"{age}.step"
        path.write_bytes(b"")
        os.utime(path, (age, age))
    run(tmp_path / "new.step", Traced())
    assert {path.name for path in tmp_path.iterdir()} == {"2.step", "new.step"}


def test_the_last_step_of_a_config_is_loaded_ahead(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(program_store, "store_folder", lambda: tmp_path)
    path = tmp_path / "one.step"
    fresh = run(path, Traced())
    remember_programs([path], config_of(cells))
    load_ahead(config_of(cells, seed=5))
    assert list(program_store._ahead) == [path]
    step = Traced()
    assert_same(run(path, step), fresh)
    assert step.times == 0
    assert not program_store._ahead


def test_a_step_loaded_ahead_that_is_another_one_is_not_taken(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(program_store, "store_folder", lambda: tmp_path)
    fresh = run(tmp_path / "one.step", Traced())
    remember_programs([tmp_path / "one.step"], config_of(cells))
    load_ahead(config_of(cells))
    step = Traced()
    # The data has changed, say.
    assert_same(run(tmp_path / "two.step", step), fresh)
    assert step.times == 1
    remember_programs([tmp_path / "two.step"], config_of(cells))
    assert not program_store._ahead


def test_all_programs_of_a_run_are_loaded_ahead_in_its_order(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(program_store, "store_folder", lambda: tmp_path)
    paths = [tmp_path / name for name in ("b.init", "a.step")]
    for path in paths:
        run(path, Traced())
    remember_programs(paths, config_of(cells))
    load_ahead(config_of(cells))
    assert list(program_store._ahead) == paths
    for path in paths:
        step = Traced()
        run(path, step)
        assert step.times == 0


def test_what_is_written_down_of_a_run_outlives_its_first_program(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(program_store, "store_folder", lambda: tmp_path)
    paths = [tmp_path / name for name in ("b.init", "a.step")]
    # In the order of a first run: before either is there.
    remember_programs(paths, config_of(cells))
    for path in paths:
        run(path, Traced())
    # Of other rates, another length and a fold the program is likely to be the same.
    likely = {"optim.learning_rate": 0.3, "data.split.fold": 2, "train.repeats": 3}
    load_ahead(config_of(cells, "epochs=3", **likely))
    assert list(program_store._ahead) == paths


@pytest.mark.parametrize("command", ["exit", "interrupt"])
def test_a_process_that_ends_while_a_program_is_read_ends_as_it_would(tmp_path, command):
    """XLA hands over what it has read to a thread, which must still be there."""
    path = tmp_path / "one.step"
    run(path, Traced())
    ends = {"exit": "sys.exit(2)", "interrupt": "raise KeyboardInterrupt"}[command]
    code = (
        "import sys, time, jax\n"
        "from pathlib import Path\n"
        "from rcmnet_jax.training.program_store import _begin_to_read\n"
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


def test_initial_weights_come_from_disk_with_their_shapes(tmp_path, monkeypatch):
    monkeypatch.setattr(program_store, "store_folder", lambda: tmp_path)
    traces = 0

    class CountedNet(TinyNet):
        # Other packages' networks are not kept.
        __module__ = "rcmnet_jax.models.of_this_test"

        def __call__(self, x, *, train):
            nonlocal traces
            traces += 1
            return super().__call__(x, train=train)

    def drawn(model=CountedNet):
        draw = initializer.__wrapped__(model(), (1, 6, 6, 3))
        return draw.eval_shape(jax.random.key(3)), draw(jax.random.key(3))

    first_shapes, first = drawn()
    before = traces
    shapes, second = drawn()
    assert traces == before > 0
    assert len(list(tmp_path.glob("*.init"))) == 1
    jax.tree.map(np.testing.assert_array_equal, second, first)
    drawn(TinyNet)
    assert len(list(tmp_path.glob("*.init"))) == 1
    monkeypatch.setattr(program_store, "store_folder", lambda: None)
    _, plain = drawn()
    jax.tree.map(np.testing.assert_array_equal, plain, first)
    for told in (first_shapes, shapes):
        assert jax.tree.structure(told) == jax.tree.structure(first)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), told) == jax.tree.map(
            lambda a: (a.shape, a.dtype), first
        )


@pytest.mark.parametrize("why", ["another config", "other data", "no store", "dropped"])
def test_nothing_to_load_ahead(cells, tmp_path, monkeypatch, why):
    folder = None if why == "no store" else tmp_path
    monkeypatch.setattr(program_store, "store_folder", lambda: folder)
    path = tmp_path / "one.step"
    path.write_bytes(b"")
    remember_programs([path], config_of(cells))
    if why == "dropped":
        os.utime(path, (1, 1))
        newer = tmp_path / "two.step"
        newer.write_bytes(b"")
        monkeypatch.setattr(program_store, "KEPT", 1)
        program_store._drop_oldest(newer)
        assert list(tmp_path.iterdir()) == [newer]
    changes = {"another config": {"optim.momentum": 0.5}, "other data": {"data.width": 40}}
    load_ahead(config_of(cells, **changes.get(why, {})))
    assert not program_store._ahead


def test_the_name_says_what_the_program_is_made_from(cells, tmp_path, monkeypatch):
    def name(arg="", kind="train_step", means=None, **changes):
        experiment = build_experiment(config_of(cells, arg, **changes))
        if means is not None:
            means.append(experiment.recipe.mean)
        return step_path(tmp_path, experiment, experiment.recipe, kind)

    plain = name()
    assert name() == name(**{"seed": 5, "log.every_steps": 3}) == plain
    # Given, too: the learning rates, whatever makes them.
    assert name("epochs=3", **{"train.early_stop": 2}) == plain
    assert name(**{"optim.learning_rate": 0.5, "optim.schedule": "constant"}) == plain
    # Weights come from elsewhere into the same step, but what of them trains is in it.
    assert name(**{"init.keep_fresh": ("head/kernel",)}) == plain
    assert name(**{"init.trainable": ("head/.*",)}) != plain
    assert name(**{"init.batch_norm": "frozen"}) != plain
    # Given, not built in: the statistics of the images.
    means = []
    names = {
        name(**{"data.split.folds": 3, "data.split.fold": fold}, means=means) for fold in range(3)
    }
    assert len(names) == 1
    assert len(set(means)) == 3
    others = {
        name(**{"optim.momentum": 0.5}),
        name(**{"train.batch_size": 4}),
        name(kind="train_steps_on_device"),
    }
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=2")
    others.add(name())
    monkeypatch.undo()
    surroundings = program_store._surroundings()
    for key in surroundings:
        changed = {**surroundings, key: "other"}
        with monkeypatch.context() as patch:
            patch.setattr(program_store, "_surroundings", lambda changed=changed: changed)
            others.add(name())
    with jax.default_matmul_precision("highest"), jax.debug_nans(True):
        others.add(name())
    assert plain not in others
    assert len(others) == 5 + len(surroundings)


def test_where_there_is_none(monkeypatch):
    # The tests have two devices.
    assert store_folder() is None
    monkeypatch.setattr(program_store.jax, "device_count", lambda: 1)
    assert store_folder().name == "steps"
    monkeypatch.setenv("RCMNET_STORED_STEP", "off")
    assert store_folder() is None


@pytest.mark.slow
def test_a_run_on_a_stored_step_is_the_same_run(cells, tmp_path, monkeypatch):
    monkeypatch.setenv("RCMNET_COMPILE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))
    command = Command(cells)
    for workdir in (tmp_path / "first", tmp_path / "second"):
        status, _, err = command.finish(workdir, "--config.train.epochs=1")
        assert status == 0, err
        assert_calm(err)
        for kind in ("init", "step"):
            assert len(list((tmp_path / "cache" / "steps").glob(f"*.{kind}"))) == 1
    assert_same_run(tmp_path / "second", tmp_path / "first")
    # And the same as without: the last bit included.
    monkeypatch.setenv("RCMNET_STORED_STEP", "off")
    status, _, err = command.finish(tmp_path / "plain", "--config.train.epochs=1")
    assert status == 0, err
    assert_same_run(tmp_path / "plain", tmp_path / "first")
