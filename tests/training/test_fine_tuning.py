"""Fine-tuning from another run: what is frozen stays, bit for bit, whatever the optimizer does."""

import re
import shutil

import jax
import numpy as np
import optax
import pytest

from configs.base import base_config
from rcmnet_jax.errors import CheckpointError, ConfigError
from rcmnet_jax.training.loop import train
from rcmnet_jax.training.optimizer import make_optimizer
from tests.training.runs import config_of, open_store, saved_arrays
from tests.training.tiny import assert_close, tiny_batch, tiny_state, tiny_step

HEAD = ("head/bias", "head/kernel")
STAGES = ("stage3", "stage4")


def test_frozen_parameters_stay_under_decay_and_momentum():
    tx = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    state = tiny_state(tx, trainable=HEAD)
    before = jax.tree.map(np.asarray, state.params)
    for seed in range(3):
        state, _ = tiny_step(state, tiny_batch(seed=seed), jax.random.key(0), trainable=HEAD)
    np.testing.assert_array_equal(state.params["conv"]["kernel"], before["conv"]["kernel"])
    assert not np.array_equal(state.params["head"]["kernel"], before["head"]["kernel"])
    # The optimizer knows nothing of the frozen part.
    assert not any("conv" in jax.tree_util.keystr(p) for p, _ in _leaves(state.opt_state))


def test_training_all_by_name_is_training_all():
    everything = (*HEAD, "conv/bias", "conv/kernel")
    plain, named = tiny_state(), tiny_state(trainable=everything)
    key = jax.random.key(0)
    plain, _ = tiny_step(plain, tiny_batch(), key)
    named, _ = tiny_step(named, tiny_batch(), key, trainable=everything)
    jax.tree.map(np.testing.assert_array_equal, plain.params, named.params)


