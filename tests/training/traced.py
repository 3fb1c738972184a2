"""Programs in files, for the tests of them: past JAX's cache, and how often Python traced."""

import contextlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import SingleDeviceSharding

from rcmnet_jax.training.steps import Recipe, train_step
from rcmnet_jax.training.stored_program import StoredStep
from tests.training.tiny import tiny_batch, tiny_state

RECIPE = Recipe(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


@contextlib.contextmanager
def past_jaxs_cache() -> Iterator[None]:
    """What jaxlib 0.10 writes down of a program out of that cache lacks its code."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_enable_compilation_cache", True)
    compilation_cache.reset_cache()


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
