"""The convolution layer: which formulation it takes, and that its values and gradients stay."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.kernels import conv
from rcmnet_jax.kernels.backend import formulated_for
from rcmnet_jax.kernels.conv import conv2d
from rcmnet_jax.kernels.conv_forms import patch_conv2d, plain_conv2d, scanned_conv2d
from rcmnet_jax.kernels.small_map_conv import small_map_conv2d
from rcmnet_jax.kernels.winograd import winograd_conv2d
from rcmnet_jax.models import Conv
from tests.kernels.formulations import (
    CHANNELS_IN,
    CHANNELS_OUT,
    assert_close,
    fitting,
    noise,
    value_and_gradients,
)

# (kernel, stride, padding), the networks' own among them.
CONVOLUTIONS = (
    *((1, stride, 0) for stride in (1, 2)),
    (3, 1, 0),
    *((3, stride, 1) for stride in (1, 2)),
    *((5, stride, 2) for stride in (1, 2)),
    *((7, stride, 3) for stride in (1, 2)),
    (11, 4, 2),
)


@pytest.mark.parametrize(("kernel", "stride", "padding"), CONVOLUTIONS)
def test_convolution(kernel, stride, padding):
    weights = noise(kernel, kernel, CHANNELS_IN, CHANNELS_OUT)
    inputs = [noise(2, *size, CHANNELS_IN) for size in fitting(kernel, padding)]

    def with_gradients(formulation, x, weights):
        bound = partial(formulation, stride=stride, padding=padding)
        return value_and_gradients(bound, x, weights)

    @jax.jit
    def all_formulations(inputs, weights):
        return [
            [with_gradients(f, x, weights) for f in (conv2d, patch_conv2d, plain_conv2d)]
            for x in inputs
        ]

    assert inputs
    for *ours, reference in all_formulations(inputs, weights):
        for one in ours:
            jax.tree.map(assert_close, one, reference)


@pytest.mark.parametrize(
    ("batch", "features", "parts"),
    [(64, 64, 8), (64, 128, 8), (64, 160, 1), (60, 64, 1), (8, 64, 1)],
)
def test_only_large_convolutions_of_one_core_are_cut(monkeypatch, batch, features, parts):
    monkeypatch.setattr(conv.jax, "device_count", lambda: 1)
    monkeypatch.setattr(conv, "scanned_conv2d", lambda x, kernel, *how: how[2])
    x = np.zeros((batch, 64, 64, 3), np.float32)
    assert conv2d(x, np.zeros((7, 7, 3, features)), stride=2, padding=3) == parts


@pytest.mark.parametrize(("channels", "by_planes"), [(1, True), (3, True), (64, False)])
def test_few_channels_are_taken_by_planes(monkeypatch, channels, by_planes):
    monkeypatch.setattr(conv.jax, "device_count", lambda: 1)
    monkeypatch.setattr(conv, "scanned_conv2d", lambda x, kernel, *how: how[-1])
    x = np.zeros((2, 64, 64, channels), np.float32)
    assert conv2d(x, np.zeros((7, 7, channels, 64)), stride=2, padding=3) == by_planes


# Case -> batch, side, channels in and out, kernel, stride, padding; and what the rule takes.
CHOICES = {
    "stage1 at 64x64, batch 64": ((64, 16, 64, 64, 3, 1, 1), "winograd_conv2d"),
    "stage3 at 64x64": ((64, 4, 256, 256, 3, 1, 1), "winograd_conv2d"),
    "stage4 at 64x64": ((64, 2, 512, 512, 3, 1, 1), "small_map_conv2d"),
    "stage4 at 64x64, one image": ((1, 2, 512, 512, 3, 1, 1), "small_map_conv2d"),
    "stage4 at 96x96": ((64, 3, 512, 512, 3, 1, 1), "small_map_conv2d"),
    "stage4 at 128x128": ((64, 4, 512, 512, 3, 1, 1), "winograd_conv2d"),
    "AlexNet's second at 64x64": ((64, 7, 64, 192, 5, 1, 2), "winograd_conv2d"),
    "a 5x5 kernel without padding": ((64, 15, 64, 192, 5, 1, 0), "scanned_conv2d"),
    "into stage4 at 96x96": ((64, 6, 256, 512, 3, 2, 1), "small_map_conv2d"),
    "into stage4 at 128x128": ((64, 8, 256, 512, 3, 2, 1), "scanned_conv2d"),
    "a small map of few channels": ((8, 2, 32, 32, 3, 1, 1), "patch_conv2d"),
    "a 1x1 map of few channels": ((64, 1, 32, 32, 3, 1, 1), "patch_conv2d"),
    "few channels": ((8, 16, 32, 32, 3, 1, 1), "scanned_conv2d"),
    "stem": ((2, 64, 3, 64, 7, 2, 3), "scanned_conv2d"),
    "between stages": ((2, 16, 64, 128, 3, 2, 1), "scanned_conv2d"),
    "spatial gate": ((2, 16, 2, 1, 7, 1, 3), "band_conv2d"),
    "few features": ((2, 16, 9, 8, 3, 1, 1), "plain_conv2d"),
}


@pytest.mark.parametrize("devices", [1, 2])
@pytest.mark.parametrize("case", CHOICES)
def test_the_formulation_is_chosen_by_shape(monkeypatch, case, devices):
    (batch, side, channels, features, kernel, stride, padding), expected = CHOICES[case]
    if devices == 2 and expected == "scanned_conv2d":
        expected = "plain_conv2d"
    if devices == 2 and expected == "winograd_conv2d":
        expected = "plain_conv2d"
    monkeypatch.setattr(conv.jax, "device_count", lambda: devices)
    taken = []
    forms = ("winograd_conv2d", "band_conv2d", "patch_conv2d", "scanned_conv2d", "small_map_conv2d")
    for name in forms:
        monkeypatch.setattr(conv, name, lambda *a, n=name, **k: taken.append(n))
    monkeypatch.setattr(conv, "plain_conv2d", lambda *a, **k: taken.append("plain_conv2d"))
    x = np.zeros((batch, side, side, channels), np.float32)
    conv2d(x, np.zeros((kernel, kernel, channels, features)), stride=stride, padding=padding)
    assert taken == [expected]


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_is_not_for_winograd(monkeypatch, dtype):
    monkeypatch.setattr(conv, "winograd_conv2d", lambda *_: pytest.fail("taken"))
    y = conv2d(jnp.zeros((64, 8, 8, 64), dtype), jnp.zeros((3, 3, 64, 64), dtype), padding=1)
    assert y.dtype == dtype


@pytest.mark.parametrize(
    "ours",
    [
        lambda x, w: scanned_conv2d(x, w, 1, 1),
        lambda x, w: scanned_conv2d(x, w, 1, 1, 1, True),
        lambda x, w: small_map_conv2d(x, w, 1, 1),
        winograd_conv2d,
    ],
    ids=["scan", "planes", "pixels", "winograd"],
)
def test_second_derivatives(ours):
    x, weights = noise(2, 5, 5, 3), noise(3, 3, 3, 4)

    def curvature(formulation):
        gradient = jax.grad(lambda w: (formulation(x, w) ** 3).sum())
        return jax.grad(lambda w: (gradient(w) ** 2).sum())(weights)

    assert_close(curvature(ours), curvature(partial(plain_conv2d, padding=1)))


def test_images_of_three_channels():
    x, weights = noise(2, 13, 12, 3), noise(7, 7, 3, 4)

    def both(x, weights):
        return [
            value_and_gradients(lambda x, w, f=f: f(x, w, stride=2, padding=3), x, weights)
            for f in (conv2d, plain_conv2d)
        ]

    ours, reference = jax.jit(both)(x, weights)
    jax.tree.map(assert_close, ours, reference)


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "channels"),
    [
        (3, 1, 1, (9, 5)),
        (1, 2, 0, (9, 5)),
        (7, 2, 3, (3, 4)),
        (11, 4, 2, (3, 4)),
        (7, 1, 3, (2, 1)),
    ],
)
def test_every_backend_computes_the_same_convolution(rules, kernel, stride, padding, channels):
    weights = noise(kernel, kernel, *channels)
    sizes = ((13, 12), (14, 15), (11, 11))

    @jax.jit
    def both(inputs, weights):
        return [
            [
                value_and_gradients(partial(f, stride=stride, padding=padding), x, weights)
                for f in (conv2d, plain_conv2d)
            ]
            for x in inputs
        ]

    inputs = [noise(2, *size, channels[0]) for size in sizes]
    for ours, reference in both(inputs, weights):
        jax.tree.map(assert_close, ours, reference)


@formulated_for("gpu")
def test_a_gpu_computes_the_stem_on_blocks_of_pixels():
    images, maps = (jnp.zeros((2, 363, 360, 3)), jnp.zeros((2, 91, 90, 2)))
    strided = partial(conv2d, stride=2, padding=3)
    stem = str(jax.make_jaxpr(strided)(images, jnp.zeros((7, 7, 3, 4))))
    assert "f32[2,185,183,16]" in stem
    gate = str(jax.make_jaxpr(partial(conv2d, padding=3))(maps, jnp.zeros((7, 7, 2, 1))))
    assert "conv_general_dilated" not in gate
    # As a product of a strided selection XLA's Triton fusion aborts the process at this size.
    shortcut = jax.make_jaxpr(partial(conv2d, stride=2))(maps, jnp.zeros((1, 1, 2, 4)))
    assert "dot_general" not in str(shortcut)


def test_layer_has_bias_types_and_explicit_padding():
    layer = Conv(4, 3, stride=2, padding=1, use_bias=True, dtype=jnp.bfloat16)
    x = noise(1, 6, 6, 3)
    variables = layer.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    variables["params"]["bias"] = jnp.arange(4.0)
    y = layer.apply(variables, x)
    assert y.dtype == jnp.bfloat16
    assert y.shape == (1, 3, 3, 4)
    zero = layer.apply(variables, np.zeros_like(x))
    np.testing.assert_array_equal(zero[0, 0, 0].astype(jnp.float32), np.arange(4.0))
