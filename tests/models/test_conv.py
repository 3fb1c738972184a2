"""Every formulation of convolution and max-pooling against XLA's own, values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rcmnet_jax.models import conv
from rcmnet_jax.models.conv import Conv, conv2d, max_pool, patch_conv2d, plain_conv2d

# Heights and widths from 1 to 9, odd and even, square and not.
SIZES = ((1, 1), (2, 2), (2, 3), (3, 1), (4, 4), (5, 7), (6, 8), (7, 6), (8, 9), (9, 5))
# (kernel, stride, padding), the networks' own among them.
CONVOLUTIONS = (
    *((1, stride, 0) for stride in (1, 2)),
    (3, 1, 0),
    *((3, stride, 1) for stride in (1, 2)),
    *((5, stride, 2) for stride in (1, 2)),
    *((7, stride, 3) for stride in (1, 2)),
    (11, 4, 2),
)
POOLS = ((2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1))
# Nine channels are more than the image's three, from where small maps are treated apart.
CHANNELS_IN, CHANNELS_OUT = 9, 5


# Patches of large kernels are many slices, and compile slowly: fewer sizes there.
EVERY = {5: 2, 7: 3, 11: 4}


def fitting(kernel, padding):
    sizes = SIZES[:: EVERY.get(kernel, 1)]
    return [size for size in sizes if min(size) + 2 * padding >= kernel]


def noise(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def assert_close(actual, desired):
    """Relative to the largest magnitude: sums of up to a thousand products in another order."""
    desired = np.asarray(desired)
    atol = 1e-5 * max(np.abs(desired).max(), 1)
    np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=atol)


def value_and_gradients(function, *inputs):
    """The value, and the gradients for a random cotangent (a plain sum would hide exchanges)."""
    y, pull = jax.vjp(function, *inputs)
    return y, pull(jnp.asarray(noise(*y.shape, seed=1)))


@pytest.mark.parametrize(("kernel", "stride", "padding"), CONVOLUTIONS)
def test_convolution(kernel, stride, padding):
    weights = noise(kernel, kernel, CHANNELS_IN, CHANNELS_OUT)
    inputs = [noise(2, *size, CHANNELS_IN) for size in fitting(kernel, padding)]

    def with_gradients(formulation, x, weights):
        bound = partial(formulation, stride=stride, padding=padding)
        return value_and_gradients(bound, x, weights)

    @jax.jit
    def all_formulations(inputs, weights):
        return [
            [with_gradients(f, x, weights) for f in (conv2d, patch_conv2d, plain_conv2d)]
            for x in inputs
        ]

    assert inputs
    for *ours, reference in all_formulations(inputs, weights):
        for one in ours:
            jax.tree.map(assert_close, one, reference)


def test_images_of_three_channels():
    x, weights = noise(2, 13, 12, 3), noise(7, 7, 3, 4)

    def both(x, weights):
        return [
            value_and_gradients(lambda x, w, f=f: f(x, w, stride=2, padding=3), x, weights)
            for f in (conv2d, plain_conv2d)
        ]

    ours, reference = jax.jit(both)(x, weights)
    jax.tree.map(assert_close, ours, reference)


@pytest.mark.parametrize("cpu", [True, False])
def test_conv2d_is_the_same_with_and_without_the_cpu_rules(monkeypatch, cpu):
    x, weights = noise(2, 2, 2, CHANNELS_IN), noise(3, 3, CHANNELS_IN, CHANNELS_OUT)
    monkeypatch.setattr(conv, "on_cpu", lambda: cpu)
    assert_close(conv2d(x, weights, padding=1), plain_conv2d(x, weights, padding=1))
    pooled = max_pool(x, size=3, stride=2, padding=1)
    assert_close(pooled, x.max((1, 2), keepdims=True))


@pytest.mark.parametrize(("size", "stride", "padding"), POOLS)
def test_max_pool(size, stride, padding):
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


def test_max_pool_never_returns_the_padding():
    x = -1 - np.abs(noise(1, 5, 5, 2))
    assert np.isfinite(max_pool(x, size=3, stride=2, padding=1)).all()


def test_ties_in_max_pool_share_the_gradient_without_losing_any():
    gradient = jax.grad(lambda x: max_pool(x, size=2, stride=2).sum())(jnp.ones((1, 4, 4, 1)))
    np.testing.assert_allclose(gradient.sum(), 4, rtol=1e-6)


def test_layer_has_bias_types_and_explicit_padding():
    layer = Conv(4, 3, stride=2, padding=1, use_bias=True, dtype=jnp.bfloat16)
    x = noise(1, 6, 6, 3)
    variables = layer.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    variables["params"]["bias"] = jnp.arange(4.0)
    y = layer.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    assert y.shape == (1, 3, 3, 4)
    zero = layer.apply(variables, np.zeros_like(x))
    np.testing.assert_array_equal(zero[0, 0, 0].astype(jnp.float32), np.arange(4.0))
