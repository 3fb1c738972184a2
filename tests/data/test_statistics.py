"""Channel statistics against NumPy in double precision, and against hand-made values."""

import numpy as np
import pytest

from rcmnet_jax.data.statistics import channel_statistics
from rcmnet_jax.errors import DataError


@pytest.mark.parametrize("shape", [(40, 9, 7, 3), (5, 200, 300, 3)])
def test_against_numpy(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    indices = np.arange(0, len(pixels), 2)
    mean, deviation = channel_statistics(pixels, indices)
    chosen = pixels[indices].astype(np.float64) / 255
    assert mean.dtype == deviation.dtype == np.float32
    np.testing.assert_allclose(mean, chosen.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(deviation, chosen.std((0, 1, 2)), rtol=1e-6)


def test_sums_do_not_overflow():
    # 70,000 rows of white: more than fit 32 bits in one sum.
    pixels = np.full((700, 100, 2, 3), 255, np.uint8)
    mean, deviation = channel_statistics(pixels, range(700))
    np.testing.assert_array_equal(mean, np.ones(3, np.float32))
    np.testing.assert_array_equal(deviation, np.zeros(3, np.float32))


def test_by_hand_and_only_the_given_images():
    pixels = np.zeros((3, 2, 2, 3), np.uint8)
    pixels[1, ..., 0] = 255
    pixels[2] = 77
    mean, deviation = channel_statistics(pixels, [1, 0])
    np.testing.assert_array_equal(mean, np.float32([0.5, 0, 0]))
    np.testing.assert_array_equal(deviation, np.float32([0.5, 0, 0]))


def test_no_images():
    with pytest.raises(DataError, match="no training images"):
        channel_statistics(np.zeros((1, 2, 2, 3), np.uint8), [])
