"""The mean over the eight views of a picture."""

import jax.numpy as jnp
import numpy as np
import pytest

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.overlay import upsample
from rcmnet_jax.explain.smoothing import dihedral_mean
from rcmnet_jax.models.grid import Grid

RNG = np.random.default_rng(0)
PIXELS = Grid(1, 0)


def corner_heavy(x):
    """Maps that favour the left and the upper rows, whatever the picture shows."""
    weights = jnp.outer(jnp.arange(x.shape[1], 0, -1.0), jnp.arange(x.shape[2], 0, -1.0))
    return x[..., 0] * weights[None]


def sampled(x):
    """A 4x4 map of a 64-pixel picture that looks at pixels 0, 16, 32 and 48."""
    return x[:, ::16, ::16, 0]


@pytest.mark.parametrize(
    ("maps_of", "grid", "size", "turns"),
    [
        (corner_heavy, PIXELS, (5, 5), 1),
        (corner_heavy, PIXELS, (5, 5), 2),
        (corner_heavy, PIXELS, (4, 6), 2),
        (sampled, Grid(16, 0), (64, 64), 3),
    ],
)
def test_the_mean_turns_with_the_picture(maps_of, grid, size, turns):
    x = jnp.asarray(RNG.uniform(0, 1, (2, *size, 3)), jnp.float32)
    mean, spread = dihedral_mean(maps_of, x, grid)
    turned, turned_spread = dihedral_mean(maps_of, jnp.rot90(x, turns, axes=(1, 2)), grid)
    assert mean.shape == (2, *size)
    np.testing.assert_allclose(np.rot90(mean, turns, axes=(1, 2)), turned, rtol=1e-4)
    np.testing.assert_allclose(
        np.rot90(spread, turns, axes=(1, 2)), turned_spread, rtol=1e-3, atol=1e-6
    )
    assert not np.allclose(mean, upsample(np.asarray(maps_of(x)), size, grid))


def test_maps_that_turn_with_the_picture_stay_and_do_not_spread():
    x = jnp.asarray(RNG.uniform(0, 1, (2, 6, 6, 3)), jnp.float32)
    mean, spread = dihedral_mean(lambda x: x[..., 1], x, PIXELS)
    np.testing.assert_allclose(mean, x[..., 1], rtol=1e-5)
    np.testing.assert_allclose(spread, 0, atol=1e-6)


def test_neighbouring_cells_are_not_mixed():
    """A bright middle: views look at pixels 32 and 31, which lie side by side in the picture."""
    rows = np.arange(64)
    bump = np.exp(-((rows[:, None] - 31.5) ** 2 + (rows - 31.5) ** 2) / (2 * 6.0**2))
    x = jnp.asarray(np.repeat(bump[None, :, :, None], 3, axis=-1), jnp.float32)
    mean, _ = dihedral_mean(sampled, x, Grid(16, 0))
    # In cells, the mean of 32 and 31 would also be that of 32 and 47.
    assert mean[0, 31:33, 31:33].min() > 0.9
    assert mean[0, 0, 0] < 0.1


def test_eight_views_of_square_maps_and_four_of_others():
    seen = []
    for size in ((6, 6), (6, 4)):
        calls = []
        dihedral_mean(lambda x, c=calls: c.append(x) or x[..., 0], jnp.zeros((1, *size, 3)), None)
        seen.append(len(calls))
    assert seen == [8, 4]


def test_a_square_map_of_an_oblong_picture_that_does_not_stay_square():
    def maps(x):
        return jnp.zeros((1, 3, 3) if x.shape[1] == 6 else (1, 3, 2))

    with pytest.raises(UserError, match="6x4 images turned by a quarter"):
        dihedral_mean(maps, jnp.zeros((1, 6, 4, 3)), None)
