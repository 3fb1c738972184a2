"""AlexNet: map sizes, the two-step contract, types and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.models import create_model
from tests.models.noise import noise_variables, shapes_of

IMAGES = np.random.default_rng(0).uniform(0, 1, (2, 96, 64, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    """(model, variables) with a narrow classifier."""
    model = create_model("alexnet", 3, hidden=8)
    return model, noise_variables(model, IMAGES.shape)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_features_then_classify_is_the_call(small, dtype):
    model, variables = small
    model = model.clone(dtype=dtype)

    @jax.jit
    def run(variables, x):
        f = model.apply(variables, x, train=False, method="features")
        logits = model.apply(variables, f, train=False, method="classify")
        return model.apply(variables, x, train=False), logits, f

    logits, split_logits, f = run(variables, IMAGES)
    assert f.shape == (2, 2, 1, 256)
    assert f.dtype == dtype
    assert logits.shape == (2, 3)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(split_logits, logits, rtol=1e-6)


def test_dropout_only_in_training(small):
    model, variables = small
    f = np.ones((2, 6, 6, 256), np.float32)
    calm = model.apply(variables, f, train=False, method="classify")
    dropped = model.apply(
        variables, f, train=True, method="classify", rngs={"dropout": jax.random.key(0)}
    )
    assert np.abs(calm - dropped).max() > 0


@pytest.mark.parametrize(("size", "expected"), [((224, 224), (6, 6)), ((363, 360), (10, 10))])
def test_map_sizes_are_torchvisions(size, expected):
    model = create_model("alexnet", 8)
    x = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    variables = shapes_of(model, x.shape)
    f = jax.eval_shape(lambda v, x: model.apply(v, x, train=False, method="features"), variables, x)
    assert f.shape == (1, *expected, 256)


def test_too_small_images():
    with pytest.raises(UserError, match="62x64 pixels are too small"):
        shapes_of(create_model("alexnet", 8), (1, 62, 64, 3))
