"""Logits of any number of images."""

import jax
import numpy as np
import pytest

from rcmnet_jax.errors import DataError
from rcmnet_jax.hosts.mesh import make_mesh, put_batch, require_divisible
from rcmnet_jax.inference.predictor import Predictor, softmax
from tests.training.tiny import TinyNet, tiny_state

PIXELS = np.random.default_rng(0).integers(0, 256, (23, 6, 6, 3), dtype=np.uint8)


def predictor(batch_size: int) -> Predictor:
    return Predictor(TinyNet(), mean=(0.5,) * 3, std=(0.25,) * 3, batch_size=batch_size)


@pytest.fixture(scope="module")
def variables():
    return tiny_state().eval_variables


def test_no_image_is_dropped_and_the_batch_size_changes_nothing(variables):
    rows = np.random.default_rng(1).permutation(23)
    expected = predictor(23).logits(variables, PIXELS, rows)
    assert expected.shape == (23, 3)
    for size in (1, 4, 7, 64):
        logits = predictor(size).logits(variables, PIXELS, rows)
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)


def test_any_number_of_images_takes_one_compilation(variables):
    one = predictor(8)
    for count in (1, 8, 9, 23):
        assert len(one.logits(variables, PIXELS, np.arange(count))) == count
    assert one._predict._cache_size() == 1


def test_no_images_are_no_logits(variables):
    assert len(predictor(4).logits(variables, PIXELS, np.arange(0))) == 0


@pytest.mark.two_devices
def test_variables_on_one_device_serve_a_mesh_of_several(variables):
    assert jax.device_count() > 1
    here = jax.device_put(variables, jax.devices()[1])
    there = predictor(4).logits(here, PIXELS, np.arange(5))
    np.testing.assert_array_equal(there, predictor(4).logits(variables, PIXELS, np.arange(5)))


def test_an_image_that_cannot_be_read_is_raised(variables):
    class Broken:
        def __getitem__(self, rows):
            raise DataError("image 7 is damaged")

    with pytest.raises(DataError, match="image 7"):
        predictor(4).logits(variables, Broken(), np.arange(5))


def test_softmax_sums_to_one_and_takes_large_logits():
    probabilities = softmax(np.float32([[1000, 999, -1000], [0, 0, 0]]))
    assert probabilities.dtype == np.float64
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-15)
    np.testing.assert_allclose(probabilities[1], 1 / 3)


@pytest.mark.two_devices
def test_a_batch_is_split_evenly_over_the_devices():
    batch = put_batch(np.arange(8), make_mesh())
    assert [shard.data.shape for shard in batch.addressable_shards] == [(4,), (4,)]
    require_divisible(8, make_mesh(), "train.batch_size")
