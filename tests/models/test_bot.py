"""Self-attention against an independent NumPy reference, and the BoT block by reasoning."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.models import MHSA2D, BoTBlock
from tests.models.noise import noise_variables

HEADS, DEPTH = 2, 4
SHAPE = (2, 3, 4, 6)
X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def mhsa():
    """(module, variables) of a two-headed attention on 3x4 maps."""
    module = MHSA2D(HEADS, DEPTH)
    return module, noise_variables_of_mhsa(module)


def noise_variables_of_mhsa(module):
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(module.init, jax.random.key(0), X)["params"]
    return {"params": jax.tree.map(lambda s: rng.normal(0, 0.5, s.shape).astype("f4"), shapes)}


def numpy_mhsa(params, x):
    """``softmax(s q.k + s q.(r_h + r_w)) v``, one query and one key at a time."""
    x = x.astype(np.float64)
    batch, height, width, _ = x.shape
    qkv = (x @ np.asarray(params["qkv"]["kernel"], np.float64)[0, 0]).reshape(
        batch, height * width, 3, HEADS, DEPTH
    )
    rel_height = np.asarray(params["position"]["rel_height"], np.float64)
    rel_width = np.asarray(params["position"]["rel_width"], np.float64)
    tokens = list(np.ndindex(height, width))
    y = np.zeros((batch, len(tokens), HEADS, DEPTH))
    for b in range(batch):
        for n in range(HEADS):
            q, k, v = (qkv[b, :, i, n] for i in range(3))
            q = q * DEPTH**-0.5
            for t, (row, column) in enumerate(tokens):
                logits = np.array(
                    [
                        q[t] @ k[s]
                        + q[t] @ rel_height[r - row + height - 1]
                        + q[t] @ rel_width[c - column + width - 1]
                        for s, (r, c) in enumerate(tokens)
                    ]
                )
                weights = np.exp(logits - logits.max())
                y[b, t, n] = weights / weights.sum() @ v
    return y.reshape(batch, height, width, HEADS * DEPTH)


def test_equals_the_numpy_reference(mhsa):
    module, variables = mhsa
    expected = numpy_mhsa(variables["params"], X)
    np.testing.assert_allclose(module.apply(variables, X), expected, rtol=1e-5, atol=1e-6)


def without_position(variables):
    position = jax.tree.map(np.zeros_like, variables["params"]["position"])
    return {"params": {**variables["params"], "position": position}}


def permuted(x, order):
    return np.asarray(x).reshape(2, 12, -1)[:, order].reshape(*SHAPE[:3], -1)


def test_without_position_it_commutes_with_permutations_of_the_map(mhsa):
    module, variables = mhsa
    order = np.random.default_rng(2).permutation(12)
    blind = without_position(variables)
    moved = module.apply(blind, permuted(X, order))
    np.testing.assert_allclose(moved, permuted(module.apply(blind, X), order), 1e-5, 1e-6)
    # The tables are what tells positions apart.
    moved = module.apply(variables, permuted(X, order))
    assert np.abs(moved - permuted(module.apply(variables, X), order)).max() > 1e-2


def test_attention_is_sown_and_sums_to_one(mhsa):
    module, variables = mhsa
    _, state = module.apply(variables, X, mutable=["intermediates"])
    (attention,) = state["intermediates"]["attention"]
    assert attention.shape == (2, HEADS, 12, 12)
    np.testing.assert_allclose(attention.sum(-1), 1, rtol=1e-5)


def test_another_map_size_names_the_remedy(mhsa):
    module, variables = mhsa
    with pytest.raises(UserError, match=r"rel_height is for .* side 3, the images give 5") as error:
        module.apply(variables, np.zeros((1, 5, 4, 6), np.float32))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"rel_width is for .* side 4, the images give 3"):
        module.apply(variables, np.zeros((1, 3, 3, 6), np.float32))


def test_numpy_variables_may_be_closed_over_under_jit(mhsa):
    module, variables = mhsa
    y = jax.jit(lambda x: module.apply(variables, x))(X)
    np.testing.assert_allclose(y, module.apply(variables, X), rtol=1e-5, atol=1e-6)


def test_fresh_block_is_the_identity_on_its_non_negative_input():
    block = BoTBlock(num_heads=2, head_dim=4, projection=2)
    x = np.abs(X)
    y, _ = jax.jit(partial(block.init_with_output, train=False))(jax.random.key(0), x)
    np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_bfloat16_with_float32_parameters(norm):
    block = BoTBlock(num_heads=2, head_dim=4, projection=2, norm=norm, dtype=jnp.bfloat16)
    variables = noise_variables(block, SHAPE)
    y = block.apply(variables, jnp.asarray(X, jnp.bfloat16), train=False)
    assert y.dtype == jnp.bfloat16
    reference = block.clone(dtype=jnp.float32).apply(variables, X, train=False)
    np.testing.assert_allclose(y.astype(jnp.float32), reference, rtol=0, atol=0.1)
