"""Re-estimated statistics are those of the images, layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import DataError
from rcmnet_jax.models import create_model
from rcmnet_jax.transfer import reestimate_batch_stats

SMALL = {"width": 8, "stage_sizes": (1, 1, 1, 1)}


@pytest.fixture(scope="module")
def network():
    model = create_model("resnet18", num_classes=2, **SMALL)
    variables = model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    return model, {name: variables[name] for name in ("params", "batch_stats")}


def images(count: int, seed: int, *, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (shift + rng.normal(size=(count, 32, 32, 3))).astype(np.float32)


def test_one_batch_normalises_as_training_does(network):
    model, variables = network
    x = images(16, 0, shift=2.0)
    new = reestimate_batch_stats(model, variables, [x])
    expected, _ = model.apply(variables, x, train=True, mutable=["batch_stats"])
    # The same numbers twice, once by the batch and once by what was measured on it.
    np.testing.assert_allclose(model.apply(new, x, train=False), expected, rtol=1e-3, atol=1e-4)
    before = model.apply(variables, x, train=False)
    assert np.abs(np.asarray(before) - np.asarray(expected)).max() > 1e-2


def test_the_first_layer_has_the_moments_of_all_images(network):
    model, variables = network
    batches = [images(12, 1), images(8, 2, shift=3.0)]
    new = reestimate_batch_stats(model, variables, batches)
    stem = variables["params"]["stem"]["conv"]["kernel"]
    y = jax.lax.conv_general_dilated(
        jnp.concatenate(batches), stem, (2, 2), ((3, 3), (3, 3)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    stats = new["batch_stats"]["stem"]["norm"]["bn"]
    np.testing.assert_allclose(stats["mean"], y.mean((0, 1, 2)), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stats["var"], y.var((0, 1, 2)), rtol=1e-4, atol=1e-5)


def test_parameters_stay_and_no_image_is_an_error(network):
    model, variables = network
    new = reestimate_batch_stats(model, variables, [images(4, 3)])
    jax.tree.map(np.testing.assert_array_equal, new["params"], variables["params"])
    with pytest.raises(DataError, match="at least one image"):
        reestimate_batch_stats(model, variables, [])


def test_a_network_without_batch_norm_is_left_alone():
    model = create_model("resnet18", num_classes=2, norm="group", **SMALL)
    x = images(2, 4)
    variables = model.init(jax.random.key(0), x, train=False)
    assert reestimate_batch_stats(model, variables, [x]) is variables
