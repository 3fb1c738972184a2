"""Max-pooling by every backend's formulation against XLA's own, values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rcmnet_jax.kernels.max_pool import max_pool
from tests.kernels.compare import assert_close, fitting, noise, value_and_gradients

# (size, stride, padding).
POOLS = ((2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0))


@pytest.mark.parametrize(("size", "stride", "padding"), POOLS)
def test_max_pool(rules, size, stride, padding):
    # All values are different, so the gradient has one place to go.
    inputs = [noise(2, *shape, 3) for shape in fitting(size, padding)[::2]]
    pads = ((padding, padding), (padding, padding))

    def ours(x):
        return max_pool(x, size=size, stride=stride, padding=padding)

    def reference(x):
        return nn.max_pool(x, (size, size), (stride, stride), pads)

    @jax.jit
    def both(inputs):
        return [[value_and_gradients(f, x) for f in (ours, reference)] for x in inputs]

    assert inputs
    for (y, gradient), (y_reference, gradient_reference) in both(inputs):
        np.testing.assert_array_equal(y, y_reference)
        jax.tree.map(assert_close, gradient, gradient_reference)


def test_max_pool_never_returns_the_padding(rules):
    x = -1 - np.abs(noise(1, 5, 5, 2))
    assert np.isfinite(max_pool(x, size=3, stride=2, padding=1)).all()


def test_max_pool_lets_nan_through(rules):
    x = noise(1, 6, 6, 2)
    x[0, 2, 3, 1] = np.nan
    missing = np.isnan(max_pool(x, size=3, stride=2, padding=1))
    # XLA's own windowed maximum, left to TPU, drops it on CPU.
    if rules != "tpu":
        assert missing[..., 1].any()
    assert not missing[..., 0].any()


def test_ties_in_max_pool_share_the_gradient_without_losing_any(rules):
    gradient = jax.grad(lambda x: max_pool(x, size=2, stride=2).sum())(jnp.ones((1, 4, 4, 1)))
    np.testing.assert_allclose(gradient.sum(), 4, rtol=1e-6)
