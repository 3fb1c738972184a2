"""Normalisation: PyTorch's constants, float32 statistics, and the group option."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

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


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_batch_norm_is_that_of_flax_values_statistics_and_gradients(train, dtype):
    ours = Norm(dtype=dtype)
    theirs = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype)
    rng = np.random.default_rng(2)
    x, g = jnp.asarray(X, dtype), jnp.asarray(rng.standard_normal(X.shape), dtype)
    draw = [rng.standard_normal(48).astype(np.float32) for _ in range(3)]
    params = {"scale": 1 + 0.3 * draw[0], "bias": draw[1]}
    stats = {"mean": 3 + draw[2], "var": np.exp(draw[0])}

    def ours_of(params, x):
        variables = {"params": {"bn": params}, "batch_stats": {"bn": stats}}
        y, new = ours.apply(variables, x, train=train, mutable=["batch_stats"])
        return y, new["batch_stats"]["bn"]

    def theirs_of(params, x):
        variables = {"params": params, "batch_stats": stats}
        y, new = theirs.apply(variables, x, mutable=["batch_stats"])
        return y, new["batch_stats"]

    @jax.jit
    def both(params, x, g):
        return [
            (lambda y, pull, new: (y, new, pull(g)))(*jax.vjp(f, params, x, has_aux=True))
            for f in (ours_of, theirs_of)
        ]

    mine, reference = both(params, x, g)
    # bfloat16 has eight bits; the gradients of the parameters sum over 120 values.
    tolerance = 2e-5 if dtype == jnp.float32 else 2e-2
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(reference), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def test_the_variables_are_named_as_those_of_flax():
    variables = Norm().init(jax.random.key(0), X, train=False)
    theirs = nn.BatchNorm(use_running_average=True).init(jax.random.key(0), X)
    assert jax.tree.structure(variables["params"]["bn"]) == jax.tree.structure(theirs["params"])
    assert jax.tree.structure(variables["batch_stats"]["bn"]) == jax.tree.structure(
        theirs["batch_stats"]
    )


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
