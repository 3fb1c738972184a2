"""`conv2d` against XLA's own convolution, values and gradients, at the networks' shapes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from rcmnet_jax.kernels.backend import formulated_for
from rcmnet_jax.kernels.conv import conv2d
from rcmnet_jax.kernels.conv_forms import plain_conv2d
from tests.kernels.compare import (
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

# Layer -> batch, height, width, channels in and out, kernel, stride, padding.
LAYERS = {
    "stem at 64x64": (8, 64, 64, 3, 64, 7, 2, 3),
    "stem at 61x66": (3, 61, 66, 3, 64, 7, 2, 3),
    "stage1 at 64x64": (8, 16, 16, 64, 64, 3, 1, 1),
    "into stage2 at 64x64": (8, 16, 16, 64, 128, 3, 2, 1),
    "shortcut into stage2": (8, 16, 16, 64, 128, 1, 2, 0),
    "stage2 at 100x92": (4, 13, 12, 128, 128, 3, 1, 1),
    "stage3 at 64x64": (64, 4, 4, 256, 256, 3, 1, 1),
    "into stage4 at 64x64": (8, 4, 4, 256, 512, 3, 2, 1),
    "stage4 at 64x64": (8, 2, 2, 512, 512, 3, 1, 1),
    "stage4 at 64x64, one image": (1, 2, 2, 512, 512, 3, 1, 1),
    "stage4 at 96x96": (8, 3, 3, 512, 512, 3, 1, 1),
    "stage4 at 28x28": (8, 1, 1, 512, 512, 3, 1, 1),
    "spatial gate": (8, 16, 16, 2, 1, 7, 1, 3),
    "AlexNet's first": (4, 64, 64, 3, 64, 11, 4, 2),
    "AlexNet's second at 64x64": (8, 7, 7, 64, 192, 5, 1, 2),
}


def both(inputs, weights, stride, padding):
    """Ours and XLA's own of each input, compiled together."""

    @jax.jit
    def run(inputs, weights):
        forms = [partial(f, stride=stride, padding=padding) for f in (conv2d, plain_conv2d)]
        return [[value_and_gradients(f, x, weights) for f in forms] for x in inputs]

    return run(inputs, weights)


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_the_networks(monkeypatch, layer):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    batch, height, width, channels, features, kernel, stride, padding = LAYERS[layer]
    x = noise(batch, height, width, channels)
    weights = noise(kernel, kernel, channels, features) / np.float32(kernel * channels**0.5)
    ((ours, reference),) = both([x], weights, stride, padding)
    jax.tree.map(assert_close, ours, reference)


@pytest.mark.parametrize(("kernel", "stride", "padding"), CONVOLUTIONS)
def test_every_size_of_map(kernel, stride, padding):
    weights = noise(kernel, kernel, CHANNELS_IN, CHANNELS_OUT)
    sizes = fitting(kernel, padding)
    assert sizes
    inputs = [noise(2, *size, CHANNELS_IN) for size in sizes[::2]]
    for ours, reference in both(inputs, weights, stride, padding):
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
    inputs = [noise(2, *size, channels[0]) for size in ((13, 12), (14, 15), (11, 11))]
    for ours, reference in both(inputs, weights, stride, padding):
        jax.tree.map(assert_close, ours, reference)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_stays(monkeypatch, dtype):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    x, weights = (noise(64, 8, 8, 64), noise(3, 3, 64, 64) / 24)
    y = conv2d(jnp.asarray(x, dtype), jnp.asarray(weights, dtype), padding=1)
    assert y.dtype == dtype
    reference = plain_conv2d(x, weights, padding=1)
    np.testing.assert_allclose(y, reference, atol=0.02 * np.abs(reference).max())


def test_the_batch_size_may_be_unknown(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    (batch,) = export.symbolic_shape("batch")
    weights = noise(3, 3, 64, 64)
    shape = jax.ShapeDtypeStruct((batch, 16, 16, 64), jnp.float32)
    exported = export.export(jax.jit(partial(conv2d, kernel=weights, padding=1)))(shape)
    x = noise(2, 16, 16, 64)
    assert_close(exported.call(x), plain_conv2d(x, weights, padding=1))


@pytest.mark.parametrize("case", ["stage1 at 64x64", "stem at 64x64", "stage4 at 64x64"])
def test_second_derivatives(monkeypatch, case):
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    _, height, width, channels, features, kernel, stride, padding = LAYERS[case]
    x = noise(8, height, width, channels)
    weights = noise(kernel, kernel, channels, features) / np.float32(kernel * channels**0.5)

    def curvature(convolve):
        def value(w):
            return (convolve(x, w, stride=stride, padding=padding) ** 3).mean()

        return jax.jit(jax.grad(lambda w: (jax.grad(value)(w) ** 2).sum()))(weights)

    ours, reference = curvature(conv2d), curvature(plain_conv2d)
    np.testing.assert_allclose(ours, reference, atol=1e-4 * np.abs(reference).max())


@formulated_for("gpu")
def test_a_gpu_never_multiplies_a_strided_selection():
    """As a product of a strided selection XLA's Triton fusion aborts the process at this size."""
    shortcut = jax.make_jaxpr(partial(conv2d, stride=2))
    assert "dot_general" not in str(shortcut(jnp.zeros((2, 91, 90, 2)), jnp.zeros((1, 1, 2, 4))))
