"""Named layers of all six networks: that they exist, their gradients, where their cells lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain import class_maps, grad_cam
from rcmnet_jax.explain.map_layers import (
    adding_at,
    deepest_layer,
    layer_grid,
    layer_names,
    layer_shapes,
    map_and_gradient,
)
from rcmnet_jax.models import MODELS, create_model
from tests.models.noise import noise_variables, shapes_of

NARROW = {
    "vgg19": {"stages": ((1, 4), (1, 4), (2, 4), (1, 8), (1, 8)), "hidden": 16},
    "alexnet": {"hidden": 16},
}
RESIDUAL = {"width": 8, "reduction": 4, "stem": "small", "stage_sizes": (1, 1)}
IDS = np.array([0, 2], np.int32)


def build(name, **options):
    size = (96, 64) if name in NARROW else (16, 24)
    model = create_model(name, 3, **(NARROW.get(name, RESIDUAL) | options))
    x = np.random.default_rng(1).uniform(0, 1, (2, *size, 3)).astype(np.float32)
    return model, noise_variables(model, x.shape), x


@pytest.fixture(scope="module")
def rcmnet():
    return build("rcmnet")


def test_the_layers_of_rcmnet():
    names = layer_names(create_model("rcmnet", 8))
    stages = [f"stage{n}" for n in range(1, 5)]
    assert {"stem", "bot", *stages} <= set(names)
    assert [n for n in names if n.endswith("cbam")] == [
        f"{stage}/block{block}/cbam" for stage in stages for block in (1, 2)
    ]
    assert names[-1] == "bot"


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_of_every_network_is_there_and_the_last_is_the_feature_map(name):
    model, variables, x = build(name)
    names = layer_names(model)
    last = layer_grid(model, None)
    assert last == model.layers[names[-1]]

    shapes = layer_shapes(model, variables, x.shape)
    assert tuple(shapes) == names
    for layer, (_, h, w, _) in shapes.items():
        stride = model.layers[layer].stride
        # Within the pixels that paddings add or leave over.
        assert abs(h - x.shape[1] / stride) < 2, layer
        assert abs(w - x.shape[2] / stride) < 2, layer
    features = jax.eval_shape(
        lambda x: model.apply(variables, x, train=False, method="features"), x
    )
    assert shapes[names[-1]] == features.shape


@pytest.mark.parametrize(
    ("name", "size", "layer"),
    [
        ("rcmnet", (64, 64), "stage2"),
        ("rcmnet", (96, 96), "stage3"),
        ("rcmnet", (96, 80), "stage2"),  # stage3 has 6x5 cells
        ("rcmnet", (363, 360), "bot"),
        ("resnet18", (161, 161), "stage4"),  # 161 / 32 is 5.03, but the map has 6 cells
        ("vgg19", (64, 64), "stage4_relu4"),
        ("alexnet", (224, 224), "pool5"),
    ],
)
def test_the_deepest_layer_with_six_cells_a_side(name, size, layer):
    model = create_model(name, 3)
    shapes = shapes_of(model, (1, *size, 3))
    assert deepest_layer(model, shapes, size) == layer
    assert deepest_layer(model, shapes, size, cells=1000) is None


@pytest.mark.parametrize("name", ["rcmnet", "vgg19"])
def test_the_last_layer_by_name_gives_the_same_map(name):
    model, variables, x = build(name)
    by_name = grad_cam(model, variables, x, IDS, layer=layer_names(model)[-1], relu=False)
    reference = np.asarray(grad_cam(model, variables, x, IDS, relu=False))
    np.testing.assert_allclose(by_name, reference, rtol=1e-4, atol=1e-5 * np.abs(reference).max())


@pytest.mark.parametrize("layer", ["stem", "stage1/block1/cbam", "stage2/block1/cbam", "stage2"])
def test_the_gradient_is_the_derivative_of_the_score(rcmnet, layer):
    """Against a central difference of the score along the gradient itself."""
    model, variables, x = rcmnet

    @jax.jit
    def gradient(x):
        return map_and_gradient(model, variables, x, jnp.asarray(IDS), "logit", layer)[1]

    @jax.jit
    def score(added):
        with adding_at(layer, added):
            logits = model.apply(variables, x, train=False)
        return logits[np.arange(2), IDS].sum()

    g = gradient(x)
    step = 1e-2 / float(jnp.linalg.norm(g))
    slope = (score(step * g) - score(-step * g)) / (2 * step)
    np.testing.assert_allclose(float((g * g).sum()), float(slope), rtol=0.03)


def test_the_shortcut_around_a_cbam_counts(rcmnet):
    """The block's output depends on the CBAM's through the sum: what it gates out gets no say."""
    model, variables, x = rcmnet

    @jax.jit
    def both(x):
        ids = jnp.asarray(IDS)
        layers = ("stage1/block1/cbam", "stage1/block1")
        return [map_and_gradient(model, variables, x, ids, "logit", layer)[:2] for layer in layers]

    (a_cbam, g_cbam), (a_block, g_block) = both(x)
    # block = ReLU(cbam + shortcut): the gradient passes where the sum is positive.
    np.testing.assert_allclose(
        g_cbam, np.where(np.asarray(a_block) > 0, g_block, 0), rtol=1e-3, atol=1e-6
    )
    assert not np.array_equal(a_cbam, a_block)


def test_another_batch_size_than_at_initialisation(rcmnet):
    model, variables, x = rcmnet
    many = np.concatenate([x, x, x])
    cam = grad_cam(model, variables, many, np.tile(IDS, 3), layer="stage1", relu=False)
    once = np.asarray(grad_cam(model, variables, x, IDS, layer="stage1", relu=False))
    np.testing.assert_allclose(cam[4:], once, rtol=1e-4, atol=1e-5 * np.abs(once).max())


def test_bfloat16_networks_give_float32_maps_at_named_layers(rcmnet):
    model, variables, x = rcmnet
    cam, logits = class_maps(
        model.clone(dtype=jnp.bfloat16), variables, x, IDS, layer="stage1", relu=False
    )
    reference = np.asarray(grad_cam(model, variables, x, IDS, layer="stage1", relu=False))
    assert cam.dtype == logits.dtype == jnp.float32
    np.testing.assert_allclose(cam, reference, rtol=0, atol=0.1 * np.abs(reference).max())


def test_logits_are_those_of_the_network(rcmnet):
    model, variables, x = rcmnet
    expected = model.apply(variables, x, train=False)
    for layer in (None, "stage1"):
        logits = class_maps(model, variables, x, IDS, layer=layer).logits_BxK
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_a_layer_that_does_not_exist_lists_those_that_do(rcmnet):
    model, variables, x = rcmnet
    with pytest.raises(UserError, match=r"no layer 'layer4': it has stem, stage1/block1/cbam, "):
        grad_cam(model, variables, x, IDS, layer="layer4")
    with pytest.raises(UserError, match="no layer 'x'"):
        layer_grid(model, "x")


@pytest.mark.parametrize(
    ("name", "layer", "options"),
    [
        ("resnet18", "stem", {"stem": "imagenet"}),
        ("resnet18", "stage2/block1", {}),
        ("vgg19", "stage3_relu2", {}),
        ("vgg19", "stage3_pool", {}),
        ("alexnet", "pool1", {}),
        ("alexnet", "relu5", {}),
    ],
)
def test_cells_lie_where_the_grid_says(name, layer, options):
    """The pixels that reach a cell are symmetric around its centre, far from the borders."""
    model = create_model(name, 3, **(NARROW.get(name, {}) | options))
    size = 256 if name == "alexnet" else 128
    shapes = shapes_of(model, (1, size, size, 3))
    # Positive weights: nothing cancels. Several images: max-pooling looks at one pixel of each.
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.01), shapes)
    images = np.random.default_rng(0).uniform(0, 1, (16, size, size, 3)).astype(np.float32)
    cell = layer_shapes(model, variables, images.shape)[layer][1] // 2

    @jax.jit
    def reach(images):
        def value(images):
            with adding_at(layer, 0.0) as maps:
                model.apply(variables, images, train=False)
            return maps[0][:, cell, cell, 0].sum()

        return jnp.abs(jax.grad(value)(images)).sum((0, 2, 3))

    strength = np.asarray(reach(images))
    # Winograd's transforms leave rounding beyond the pixels that count.
    rows = np.flatnonzero(strength > 1e-5 * strength.max())
    grid = model.layers[layer]
    assert rows[0] > 0
    assert rows[-1] < size - 1
    assert (rows[0] + rows[-1]) / 2 == grid.offset + cell * grid.stride
