"""A dense layer over averages: the same sums whether the averages or the kernel come first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export

from rcmnet_jax.kernels import pooled_dense
from rcmnet_jax.kernels.backend import formulated_for
from rcmnet_jax.kernels.pooled_dense import pooled_product, sums_kernel
from rcmnet_jax.kernels.pooling import adaptive_average_pool, all_but_repeats
from rcmnet_jax.models.layers import PooledDense
from tests.kernels.formulations import assert_close, noise, value_and_gradients

GRID, CHANNELS, UNITS = 3, 4, 5


@pytest.mark.parametrize("batch", [1, 2, 64])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 2), (3, 2), (3, 3), (4, 5)])
@pytest.mark.parametrize("first", [True, False])
def test_both_forms_are_the_product_of_the_averages(monkeypatch, batch, size, first):
    monkeypatch.setattr(pooled_dense, "sums_kernel", lambda *_: first)
    f, kernel = noise(batch, *size, CHANNELS), noise(GRID**2 * CHANNELS, UNITS)

    def plain(f, kernel):
        return adaptive_average_pool(f, size=GRID).reshape(batch, -1) @ kernel

    ours = value_and_gradients(lambda f, kernel: pooled_product(f, kernel, GRID), f, kernel)
    jax.tree.map(assert_close, ours, value_and_gradients(plain, f, kernel))


def test_it_is_a_dense_layer_with_the_same_parameters():
    """As drawn from the same key, and as used on averages."""
    layers = {"layer": PooledDense(UNITS, grid=GRID), "dense": nn.Dense(UNITS)}
    averages = noise(2, GRID, GRID, CHANNELS)
    inputs = {"layer": averages, "dense": averages.reshape(2, -1)}
    variables, y = {}, {}
    for kind, layer in layers.items():
        variables[kind] = layer.init(jax.random.key(0), inputs[kind])
        y[kind] = layer.apply(variables[kind], inputs[kind])
    jax.tree.map(np.testing.assert_array_equal, variables["layer"], variables["dense"])
    assert_close(y["layer"], y["dense"])


# Batch, cells, grid, type, backend -> whether the kernel is summed first.
CHOICES = {
    "AlexNet at 64": ((64, 1, 6, jnp.float32, "cpu"), True),
    "AlexNet at 128": ((64, 9, 6, jnp.float32, "cpu"), True),
    "VGG19 at 64": ((64, 4, 7, jnp.float32, "cpu"), True),
    "VGG19 at 128, few images": ((16, 16, 7, jnp.float32, "cpu"), False),
    "one image": ((1, 1, 6, jnp.float32, "cpu"), False),
    "averages": ((64, 36, 6, jnp.float32, "cpu"), False),
    "half precision": ((64, 1, 6, jnp.bfloat16, "cpu"), False),
    "not measured": ((64, 1, 6, jnp.float32, "gpu"), False),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_kernel_is_summed_where_that_multiplies_less(case):
    (batch, cells, grid, dtype, backend), expected = CHOICES[case]
    with formulated_for(backend):
        assert sums_kernel(batch, cells, grid, jnp.dtype(dtype)) == expected


def test_of_an_unknown_number_of_images_the_averages_come_first():
    (batch,) = export.symbolic_shape("N")
    assert not sums_kernel(batch, 1, 6, jnp.dtype("float32"))


@pytest.mark.parametrize("size", [(1, 1), (2, 4), (3, 3), (2, 5), (7, 4)])
def test_what_is_kept_of_a_map_has_its_averages(size):
    f = noise(2, *size, CHANNELS)
    kept = all_but_repeats(f, size=GRID)
    assert kept.size <= f.size
    assert_close(adaptive_average_pool(kept, size=GRID), adaptive_average_pool(f, size=GRID))
