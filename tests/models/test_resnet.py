"""Residual blocks and stems, by reasoning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.kernels.backend import formulated_for
from rcmnet_jax.kernels.gpu_stem import blocked_conv2d
from rcmnet_jax.models import BasicBlock, ResNetStage, Stem
from tests.models.noise import noise_variables, shapes_of

X = np.random.default_rng(0).standard_normal((2, 6, 5, 8)).astype(np.float32)


def silenced(variables):
    """The same with the last norm of the residual branch at zero."""
    params = variables["params"]
    norm2 = jax.tree.map(np.zeros_like, params["norm2"])
    return {**variables, "params": {**params, "norm2": norm2}}


@pytest.mark.parametrize("use_cbam", [False, True])
def test_silent_branch_leaves_the_rectified_input(use_cbam):
    block = BasicBlock(8, use_cbam=use_cbam, reduction=4)
    variables = silenced(noise_variables(block, X.shape))
    np.testing.assert_array_equal(block.apply(variables, X, train=False), np.maximum(X, 0))


def test_silent_branch_leaves_the_rectified_projection():
    block = BasicBlock(12, stride=2)
    variables = silenced(noise_variables(block, X.shape))
    params = variables["params"]
    bn = params["shortcut_norm"]["bn"]
    stats = variables["batch_stats"]["shortcut_norm"]["bn"]
    projected = X[:, ::2, ::2] @ params["shortcut_conv"]["kernel"][0, 0]
    expected = (projected - stats["mean"]) / np.sqrt(stats["var"] + 1e-5) * bn["scale"] + bn["bias"]
    y = block.apply(variables, X, train=False)
    np.testing.assert_allclose(y, np.maximum(expected, 0), rtol=1e-4, atol=1e-5)


def test_only_blocks_that_change_the_shape_have_a_projection():
    stage = ResNetStage(num_blocks=2, features=8)
    assert "shortcut_conv" not in shapes_of(stage, X.shape)["params"]["block1"]
    params = shapes_of(stage.clone(stride=2), X.shape)["params"]
    assert "shortcut_conv" in params["block1"]
    assert "shortcut_conv" not in params["block2"]


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("imagenet", (32, 32), (8, 8)),
        ("imagenet", (363, 360), (91, 90)),
        ("imagenet", (17, 19), (5, 5)),
        ("small", (28, 29), (28, 29)),
    ],
)
def test_map_sizes_of_the_stems(kind, size, expected):
    stem = Stem(4, kind)
    x = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    y, _ = jax.eval_shape(
        lambda key, x: stem.init_with_output(key, x, train=False), jax.random.key(0), x
    )
    assert y.shape == (1, *expected, 4)


def test_unknown_stem():
    with pytest.raises(ValueError, match="'large' is not one of"):
        shapes_of(Stem(4, "large"), (1, 32, 32, 3))


@pytest.mark.parametrize("size", [(64, 64), (61, 66), (46, 45)])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_a_stem_on_a_gpu_is_the_same(size, norm):
    """Even sides lie in blocks of 2x2 there, from the convolution to the pool."""
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    stem = Stem(8, norm=norm)
    variables = noise_variables(stem, x.shape)

    def value_and_gradients(params, x):
        def apply(params, x):
            rest = {key: tree for key, tree in variables.items() if key != "params"}
            return stem.apply({"params": params, **rest}, x, train=True, mutable=["batch_stats"])

        y, pull, statistics = jax.vjp(apply, params, x, has_aux=True)
        cotangent = np.random.default_rng(1).standard_normal(y.shape).astype(np.float32)
        return y, statistics, pull(jnp.asarray(cotangent))

    found = {}
    for backend in ("cpu", "gpu"):
        with formulated_for(backend):
            found[backend] = jax.jit(lambda *a: value_and_gradients(*a))(variables["params"], x)
    for ours, reference in zip(*map(jax.tree.leaves, found.values()), strict=True):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-5 * scale)


def test_blocks_need_an_even_map():
    with pytest.raises(ValueError, match="31x31 results"):
        blocked_conv2d(jnp.zeros((1, 61, 61, 3)), jnp.zeros((7, 7, 3, 4)), stride=2, padding=3)
