"""Momentum SGD against PyTorch's formula by hand, and the schedule at its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.base import base_config
from rcmnet_jax.errors import ConfigError
from rcmnet_jax.training.optimizer import kernels_only, make_optimizer, make_schedule
from tests.training.tiny import tiny_state


def optim_of(**changes):
    optim = base_config().optim
    optim.update(changes)
    return optim


def test_two_steps_follow_sgd_with_decay_in_the_gradient_and_nesterov_momentum():
    optim = optim_of(learning_rate=0.1, schedule="constant", warmup_epochs=0.0, weight_decay=0.01)
    tx = make_optimizer(optim, make_schedule(optim, total_steps=9, steps_per_epoch=3))
    kernel, bias = np.float32([1.0, -2.0]), np.float32([0.5])
    params = {"conv": {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)}}
    state = tx.init(params)
    velocity = {"kernel": np.zeros(2), "bias": np.zeros(1)}
    for gradient in (np.float32([0.3, 0.1]), np.float32([-0.2, 0.4])):
        gradients = {"conv": {"kernel": jnp.asarray(gradient), "bias": jnp.asarray(gradient[:1])}}
        updates, state = tx.update(gradients, state, params)
        params = jax.tree.map(lambda p, u: p + u, params, updates)
        # torch.optim.SGD: d = g + wd * p; v = 0.9 v + d; p -= lr (d + 0.9 v).
        decayed = gradient + 0.01 * kernel
        velocity["kernel"] = 0.9 * velocity["kernel"] + decayed
        kernel = kernel - 0.1 * (decayed + 0.9 * velocity["kernel"])
        velocity["bias"] = 0.9 * velocity["bias"] + gradient[:1]
        bias = bias - 0.1 * (gradient[:1] + 0.9 * velocity["bias"])
    np.testing.assert_allclose(np.asarray(params["conv"]["kernel"]), kernel, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(params["conv"]["bias"]), bias, rtol=1e-6)


@pytest.mark.parametrize(
    "groups", [{}, {"factors": {"head/kernel": 0.1}}, {"starts": {"head/kernel": 2}}]
)
def test_a_rate_that_is_given_takes_the_place_of_the_schedule(groups):
    optim = optim_of(clip_norm=0.5)
    schedule = make_schedule(optim, total_steps=9, steps_per_epoch=3)
    params = tiny_state().params
    gradients = jax.tree.map(lambda p: jnp.cos(100 * p), params)
    tx, other = (
        make_optimizer(optim, schedule, **groups),
        make_optimizer(optim, lambda _: 7.0, **groups),
    )
    scheduled, given = tx.init(params), other.init(params)
    for step in range(5):
        updates, scheduled = tx.update(gradients, scheduled, params)
        same, given = other.update(gradients, given, params, learning_rate=schedule(step))
        jax.tree.map(np.testing.assert_array_equal, same, updates)
        jax.tree.map(np.testing.assert_array_equal, given, scheduled)
    assert any(np.any(leaf) for leaf in jax.tree.leaves(updates))


def test_on_cpu_the_steps_are_those_of_optax(monkeypatch):
    optim = optim_of(schedule="constant", warmup_epochs=0.0)
    params = tiny_state().params
    gradients = jax.tree.map(lambda p: jnp.cos(100 * p), params)
    results = []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda name=backend: name)
        tx = make_optimizer(optim, make_schedule(optim, total_steps=9, steps_per_epoch=3))
        _, state = tx.update(gradients, tx.init(params), params)
        results.append(tx.update(gradients, state, params))
    jax.tree.map(np.testing.assert_array_equal, *results)


def test_only_kernels_decay():
    params = {
        "stage1": {"bn": {"scale": 1, "bias": 2}, "conv": {"kernel": 3}},
        "bot": {"row_table": 4},
        "head": {"kernel": 5, "bias": 6},
    }
    assert kernels_only(params) == {
        "stage1": {"bn": {"scale": False, "bias": False}, "conv": {"kernel": True}},
        "bot": {"row_table": False},
        "head": {"kernel": True, "bias": False},
    }


def test_clipping_comes_before_decay_and_bounds_the_update():
    optim = optim_of(
        learning_rate=1.0,
        schedule="constant",
        warmup_epochs=0.0,
        weight_decay=0.0,
        clip_norm=1.0,
        momentum=0.0,
        nesterov=False,
    )
    tx = make_optimizer(optim, make_schedule(optim, total_steps=9, steps_per_epoch=3))
    params = tiny_state().params
    gradients = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params)
    updates, _ = tx.update(gradients, tx.init(params), params)
    norm = np.sqrt(sum(float((u**2).sum()) for u in jax.tree.leaves(updates)))
    np.testing.assert_allclose(norm, 1.0, rtol=1e-5)


def test_warm_up_rises_from_zero_and_cosine_ends_at_zero():
    schedule = make_schedule(optim_of(learning_rate=0.2), total_steps=100, steps_per_epoch=10)
    assert float(schedule(0)) == 0
    np.testing.assert_allclose(float(schedule(5)), 0.1, rtol=1e-6)
    np.testing.assert_allclose(float(schedule(10)), 0.2, rtol=1e-6)
    np.testing.assert_allclose(float(schedule(55)), 0.1, rtol=1e-5)
    assert float(schedule(99)) < 1e-4
    assert abs(float(schedule(100))) < 1e-7


def test_a_constant_schedule_stays_after_its_warm_up():
    optim = optim_of(learning_rate=0.2, schedule="constant", warmup_epochs=0.5)
    schedule = make_schedule(optim, total_steps=100, steps_per_epoch=10)
    assert [round(float(schedule(s)), 6) for s in (0, 5, 50, 99)] == [0.0, 0.2, 0.2, 0.2]


def test_without_warm_up_training_starts_at_the_peak():
    schedule = make_schedule(optim_of(warmup_epochs=0.0), total_steps=10, steps_per_epoch=5)
    np.testing.assert_allclose(float(schedule(0)), 0.05, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schedule": "linear"}, "optim.schedule"),
        ({"learning_rate": 0.0}, "optim.learning_rate"),
        ({"warmup_epochs": 10.0}, "optim.warmup_epochs"),
        ({"warmup_epochs": -1.0}, "optim.warmup_epochs"),
        ({"momentum": 1.0}, "optim.momentum"),
        ({"weight_decay": -1e-4}, "optim.weight_decay"),
        ({"clip_norm": -1.0}, "optim.clip_norm"),
    ],
)
def test_impossible_values_are_refused_by_name(changes, named):
    optim = optim_of(**changes)
    with pytest.raises(ConfigError, match=named):
        make_optimizer(optim, make_schedule(optim, total_steps=100, steps_per_epoch=10))
