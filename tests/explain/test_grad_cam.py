"""Grad-CAM against algebra, and what a caller may rely on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain import grad_cam
from rcmnet_jax.models import create_model
from tests.explain.pooled_linear import linear_case
from tests.models.noise import noise_variables

NUM_CLASSES = 5
CLASS_IDS = np.array([0, 3, 4], np.int32)


@pytest.fixture(scope="module")
def linear():
    """(model, variables, maps (3, 4, 6, 7))."""
    return linear_case()


@pytest.fixture(scope="module")
def small_rcmnet():
    """(model, variables, images (3, 32, 24, 3)); the small stem leaves a 16x12 map."""
    model = create_model(
        "rcmnet", NUM_CLASSES, width=8, reduction=4, stem="small", stage_sizes=(1, 1)
    )
    x = np.random.default_rng(1).uniform(0, 1, (3, 32, 24, 3)).astype(np.float32)
    variables = noise_variables(model, x.shape)
    return model, variables, x


def linear_weights(variables):
    """W[:, c] of each example, (3, C), in float64."""
    kernel = np.asarray(variables["params"]["head"]["kernel"], np.float64)
    return kernel[:, CLASS_IDS].T


def test_logit_weights_are_the_dense_layers_over_the_area(linear):
    model, variables, x = linear
    cam = grad_cam(model, variables, x, CLASS_IDS, relu=False)
    alpha = linear_weights(variables) / (4 * 6)
    assert cam.shape == (3, 4, 6)
    assert cam.dtype == jnp.float32
    np.testing.assert_allclose(cam, np.einsum("bhwc,bc->bhw", x, alpha), rtol=1e-5, atol=1e-7)


def test_probability_weights_are_those_of_the_softmax(linear):
    model, variables, x = linear
    cam = grad_cam(model, variables, x, CLASS_IDS, target="probability", relu=False)
    kernel = np.asarray(variables["params"]["head"]["kernel"], np.float64)
    logits = np.asarray(model.apply(variables, x, train=False), np.float64)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    # d p_c / d logit_j = p_c (delta_cj - p_j)
    p_c = p[np.arange(3), CLASS_IDS][:, None]
    alpha = p_c * (linear_weights(variables) - p @ kernel.T) / (4 * 6)
    np.testing.assert_allclose(cam, np.einsum("bhwc,bc->bhw", x, alpha), rtol=1e-5, atol=1e-7)


def test_relu_only_cuts_the_negative_part(linear):
    model, variables, x = linear
    signed = np.asarray(grad_cam(model, variables, x, CLASS_IDS, relu=False))
    assert (signed < 0).any()
    np.testing.assert_array_equal(grad_cam(model, variables, x, CLASS_IDS), np.maximum(signed, 0))


@pytest.mark.parametrize("target", ["logit", "probability"])
def test_images_of_a_batch_do_not_influence_each_other(small_rcmnet, target):
    model, variables, x = small_rcmnet
    together = grad_cam(model, variables, x, CLASS_IDS, target=target, relu=False)
    alone = [
        grad_cam(model, variables, x[i : i + 1], CLASS_IDS[i : i + 1], target=target, relu=False)
        for i in range(3)
    ]
    scale = np.abs(together).max()
    assert scale > 0
    np.testing.assert_allclose(together, np.concatenate(alone), rtol=0, atol=1e-5 * scale)


def test_equals_the_gradient_through_the_whole_network(small_rcmnet):
    """A perturbation added to the feature map inside the forward pass gives the same weights."""
    model, variables, x = small_rcmnet

    def score(perturbation):
        f = model.apply(variables, x, train=False, method="features") + perturbation
        logits = model.apply(variables, f, train=False, method="classify")
        return logits[np.arange(3), CLASS_IDS].sum(), f

    shape = (3, 16, 12, 16)
    gradient, f = jax.jit(jax.grad(score, has_aux=True))(jnp.zeros(shape))
    expected = np.einsum("bhwc,bc->bhw", f, np.asarray(gradient).mean((1, 2)))
    cam = grad_cam(model, variables, x, CLASS_IDS, relu=False)
    np.testing.assert_allclose(cam, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_runs_inside_jit_with_traced_class_ids(small_rcmnet):
    model, variables, x = small_rcmnet
    traced = jax.jit(lambda v, x, ids: grad_cam(model, v, x, ids))(variables, x, CLASS_IDS)
    np.testing.assert_allclose(
        traced, grad_cam(model, variables, x, CLASS_IDS), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("bad", [-1, NUM_CLASSES])
def test_traced_class_id_out_of_range_gives_nan_for_that_image_only(linear, bad):
    model, variables, x = linear
    ids = np.array([0, bad, 4], np.int32)
    cam = jax.jit(lambda ids: grad_cam(model, variables, x, ids))(ids)
    assert np.isnan(cam[1]).all()
    assert np.isfinite(cam[0]).all()
    assert np.isfinite(cam[2]).all()


def test_frozen_dict_numpy_and_other_integers_are_fine(linear):
    model, variables, x = linear
    reference = grad_cam(model, variables, x, CLASS_IDS)
    numpy_variables = jax.tree.map(np.asarray, variables)
    cam = grad_cam(model, numpy_variables, jnp.asarray(x), [0, 3, 4])
    np.testing.assert_array_equal(cam, reference)


def test_bfloat16_networks_give_float32_maps_near_those_of_float32(small_rcmnet):
    model, variables, x = small_rcmnet
    half = model.clone(dtype=jnp.bfloat16)
    reference = np.asarray(grad_cam(model, variables, x, CLASS_IDS, relu=False))
    cam = grad_cam(half, variables, x, CLASS_IDS, relu=False)
    assert cam.dtype == jnp.float32
    # bfloat16 keeps 8 bits: a network of ten layers is within some percent of the map's range.
    np.testing.assert_allclose(cam, reference, rtol=0, atol=0.05 * np.abs(reference).max())


@pytest.mark.parametrize(
    ("name", "options", "map_size"),
    [
        ("vgg19", {"stages": ((1, 4), (1, 4), (1, 4), (1, 8), (1, 8)), "hidden": 16}, (3, 2)),
        ("alexnet", {"hidden": 16}, (2, 1)),
    ],
)
def test_networks_with_a_hidden_classifier(name, options, map_size):
    model = create_model(name, NUM_CLASSES, **options)
    x = np.random.default_rng(2).uniform(0, 1, (3, 96, 64, 3)).astype(np.float32)
    variables = noise_variables(model, x.shape)
    cam = grad_cam(model, variables, x, CLASS_IDS, relu=False)
    assert cam.shape == (3, *map_size)
    assert np.isfinite(cam).all()
    assert np.abs(cam).max() > 0


class TestErrors:
    def test_unknown_target_names_the_known_ones(self, linear):
        model, variables, x = linear
        with pytest.raises(UserError, match="'score' is not one of logit, probability"):
            grad_cam(model, variables, x, CLASS_IDS, target="score")

    @pytest.mark.parametrize("bad", [-1, 5, 77])
    def test_class_id_out_of_range(self, linear, bad):
        model, variables, x = linear
        with pytest.raises(UserError, match=f"class id {bad} does not exist.* 0 to 4"):
            grad_cam(model, variables, x, np.array([0, bad, 1]))

    @pytest.mark.parametrize("bad", [np.array([0, 1]), np.array([[0], [1], [2]]), 3])
    def test_one_class_per_image(self, linear, bad):
        model, variables, x = linear
        with pytest.raises(UserError, match=r"one class per image, shape \(3,\)"):
            grad_cam(model, variables, x, bad)

    def test_class_ids_are_integers(self, linear):
        model, variables, x = linear
        with pytest.raises(UserError, match="must be integers, got float"):
            grad_cam(model, variables, x, np.array([0.0, 1.0, 2.0]))
