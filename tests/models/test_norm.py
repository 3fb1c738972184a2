"""Normalisation: PyTorch's constants, float32 statistics, and the group option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.models import Norm

X = np.random.default_rng(0).normal(3, 2, (4, 5, 6, 48)).astype(np.float32)


def test_batch_norm_trains_on_the_batch_and_moves_its_statistics_by_a_tenth():
    layer = Norm()
    variables = layer.init(jax.random.key(0), X, train=False)
    y, updates = layer.apply(variables, X, train=True, mutable=["batch_stats"])
    mean, var = X.mean((0, 1, 2)), X.var((0, 1, 2))
    expected = (X - mean[None, None, None]) / np.sqrt(var + 1e-5)[None, None, None]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(updates["batch_stats"]["bn"]["mean"], 0.1 * mean, rtol=1e-5)
    # The biased variance, where PyTorch keeps the unbiased one.
    np.testing.assert_allclose(updates["batch_stats"]["bn"]["var"], 0.9 + 0.1 * var, rtol=1e-5)


def test_batch_norm_evaluates_with_running_statistics():
    layer = Norm()
    variables = layer.init(jax.random.key(0), X, train=False)
    np.testing.assert_allclose(layer.apply(variables, X, train=False), X / np.sqrt(1 + 1e-5), 1e-6)


@pytest.mark.parametrize(("channels", "groups"), [(48, 24), (64, 32), (8, 8), (7, 7), (512, 32)])
def test_group_norm_normalises_each_image_alone(channels, groups):
    x = np.random.default_rng(1).normal(3, 2, (2, 3, 4, channels)).astype(np.float32)
    layer = Norm("group")
    variables = layer.init(jax.random.key(0), x, train=True)
    assert set(variables) == {"params"}
    y = layer.apply(variables, x, train=True)
    np.testing.assert_array_equal(y, layer.apply(variables, x, train=False))
    grouped = x.reshape(2, 12, groups, channels // groups)
    mean = grouped.mean((1, 3), keepdims=True)
    expected = (grouped - mean) / np.sqrt(grouped.var((1, 3), keepdims=True) + 1e-5)
    np.testing.assert_allclose(y, expected.reshape(x.shape), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["batch", "group"])
def test_bfloat16_keeps_parameters_and_statistics_in_float32(kind):
    layer = Norm(kind, dtype=jnp.bfloat16)
    x = jnp.asarray(X, jnp.bfloat16)
    y, variables = layer.init_with_output(jax.random.key(0), x, train=True)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}


def test_unknown_kind():
    with pytest.raises(ValueError, match="'layer' is not one of"):
        Norm("layer").init(jax.random.key(0), X, train=True)
