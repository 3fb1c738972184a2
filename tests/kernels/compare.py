"""Kernels against each other: inputs, values with gradients, and how close is close."""

import jax
import jax.numpy as jnp
import numpy as np

# Heights and widths from 1 to 9, odd and even, square and not.
SIZES = ((1, 1), (2, 2), (2, 3), (3, 1), (4, 4), (5, 7), (6, 8), (7, 6), (8, 9), (9, 5))
# Nine channels: patches are used from there.
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
