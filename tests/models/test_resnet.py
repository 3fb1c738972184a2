"""Residual blocks and stems, by reasoning."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
