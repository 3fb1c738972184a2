"""The whole network: its tree, map sizes, methods, gradients and types."""

import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rcmnet_jax.errors import UserError
from rcmnet_jax.models import create_model
from tests.models.noise import noise_variables, shapes_of

GOLDEN = Path(__file__).parent / "golden" / "rcmnet_tree.txt"
NUM_CLASSES = 3
IMAGES = np.random.default_rng(0).uniform(0, 1, (2, 24, 16, 3)).astype(np.float32)


def tree_lines():
    """``collection/path: shape`` of every array of RCMNet for 8 classes at native size.

    Regenerate the golden file, with a migration for saved weights, by
    ``python -c "from tests.models.test_rcmnet import *; GOLDEN.write_text(tree_lines())"``.
    """
    shapes = shapes_of(create_model("rcmnet", 8), (1, 363, 360, 3))
    flat = traverse_util.flatten_dict(shapes, sep="/")
    return "".join(f"{path}: {leaf.shape}\n" for path, leaf in sorted(flat.items()))


@pytest.fixture(scope="module")
def small():
    """(model, variables): every part of RCMNet once, narrow, with a 12x8 map for `IMAGES`."""
    model = create_model(
        "rcmnet", NUM_CLASSES, width=8, reduction=4, stem="small", stage_sizes=(1, 1)
    )
    return model, noise_variables(model, IMAGES.shape)


@pytest.fixture(scope="module")
def outputs(small):
    """(logits, feature map, logits of the feature map) in one compilation."""
    model, variables = small

    @jax.jit
    def run(variables, x):
        f = model.apply(variables, x, train=False, method="features")
        logits = model.apply(variables, f, train=False, method="classify")
        return model.apply(variables, x, train=False), f, logits

    return run(variables, IMAGES)


def test_parameter_tree_is_the_golden_one():
    assert tree_lines() == GOLDEN.read_text(), tree_lines.__doc__


@pytest.mark.parametrize("side", [353, 360, 363, 384])
def test_sides_from_353_to_384_share_one_map_and_one_position_table(side):
    position = shapes_of(create_model("rcmnet", 8), (1, side, 384, 3))["params"]["bot"]["mhsa"]
    assert position["position"]["rel_height"].shape == (23, 128)
    assert position["position"]["rel_width"].shape == (23, 128)


@pytest.mark.parametrize(("side", "rows"), [(352, 21), (385, 25)])
def test_beyond_them_the_table_changes(side, rows):
    position = shapes_of(create_model("rcmnet", 8), (1, 384, side, 3))["params"]["bot"]["mhsa"]
    assert position["position"]["rel_width"].shape == (rows, 128)


def test_features_then_classify_is_the_call(outputs):
    logits, features, split_logits = outputs
    assert features.shape == (2, 12, 8, 16)
    assert logits.shape == (2, NUM_CLASSES)
    np.testing.assert_allclose(split_logits, logits, rtol=1e-6)


def test_bfloat16_computes_in_bfloat16_and_gives_float32_logits(small, outputs):
    model, variables = small
    half = model.clone(dtype=jnp.bfloat16)
    assert {s.dtype for s in jax.tree.leaves(shapes_of(half, IMAGES.shape))} == {
        jnp.dtype(jnp.float32)
    }

    @jax.jit
    def run(variables, x):
        f = half.apply(variables, x, train=False, method="features")
        return half.apply(variables, f, train=False, method="classify"), f

    logits, features = run(variables, IMAGES)
    assert features.dtype == jnp.bfloat16
    assert logits.dtype == jnp.float32
    spread = np.abs(outputs[0]).max()
    np.testing.assert_allclose(logits, outputs[0], rtol=0, atol=0.05 * spread)


def test_every_parameter_gets_a_gradient_and_every_statistic_moves(small):
    model, variables = small

    @jax.jit
    def step(variables):
        def loss(params):
            logits, updates = model.apply(
                {**variables, "params": params}, IMAGES, train=True, mutable=["batch_stats"]
            )
            return jax.nn.log_softmax(logits)[:, 0].sum(), updates["batch_stats"]

        return jax.grad(loss, has_aux=True)(variables["params"])

    gradients, statistics = step(variables)
    flat = traverse_util.flatten_dict(gradients, sep="/")
    # A convolution bias would be the only parameter without one: batch norm takes the mean away.
    assert [path for path, g in flat.items() if not np.isfinite(g).all() or not g.any()] == []
    before = traverse_util.flatten_dict(variables["batch_stats"], sep="/")
    after = traverse_util.flatten_dict(statistics, sep="/")
    assert [path for path, s in after.items() if (s == before[path]).all()] == []


def test_dropout_only_in_training(small):
    model, variables = small
    dropping = model.clone(dropout=0.5)
    f = np.ones((2, 12, 8, 16), np.float32)
    classify = partial(dropping.apply, variables, f, method="classify")
    first, second = (
        classify(train=True, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1)
    )
    assert np.abs(first - second).max() > 0
    reference = model.apply(variables, f, train=False, method="classify")
    np.testing.assert_array_equal(classify(train=False), reference)


def test_group_norm_leaves_no_batch_statistics():
    shapes = shapes_of(create_model("rcmnet", 8, norm="group"), (1, 64, 64, 3))
    assert set(shapes) == {"params"}
    batch = shapes_of(create_model("rcmnet", 8), (1, 64, 64, 3))
    count = [sum(math.prod(s.shape) for s in jax.tree.leaves(t["params"])) for t in (shapes, batch)]
    assert count[0] == count[1]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 64, 64), "channels last"),
        ((64, 64, 3), "channels last"),
        ((2, 64, 64, 1), "channels last"),
        ((2, 15, 64, 3), "15x64 pixels are too small .* at least 16"),
    ],
)
def test_wrong_images(shape, message):
    with pytest.raises(UserError, match=message) as error:
        shapes_of(create_model("rcmnet", 8), shape)
    assert "\n" not in str(error.value)


def test_images_of_another_size_than_the_position_tables(small):
    model, variables = small
    with pytest.raises(UserError, match=r"rel_height is for .* side 12, .* give 16"):
        jax.eval_shape(
            partial(model.apply, train=False), variables, np.zeros((1, 32, 16, 3), np.float32)
        )