def test_the_paper_transfer_moves_the_classifier_only(cells, finished, tmp_path):
    source, _ = finished
    changes = {
        "init.checkpoint": str(source),
        "init.trainable": ("head/.*",),
        "init.batch_norm": "frozen",
    }
    train(config_of(cells, "epochs=1", **changes), tmp_path / "run")
    before = saved_arrays(source / "checkpoints" / "best")
    after = saved_arrays(tmp_path / "run" / "checkpoints" / "best")
    assert before.keys() == after.keys()
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {"['params']['head']['bias']", "['params']['head']['kernel']"}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"init.checkpoint": "nowhere"}, CheckpointError, "holds no trained model"),
        ({"init.trainable": ("haed/.*",)}, ConfigError, "matches no parameter"),
        ({"init.batch_norm": "frosted"}, ConfigError, "one of train, frozen, reestimate"),
    ],
)
def test_mistakes_are_told(cells, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        train(config_of(cells, **changes), tmp_path / "run")


def test_another_network_does_not_fit(cells, finished, tmp_path):
    source, _ = finished
    config = config_of(cells, "model=resnet18_c", **{"init.checkpoint": str(source)})
    with pytest.raises(CheckpointError, match="leaves cannot be transferred"):
        train(config, tmp_path / "run")


def test_averages_of_frozen_parameters_stay_too(cells, finished, tmp_path):
    changes = {
        "init.checkpoint": str(finished[0]),
        "init.trainable": ("head/.*",),
        "init.batch_norm": "frozen",
        "optim.ema": 0.9,
        "train.frozen_features": "never",
    }
    train(config_of(cells, "epochs=1", **changes), tmp_path / "run")
    before = saved_arrays(finished[0] / "checkpoints" / "best")
    after = saved_arrays(tmp_path / "run" / "checkpoints" / "best")
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {"['params']['head']['bias']", "['params']['head']['kernel']"}


def test_frozen_parameters_and_micro_batches_go_together():
    whole = tiny_state(trainable=HEAD)
    parts = tiny_state(trainable=HEAD)
    key = jax.random.key(0)
    whole, _ = tiny_step(whole, tiny_batch(), key, trainable=HEAD)
    parts, _ = tiny_step(parts, tiny_batch(), key, trainable=HEAD, accumulate=3)
    assert_close(whole.params, parts.params, rtol=1e-5, atol=1e-6)


def test_gradual_unfreezing_lets_each_part_wait_for_its_epoch(cells, finished, tmp_path):
    source, _ = finished
    changes = {
        "init.checkpoint": str(source),
        "init.trainable": ("head/.*",),
        "init.unfreeze": ("stage4/.*@1", "stage3/.*@2"),
        # The barely trained source diverges at more.
        "optim.learning_rate": 1e-4,
        "init.batch_norm": "frozen",
    }
    before = saved_arrays(source / "checkpoints" / "best")
    for epochs, expected in ((1, {"head"}), (2, {"head", "stage4"}), (3, {"head", *STAGES})):
        workdir = tmp_path / str(epochs)
        train(config_of(cells, f"epochs={epochs}", **changes), workdir)
        after = saved_arrays(workdir / "checkpoints" / "last")
        params = {path: array for path, array in after.items() if path.startswith("['params']")}
        moved = {
            path.split("'")[3]
            for path, array in params.items()
            if not np.array_equal(array, before[path])
        }
        assert moved == expected


def test_momentum_and_decay_do_not_run_ahead_of_unfreezing():
    waiting = ("conv/bias", "conv/kernel")
    config = base_config().optim
    tx = make_optimizer(config, lambda step: 0.1, starts=dict.fromkeys(waiting, 2))
    everything = (*HEAD, *waiting)
    state = tiny_state(tx, trainable=everything)
    before = jax.tree.map(np.asarray, state.params)
    settings = {"trainable": everything, "waiting": waiting}
    for seed in range(2):
        state, _ = tiny_step(state, tiny_batch(seed=seed), jax.random.key(0), **settings)
    jax.tree.map(np.testing.assert_array_equal, state.params["conv"], before["conv"])
    # The first step after waiting is the first of a fresh optimizer at these parameters.
    fresh = tiny_state(make_optimizer(config, lambda step: 0.1), trainable=waiting)
    fresh = fresh.replace(params=jax.tree.map(np.asarray, state.params), step=state.step)
    state, _ = tiny_step(state, tiny_batch(seed=5), jax.random.key(0), trainable=everything)
    fresh, _ = tiny_step(fresh, tiny_batch(seed=5), jax.random.key(0), trainable=waiting)
    assert_close(state.params["conv"], fresh.params["conv"], rtol=1e-6)
    assert not np.array_equal(state.params["conv"]["kernel"], before["conv"]["kernel"])


def test_learning_rates_by_group():
    config = base_config().optim
    everything = {"head/bias": 0.5, "head/kernel": 0.5}
    plain = tiny_state(make_optimizer(config, lambda step: 0.1))
    groups = tiny_state(make_optimizer(config, lambda step: 0.1, factors=everything))
    before = jax.tree.map(np.asarray, plain.params)
    plain, _ = tiny_step(plain, tiny_batch(), jax.random.key(0))
    groups, _ = tiny_step(groups, tiny_batch(), jax.random.key(0))
    assert_close(plain.params["conv"], groups.params["conv"], rtol=1e-6)
    for name in ("bias", "kernel"):
        moved, half = (
            np.asarray(s.params["head"][name]) - before["head"][name] for s in (plain, groups)
        )
        np.testing.assert_allclose(half, moved / 2, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init.unfreeze": ("stage4/.*",)}, "not of the form 'stage4/.*@5'"),
        ({"init.unfreeze": ("stage4/.*@0",)}, "not of the form"),
        ({"init.unfreeze": ("stage9/.*@2",)}, "matches no parameter"),
        ({"init.unfreeze": ("head/.*@2",), "init.trainable": ("head/.*",)}, "in one of them"),
        ({"optim.lr_factors": ("head/.*:2",)}, "not of the form 'stage.*=0.1'"),
        ({"optim.lr_factors": ("haed/.*=2",)}, "matches no parameter"),
    ],
)
def test_wrong_rules_are_told(cells, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        train(config_of(cells, **changes), tmp_path / "run")


def test_other_classes_need_a_fresh_classifier(finished, tmp_path, write_cell_folder):
    two = write_cell_folder(tmp_path / "cells", per_class=8)
    shutil.rmtree(two / "pale")
    changes = {"init.checkpoint": str(finished[0]), "init.keep_fresh": ("params/head/bias",)}
    with pytest.raises(
        CheckpointError, match=r"head/kernel is \(64, 3\), not \(64, 2\).*keep_fresh"
    ):
        train(config_of(two, **changes), tmp_path / "run")
    # As it is by default, the classifier starts fresh and the rest fits.
    config = config_of(two, "epochs=1", **{"init.checkpoint": str(finished[0])})
    assert train(config, tmp_path / "fresh")["steps"] == 1


def test_another_size_and_another_network_are_said_and_tables_are_resized(cells, tmp_path, caplog):
    caplog.set_level("INFO")
    changes = {"data.height": 64, "data.width": 64, "train.batch_size": 16}
    train(config_of(cells, "model=resnet18_m,epochs=1", **changes), tmp_path / "source")
    smaller = {"init.checkpoint": str(tmp_path / "source"), "init.trainable": ("head/.*",)}
    train(config_of(cells, "model=resnet18_m,epochs=1", **smaller), tmp_path / "target")
    assert "trained at 64x64 pixels, this run is at 32x32" in caplog.text
    meta = open_store(tmp_path / "target" / "checkpoints" / "best").newest_meta()
    assert {path.split("/")[-1] for path in meta["transfer"]["resized"]} == {
        "rel_height",
        "rel_width",
    }
    assert f"from the weights of {tmp_path / 'source'}" in caplog.text
    assert "have no place" not in caplog.text
    train(config_of(cells, "epochs=1", **smaller), tmp_path / "without_attention")
    assert "have no place in a resnet18 (params/bot/" in caplog.text


def _leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)
