"""CBAM by reasoning, against an independent NumPy reference, and its gradients under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.models import CBAM, ChannelAttention, SpatialAttention
from tests.models.noise import noise_variables, shapes_of

SHAPE = (2, 5, 7, 12)
X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def numpy_cbam(params, x):
    """RCMNet Eq. 3-6 in float64, the convolution as four loops."""
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x = x.astype(np.float64)
    reduce, expand = params["channel"]["reduce"], params["channel"]["expand"]

    def mlp(v):
        hidden = np.maximum(v @ reduce["kernel"] + reduce["bias"], 0)
        return hidden @ expand["kernel"] + expand["bias"]

    gate = sigmoid(mlp(x.mean((1, 2))) + mlp(x.max((1, 2))))
    x = x * gate[:, None, None, :]
    descriptor = np.stack([x.mean(-1), x.max(-1)], -1)
    padded = np.pad(descriptor, ((0, 0), (3, 3), (3, 3), (0, 0)))
    kernel = params["spatial"]["conv"]["kernel"]
    logits = np.zeros(x.shape[:3])
    for b, i, j in np.ndindex(*logits.shape):
        logits[b, i, j] = (padded[b, i : i + 7, j : j + 7, :] * kernel[..., 0]).sum()
    return x * sigmoid(logits)[..., None]


def test_zero_weights_pass_a_quarter():
    module = CBAM(reduction=4)
    variables = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes_of(module, SHAPE))
    np.testing.assert_allclose(module.apply(variables, X, train=False), 0.25 * X, rtol=1e-6)


@pytest.mark.parametrize("seed", [0, 1])
def test_equals_the_numpy_reference(seed):
    module = CBAM(reduction=4)
    variables = noise_variables(module, SHAPE, seed)
    expected = numpy_cbam(variables["params"], X)
    np.testing.assert_allclose(module.apply(variables, X, train=False), expected, 1e-5, 1e-6)


def test_channel_gate_ignores_where_and_spatial_gate_ignores_which():
    channel, spatial = ChannelAttention(reduction=4), SpatialAttention()
    positions = np.random.default_rng(1).permutation(35)
    moved = X.reshape(2, 35, 12)[:, positions].reshape(SHAPE)
    variables = jax.jit(channel.init)(jax.random.key(0), X)
    y = np.asarray(channel.apply(variables, X)).reshape(2, 35, 12)[:, positions].reshape(SHAPE)
    np.testing.assert_allclose(channel.apply(variables, moved), y, rtol=1e-5, atol=1e-6)

    channels = np.random.default_rng(2).permutation(12)
    variables = noise_variables(spatial, SHAPE)
    y = np.asarray(spatial.apply(variables, X, train=False))[..., channels]
    np.testing.assert_allclose(
        spatial.apply(variables, X[..., channels], train=False), y, rtol=1e-5, atol=1e-6
    )


def test_authors_dialect_normalises_the_gate():
    variables = noise_variables(CBAM(reduction=4, spatial_norm=True), SHAPE)
    assert set(variables["batch_stats"]["spatial"]["norm"]["bn"]) == {"mean", "var"}
    assert "norm" not in shapes_of(CBAM(reduction=4), SHAPE)["params"]["spatial"]


def test_reduction_never_leaves_no_channel():
    assert shapes_of(CBAM(reduction=16), SHAPE)["params"]["channel"]["reduce"]["kernel"].shape == (
        12,
        1,
    )


def test_gradients_equal_numerical_ones():
    module = CBAM(reduction=4)
    variables = noise_variables(module, SHAPE)
    direction = np.random.default_rng(3).standard_normal(SHAPE).astype(np.float32)

    def loss(x):
        return (module.apply(variables, x, train=False) ** 2).sum()

    slope = (jax.jit(jax.grad(loss))(X) * direction).sum()
    step = 1e-4

    def reference(x):
        return (numpy_cbam(variables["params"], x) ** 2).sum()

    forward = reference(X.astype(np.float64) + step * direction)
    backward = reference(X.astype(np.float64) - step * direction)
    np.testing.assert_allclose(slope, (forward - backward) / (2 * step), rtol=1e-4)


def test_bfloat16_result_with_float32_parameters():
    module = CBAM(reduction=4, dtype=jnp.bfloat16)
    y, variables = module.init_with_output(
        jax.random.key(0), jnp.asarray(X, jnp.bfloat16), train=False
    )
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
