"""The mean over the eight views of a picture."""

import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.overlay import upsample
from rcmnet_jax.explain.smoothing import centred_grid, dihedral_mean
from rcmnet_jax.models.grid import Grid

RNG = np.random.default_rng(0)


def corner_heavy(x):
    """Maps that favour the left and the upper rows, whatever the picture shows."""
    weights = jnp.outer(jnp.arange(x.shape[1], 0, -1.0), jnp.arange(x.shape[2], 0, -1.0))
    return x[..., 0] * weights[None]


@pytest.mark.parametrize(("size", "turns"), [((5, 5), 1), ((5, 5), 2), ((4, 6), 2)])
def test_the_mean_turns_with_the_picture(size, turns):
    x = jnp.asarray(RNG.uniform(0, 1, (2, *size, 3)), jnp.float32)
    mean, spread = dihedral_mean(corner_heavy, x)
    turned, turned_spread = dihedral_mean(corner_heavy, jnp.rot90(x, turns, axes=(1, 2)))
    np.testing.assert_allclose(jnp.rot90(mean, turns, axes=(1, 2)), turned, rtol=1e-5)
    np.testing.assert_allclose(jnp.rot90(spread, turns, axes=(1, 2)), turned_spread, rtol=1e-4)
    assert not np.allclose(mean, corner_heavy(x))


def test_maps_that_turn_with_the_picture_stay_and_do_not_spread():
    x = jnp.asarray(RNG.uniform(0, 1, (2, 6, 6, 3)), jnp.float32)
    mean, spread = dihedral_mean(lambda x: x[..., 1], x)
    np.testing.assert_allclose(mean, x[..., 1], rtol=1e-6)
    np.testing.assert_allclose(spread, 0, atol=1e-6)


def test_eight_views_of_square_maps_and_four_of_others():
    seen = []
    for size in ((6, 6), (6, 4)):
        calls = []
        dihedral_mean(lambda x, c=calls: c.append(x) or x[..., 0], jnp.zeros((1, *size, 3)))
        seen.append(len(calls))
    assert seen == [8, 4]


def test_a_square_map_of_an_oblong_picture_that_does_not_stay_square():
    x = jnp.zeros((1, 6, 4, 3))

    def maps(x):
        return jnp.zeros((1, 3, 3) if x.shape[1] == 6 else (1, 3, 2))

    with pytest.raises(UserError, match="6x4 images turned by a quarter"):
        dihedral_mean(maps, x)


def test_smoothed_cells_are_centred():
    """Averaged after placing, or placed on the centred grid: the centre of mass is the same."""
    grid, size, cam = Grid(32, 0), (64, 64), np.ones((2, 2), np.float32)
    rows, columns = centred_grid(grid, (2, 2), size)
    assert rows == columns == Grid(32, 15.5)
    cam[1, 1] = 3.0
    placed = upsample(cam, size, (rows, columns))
    mirrored = upsample(cam[::-1, ::-1], size, (rows, columns))
    np.testing.assert_allclose(placed, mirrored[::-1, ::-1], rtol=1e-6)
    assert centred_grid(None, (2, 2), size) is None
