"""Which programs are kept, and under what names: found where they fit, and nowhere else."""

import os

import jax
import numpy as np
import pytest

from rcmnet_jax.training import program_store, stored_program
from rcmnet_jax.training.experiment import build_experiment
from rcmnet_jax.training.program_store import (
    load_ahead,
    remember_programs,
    step_path,
    store_folder,
)
from rcmnet_jax.training.state import initializer
from tests.training.command import Command, assert_calm, assert_same_run
from tests.training.runs import config_of
from tests.training.tiny import TinyNet
from tests.training.traced import Traced, assert_same, past_jaxs_cache, run


@pytest.fixture(autouse=True)
def _compiled_here(monkeypatch):
    """A program of its own for each test, so that JAX's cache has none."""
    monkeypatch.delenv(program_store.VARIABLE)
    with past_jaxs_cache():
        yield


def test_the_last_step_of_a_config_is_loaded_ahead(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(program_store, "store_folder", lambda: tmp_path)
    path = tmp_path / "one.step"
    fresh = run(path, Traced())
    remember_programs([path], config_of(cells))
    load_ahead(config_of(cells, seed=5))
    assert list(stored_program._ahead) == [path]
    step = Traced()
    assert_same(run(path, step), fresh)
    assert step.times == 0
    assert not stored_program._ahead


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
    assert not stored_program._ahead


def test_all_programs_of_a_run_are_loaded_ahead_in_its_order(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(program_store, "store_folder", lambda: tmp_path)
    paths = [tmp_path / name for name in ("b.init", "a.step")]
    for path in paths:
        run(path, Traced())
    remember_programs(paths, config_of(cells))
    load_ahead(config_of(cells))
    assert list(stored_program._ahead) == paths
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
    assert list(stored_program._ahead) == paths


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
        monkeypatch.setattr(stored_program, "KEPT", 1)
        stored_program._drop_oldest(newer)
        assert list(tmp_path.iterdir()) == [newer]
    changes = {"another config": {"optim.momentum": 0.5}, "other data": {"data.width": 40}}
    load_ahead(config_of(cells, **changes.get(why, {})))
    assert not stored_program._ahead


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
