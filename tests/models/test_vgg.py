"""VGG19: map sizes, the two-step contract, types and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.models import create_model
from tests.models.noise import noise_variables, shapes_of

STAGES = ((1, 4), (1, 4), (1, 4), (1, 4), (1, 6))
IMAGES = np.random.default_rng(0).uniform(0, 1, (2, 70, 40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def small():
    """(model, variables): one convolution a stage, narrow."""
    model = create_model("vgg19", 3, stages=STAGES, hidden=8)
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
    assert f.shape == (2, 2, 1, 6)
    assert f.dtype == dtype
    assert logits.shape == (2, 3)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(split_logits, logits, rtol=1e-6)


def test_classifier_takes_any_map_size_and_drops_only_in_training(small):
    model, variables = small
    f = np.abs(np.random.default_rng(1).standard_normal((2, 11, 11, 6))).astype(np.float32)
    calm = model.apply(variables, f, train=False, method="classify")
    dropped = model.apply(
        variables, f, train=True, method="classify", rngs={"dropout": jax.random.key(0)}
    )
    assert calm.shape == dropped.shape == (2, 3)
    assert np.abs(calm - dropped).max() > 0


def test_configuration_e_has_sixteen_convolutions():
    params = shapes_of(create_model("vgg19", 8), (1, 224, 224, 3))["params"]
    assert sum("conv" in name for name in params) == 16
    assert params["fc1"]["kernel"].shape == (7 * 7 * 512, 4096)


def test_too_small_images():
    with pytest.raises(UserError, match="31x64 pixels are too small"):
        shapes_of(create_model("vgg19", 8), (1, 31, 64, 3))
