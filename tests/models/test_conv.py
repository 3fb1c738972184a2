"""Every formulation of convolution and max-pooling against XLA's own, values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rcmnet_jax.models import conv, conv_forms, winograd
from rcmnet_jax.models import max_pool as max_pool_module
from rcmnet_jax.models.conv import Conv, conv2d
from rcmnet_jax.models.conv_forms import band_conv2d, patch_conv2d, plain_conv2d, scanned_conv2d
from rcmnet_jax.models.max_pool import max_pool
from rcmnet_jax.models.small_map_conv import small_map_conv2d
from rcmnet_jax.models.winograd import winograd_conv2d

# Heights and widths from 1 to 9, odd and even, square and not.
SIZES = ((1, 1), (2, 2), (2, 3), (3, 1), (4, 4), (5, 7), (6, 8), (7, 6), (8, 9), (9, 5))
# (kernel, stride, padding), the networks' own among them.
CONVOLUTIONS = (
    *((1, stride, 0) for stride in (1, 2)),
    (3, 1, 0),
    *((3, stride, 1) for stride in (1, 2)),
    *((5, stride, 2) for stride in (1, 2)),
    *((7, stride, 3) for stride in (1, 2)),
    (11, 4, 2),
)
POOLS = ((2, 2, 0), (3, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 0))
# Nine channels are more than the image's three, from where small maps are treated apart.
CHANNELS_IN, CHANNELS_OUT = 9, 5


# Patches of large kernels are many slices, and compile slowly: fewer sizes there.
EVERY = {5: 2, 7: 3, 11: 4}


def fitting(kernel, padding):
    sizes = SIZES[:: EVERY.get(kernel, 1)]
    return [size for size in sizes if min(size) + 2 * padding >= kernel]


def noise(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def assert_close(actual, desired):
    """Relative to the largest magnitude: sums of up to a thousand products in another order."""
    desired = np.asarray(desired)
    atol = 1e-5 * max(np.abs(desired).max(), 1)
    np.testing.assert_allclose(actual, desired, rtol=1e-5, atol=atol)


def value_and_gradients(function, *inputs):
    """The value, and the gradients for a random cotangent (a plain sum would hide exchanges)."""
    y, pull = jax.vjp(function, *inputs)
    return y, pull(jnp.asarray(noise(*y.shape, seed=1)))


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
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (7, 2, 3), (5, 1, 0)]
)
@pytest.mark.parametrize("batch", [1, 3, 8])
def test_kernel_gradient_in_a_scan(monkeypatch, kernel, stride, padding, batch):
    # So few rows at once that eight images are several groups.
    monkeypatch.setattr(conv_forms, "ROWS_AT_ONCE", 100)
    x, weights = noise(batch, 9, 8, 5), noise(kernel, kernel, 5, 4)

    @jax.jit
    def both(x, weights):
        ours = value_and_gradients(lambda x, w: scanned_conv2d(x, w, stride, padding), x, weights)
        plain = partial(plain_conv2d, stride=stride, padding=padding)
        return ours, value_and_gradients(plain, x, weights)

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


def test_parts_of_a_batch_are_the_whole():
    x, weights = noise(16, 9, 8, 3), noise(7, 7, 3, 32)

    @jax.jit
    def both(x, weights):
        ours = value_and_gradients(lambda x, w: scanned_conv2d(x, w, 2, 3, 8), x, weights)
        plain = partial(plain_conv2d, stride=2, padding=3)
        return ours, value_and_gradients(plain, x, weights)

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


@pytest.mark.parametrize(
    ("batch", "features", "parts"),
    [(64, 64, 8), (64, 128, 8), (64, 160, 1), (60, 64, 1), (8, 64, 1)],
)
def test_only_large_convolutions_of_one_core_are_cut(monkeypatch, batch, features, parts):
    monkeypatch.setattr(conv.jax, "device_count", lambda: 1)
    monkeypatch.setattr(conv, "scanned_conv2d", lambda *arguments: arguments[-1])
    x = np.zeros((batch, 64, 64, 3), np.float32)
    assert conv2d(x, np.zeros((7, 7, 3, features)), stride=2, padding=3) == parts


def test_groups_of_images_divide_the_batch_and_stay_small():
    assert conv_forms._images_at_once(64, 256) == 8
    assert conv_forms._images_at_once(64, 1024) == 2
    # Two even where that is too many rows: one image keeps only one core busy.
    assert conv_forms._images_at_once(16, 8190) == 2
    assert conv_forms._images_at_once(7, 400) == 1
    assert conv_forms._images_at_once(6, 400) == 3


@pytest.mark.parametrize("batch", [1, 3, 4])
@pytest.mark.parametrize("size", [(2, 2), (3, 5), (6, 4), (7, 8)])
def test_winograd(monkeypatch, batch, size):
    # So few bytes at once that three and four images are several groups.
    monkeypatch.setattr(winograd, "GROUP_BYTES", 16 * 6 * 9 * 4 * 2)
    x, weights = noise(batch, *size, CHANNELS_IN), noise(3, 3, CHANNELS_IN, CHANNELS_OUT)

    @jax.jit
    def both(x, weights):
        plain = partial(plain_conv2d, padding=1)
        return [value_and_gradients(f, x, weights) for f in (winograd_conv2d, plain)]

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 2), (4, 4), (5, 3)])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"), [(3, 1, 1), (3, 2, 1), (3, 1, 0), (5, 1, 2), (7, 2, 3)]
)
def test_products_of_pixels(kernel, stride, padding, size):
    if min(size) + 2 * padding < kernel:
        pytest.skip("no result")
    x, weights = noise(2, *size, CHANNELS_IN), noise(kernel, kernel, CHANNELS_IN, CHANNELS_OUT)

    @jax.jit
    def both(x, weights):
        plain = partial(plain_conv2d, stride=stride, padding=padding)
        ours = value_and_gradients(lambda x, w: small_map_conv2d(x, w, stride, padding), x, weights)
        return ours, value_and_gradients(plain, x, weights)

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


def test_winograd_is_no_less_exact_than_a_plain_convolution():
    """Against float64, at the widths of the networks; relative to the largest result."""
    x, weights = noise(4, 8, 8, 256), noise(3, 3, 256, 256) / 48
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    exact = sum(
        padded[:, i : i + 8, j : j + 8] @ weights[i, j].astype(np.float64)
        for i in range(3)
        for j in range(3)
    )

    # XLA's own convolution adds in an order that depends on the processor: 5e-7 with AVX-512, 2e-6
    # with AVX2.
    error = np.abs(np.asarray(winograd_conv2d(x, weights)) - exact).max() / np.abs(exact).max()
    assert error < 1e-6


@pytest.mark.parametrize("size", [(2, 2), (3, 5), (12, 12), (5, 9)])
@pytest.mark.parametrize(("kernel", "channels", "features"), [(7, 2, 1), (3, 1, 2), (5, 2, 2)])
def test_product_with_a_band_matrix(size, kernel, channels, features):
    x, weights = noise(2, *size, channels), noise(kernel, kernel, channels, features)

    @jax.jit
    def both(x, weights):
        forms = (band_conv2d, plain_conv2d)
        padding = kernel // 2
        return [value_and_gradients(partial(f, padding=padding), x, weights) for f in forms]

    ours, reference = both(x, weights)
    jax.tree.map(assert_close, ours, reference)


# Case -> batch, side, channels in and out, kernel, stride, padding; and what the rule takes.
CHOICES = {
    "stage1 at 64x64, batch 64": ((64, 16, 64, 64, 3, 1, 1), "winograd_conv2d"),
    "stage3 at 64x64": ((64, 4, 256, 256, 3, 1, 1), "winograd_conv2d"),
    "stage4 at 64x64": ((64, 2, 512, 512, 3, 1, 1), "small_map_conv2d"),
    "stage4 at 64x64, one image": ((1, 2, 512, 512, 3, 1, 1), "small_map_conv2d"),
    "stage4 at 96x96": ((64, 3, 512, 512, 3, 1, 1), "small_map_conv2d"),
    "stage4 at 128x128": ((64, 4, 512, 512, 3, 1, 1), "winograd_conv2d"),
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
        lambda x, w: small_map_conv2d(x, w, 1, 1),
        winograd_conv2d,
    ],
    ids=["scan", "pixels", "winograd"],
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


@pytest.fixture(params=["cpu", "gpu", "tpu"])
def rules(request, monkeypatch):
    """The formulations of a backend, computed on this one."""
    for module in (conv, max_pool_module):
        monkeypatch.setattr(module, "backend", lambda: request.param)
    return request.param


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


def test_a_gpu_computes_the_stem_on_blocks_of_pixels(monkeypatch):
    monkeypatch.setattr(conv, "backend", lambda: "gpu")
    images, maps = (jnp.zeros((2, 363, 360, 3)), jnp.zeros((2, 91, 90, 2)))
    strided = partial(conv2d, stride=2, padding=3)
    stem = str(jax.make_jaxpr(strided)(images, jnp.zeros((7, 7, 3, 4))))
    assert "f32[2,185,183,16]" in stem
    gate = str(jax.make_jaxpr(partial(conv2d, padding=3))(maps, jnp.zeros((7, 7, 2, 1))))
    assert "conv_general_dilated" not in gate
    # As a product of a strided selection XLA's Triton fusion aborts the process at this size.
    shortcut = jax.make_jaxpr(partial(conv2d, stride=2))(maps, jnp.zeros((1, 1, 2, 4)))
    assert "dot_general" not in str(shortcut)


@pytest.mark.parametrize(("size", "stride", "padding"), POOLS)
def test_max_pool(rules, size, stride, padding):
    # All values are different, so the gradient has one place to go.
    inputs = [noise(2, *shape, 3) for shape in fitting(size, padding)[::2]]
    pads = ((padding, padding), (padding, padding))

    def ours(x):
        return max_pool(x, size=size, stride=stride, padding=padding)

    def reference(x):
        return nn.max_pool(x, (size, size), (stride, stride), pads)

    @jax.jit
    def both(inputs):
        return [[value_and_gradients(f, x) for f in (ours, reference)] for x in inputs]

    assert inputs
    for (y, gradient), (y_reference, gradient_reference) in both(inputs):
        np.testing.assert_array_equal(y, y_reference)
        jax.tree.map(assert_close, gradient, gradient_reference)


def test_max_pool_never_returns_the_padding(rules):
    x = -1 - np.abs(noise(1, 5, 5, 2))
    assert np.isfinite(max_pool(x, size=3, stride=2, padding=1)).all()


def test_max_pool_lets_nan_through(rules):
    x = noise(1, 6, 6, 2)
    x[0, 2, 3, 1] = np.nan
    missing = np.isnan(max_pool(x, size=3, stride=2, padding=1))
    # XLA's own windowed maximum, left to TPU, drops it on CPU.
    if rules != "tpu":
        assert missing[..., 1].any()
    assert not missing[..., 0].any()


def test_ties_in_max_pool_share_the_gradient_without_losing_any(rules):
    gradient = jax.grad(lambda x: max_pool(x, size=2, stride=2).sum())(jnp.ones((1, 4, 4, 1)))
    np.testing.assert_allclose(gradient.sum(), 4, rtol=1e-6)


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
