"""Parting parameters into what trains and what does not."""

import chex
import jax.numpy as jnp
import pytest

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.transfer.freezing import join_params, part_params, trainable_paths

PARAMS = {
    "stem": {"conv": {"kernel": jnp.zeros(1)}},
    "stage1": {"conv": {"kernel": jnp.ones(2)}},
    "head": {"kernel": jnp.ones(3), "bias": jnp.zeros(4)},
}


def test_patterns_choose_whole_paths():
    assert trainable_paths(PARAMS, ["head/.*"]) == ("head/bias", "head/kernel")
    assert trainable_paths(PARAMS, [".*/kernel", "head/bias"]) == (
        "head/bias",
        "head/kernel",
        "stage1/conv/kernel",
        "stem/conv/kernel",
    )


@pytest.mark.parametrize("pattern", ["head", "tail/.*", "("])
def test_a_pattern_that_matches_nothing_is_refused(pattern):
    with pytest.raises(ConfigError, match=r"init\.trainable"):
        trainable_paths(PARAMS, [pattern])


@pytest.mark.parametrize("trainable", [None, (), ("head/kernel",), ("stage1/conv/kernel",)])
def test_joining_undoes_parting(trainable):
    trains, rests = part_params(PARAMS, trainable)
    chex.assert_trees_all_equal(join_params(trains, rests), PARAMS)


def test_the_parts_share_nothing():
    trains, rests = part_params(PARAMS, ("head/kernel",))
    assert set(trains) == {"head"}
    assert set(trains["head"]) == {"kernel"}
    assert set(rests["head"]) == {"bias"}
    assert set(rests) == {"stem", "stage1", "head"}
