"""Batches of one shape give what single calls give."""

import jax
import numpy as np
import pytest

from rcmnet_jax.data.augment import standardize
from rcmnet_jax.errors import UserError
from rcmnet_jax.explain import grad_cam
from rcmnet_jax.explain.explainer import Explainer
from rcmnet_jax.models import create_model
from rcmnet_jax.models.grid import Grid
from tests.models.noise import noise_variables

NORM = {"mean": (0.5, 0.4, 0.6), "std": (0.2, 0.3, 0.25)}
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network():
    model = create_model("resnet18", 3, width=8, stem="small", stage_sizes=(1, 1))
    return model, noise_variables(model, (1, 16, 16, 3))


def test_no_image_is_lost_and_the_predicted_class_is_explained(network):
    model, variables = network
    explained = Explainer(model, **NORM, batch_size=3)(variables, PIXELS)
    x = standardize(PIXELS.astype(np.float32) / 255, **NORM)
    logits = np.asarray(model.apply(variables, x, train=False))
    np.testing.assert_allclose(explained.logits_NxK, logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(explained.class_ids_N, logits.argmax(1))
    cam = np.asarray(grad_cam(model, variables, x, logits.argmax(1), relu=False))
    np.testing.assert_allclose(explained.signed_Nxhxw, cam, rtol=1e-3, atol=1e-6)
    assert explained.placement == Grid(2, 0)


def test_smoothed_maps_turn_with_the_image(network):
    model, variables = network
    explainer = Explainer(model, **NORM, smooth=True, batch_size=5)
    explained = explainer(variables, PIXELS)
    turned = explainer(variables, np.rot90(PIXELS, axes=(1, 2)), explained.class_ids_N)
    np.testing.assert_allclose(
        np.rot90(explained.signed_Nxhxw, axes=(1, 2)), turned.signed_Nxhxw, rtol=1e-3, atol=1e-6
    )
    assert explained.signed_Nxhxw.shape == (5, 16, 16)
    assert explained.placement == Grid(1, 0)


def test_it_explains_with_the_variables_it_is_given(network):
    model, variables = network
    explainer = Explainer(model, **NORM, batch_size=5)
    other = jax.tree.map(lambda leaf: leaf * 1.5, variables)
    assert not np.allclose(
        explainer(variables, PIXELS).signed_Nxhxw, explainer(other, PIXELS).signed_Nxhxw
    )


def test_what_does_not_exist(network):
    model, variables = network
    for options, told in (
        ({"layer": "stage9"}, "no layer 'stage9': it has stem, stage1/block1"),
        ({"method": "x"}, "method 'x'"),
        ({"target": "x"}, "target 'x'"),
        ({"batch_size": 0}, "at least 1"),
    ):
        with pytest.raises(UserError, match=told):
            Explainer(model, **NORM, **options)
    explainer = Explainer(model, **NORM)
    with pytest.raises(UserError, match="class id 3 does not exist"):
        explainer(variables, PIXELS, np.full(5, 3))
    with pytest.raises(UserError, match="no images"):
        explainer(variables, PIXELS[:0])
