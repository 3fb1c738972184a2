"""Fine-tuning from another run: what is frozen stays, bit for bit, whatever the optimizer does."""

import jax
import numpy as np
import optax
import pytest

from rcmnet_jax.errors import CheckpointError, ConfigError
from rcmnet_jax.training.loop import train
from rcmnet_jax.training.steps import train_step
from tests.training.runs import config_of, saved_arrays
from tests.training.tiny import recipe_of, tiny_batch, tiny_state

HEAD = ("head/bias", "head/kernel")


def test_frozen_parameters_stay_under_decay_and_momentum():
    tx = optax.chain(optax.add_decayed_weights(0.1), optax.sgd(0.1, momentum=0.9))
    state = tiny_state(tx, trainable=HEAD)
    before = jax.tree.map(np.asarray, state.params)
    recipe = recipe_of(trainable=HEAD)
    for seed in range(3):
        state, _ = train_step(state, tiny_batch(seed=seed), jax.random.key(0), recipe=recipe)
    np.testing.assert_array_equal(state.params["conv"]["kernel"], before["conv"]["kernel"])
    assert not np.array_equal(state.params["head"]["kernel"], before["head"]["kernel"])
    # The optimizer knows nothing of the frozen part.
    assert not any("conv" in jax.tree_util.keystr(p) for p, _ in _leaves(state.opt_state))


def test_training_all_by_name_is_training_all():
    everything = (*HEAD, "conv/bias", "conv/kernel")
    plain, named = tiny_state(), tiny_state(trainable=everything)
    key = jax.random.key(0)
    plain, _ = train_step(plain, tiny_batch(), key, recipe=recipe_of())
    named, _ = train_step(named, tiny_batch(), key, recipe=recipe_of(trainable=everything))
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


def _leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)
