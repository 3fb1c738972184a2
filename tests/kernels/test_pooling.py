"""Adaptive average pooling against a slow loop, and maxima whose gradients survive jit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.kernels.pooling import adaptive_average_pool, max_over


@pytest.mark.parametrize("size", [1, 6, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 2), (6, 7), (11, 5), (14, 12), (13, 20)])
def test_bins_are_those_of_torch(height, width, size):
    x = np.random.default_rng(0).standard_normal((2, height, width, 3)).astype(np.float32)
    expected = np.zeros((2, size, size, 3))
    for i, j in np.ndindex(size, size):
        rows = slice(math.floor(i * height / size), math.ceil((i + 1) * height / size))
        columns = slice(math.floor(j * width / size), math.ceil((j + 1) * width / size))
        expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    y = adaptive_average_pool(x, size=size)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axes", [(1, 2), (3,)])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_over_has_the_values_of_max(axes, dtype):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 5, 4, 6)), dtype)
    y = max_over(x, axes)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, x.max(axes))


@pytest.mark.parametrize("axes", [(1, 2), (3,)])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e20])
def test_max_over_sends_the_gradient_to_the_maximum(axes, scale):
    x = scale * np.random.default_rng(1).standard_normal((2, 5, 4, 6)).astype(np.float32)
    cotangent = np.random.default_rng(2).standard_normal(x.max(axes).shape).astype(np.float32)
    gradient = jax.jit(jax.grad(lambda x: (max_over(x, axes) * cotangent).sum()))(x)
    expected = (x == x.max(axes, keepdims=True)) * np.expand_dims(cotangent, axes)
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize("offset", [0.0, -3.0, 2.5])
def test_ties_share_the_gradient(offset):
    gradient = jax.grad(lambda x: max_over(x, (1,)).sum())(jnp.full((3, 4), offset))
    np.testing.assert_allclose(gradient, np.full((3, 4), 0.25))


def test_an_entry_off_by_rounding_still_gets_its_gradient():
    """What compilation does to `jax.numpy.max`: the forward maximum is an ulp off the entries."""
    x = jnp.array([[0.3, 1.0, -0.5]])
    _, pull = jax.vjp(lambda x: max_over(x, (1,)), x)
    maximum = jnp.nextafter(x.max(1, keepdims=True), jnp.float32(2))
    pull = jax.tree.map(lambda a: maximum if a.shape == (1, 1) else a, pull)
    np.testing.assert_array_equal(pull(jnp.array([2.0]))[0], [[0.0, 2.0, 0.0]])
