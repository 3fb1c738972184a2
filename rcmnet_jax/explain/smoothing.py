"""Maps averaged over the rotations and mirror images of the picture.

A cell has no up and no left, and the network is trained on all eight views, so differences between
views say nothing about the cell.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.overlay import Placement, upsample

# (quarter turns, mirrored) of a picture.
QUARTER_TURNS = tuple((turns, mirror) for mirror in (False, True) for turns in range(4))
HALF_TURNS = tuple((turns, mirror) for mirror in (False, True) for turns in (0, 2))


def dihedral_mean(
    maps_of: Callable[[jax.Array], jax.Array], x_BxHxWx3: jax.Array, grid: Placement
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the maps over the views of a picture, each map turned back.

    Maps are placed on the pixels first: the cells of a mirrored picture lie elsewhere, at 64 pixels
    by a whole cell, and averaging cells would mix neighbours. Square maps have eight views, others
    the four that keep the sides (half turns and mirror images).

    Args:
      maps_of: from images (B, H, W, 3) to maps (B, h, w); called once a view.
      x_BxHxWx3: images.
      grid: where the cells of the maps lie.

    Returns:
      (B, H, W) mean and (B, H, W) standard deviation, float32, of the images' size.

    Raises:
      UserError: the maps of images turned by a quarter are not square, although the first are.
    """
    views, placed = QUARTER_TURNS, []
    for turns, mirror in QUARTER_TURNS:
        if (turns, mirror) not in views:
            continue
        view_BxHxWx3 = _turn(x_BxHxWx3, turns, mirror)
        cam_Bxhxw = np.asarray(maps_of(view_BxHxWx3))
        if cam_Bxhxw.shape[1] != cam_Bxhxw.shape[2]:
            if turns % 2:
                raise UserError(
                    f"the maps of {x_BxHxWx3.shape[1]}x{x_BxHxWx3.shape[2]} images turned by a"
                    " quarter have another shape: smooth maps of square images"
                )
            views = HALF_TURNS
        _, height, width, _ = view_BxHxWx3.shape
        cam_BxHxW = upsample(cam_Bxhxw, (height, width), grid)
        placed.append(_turn_back(cam_BxHxW, turns, mirror))
    placed_VxBxHxW = np.stack(placed)
    return placed_VxBxHxW.mean(0), placed_VxBxHxW.std(0)


def _turn(x: jax.Array, turns: int, mirror: bool) -> jax.Array:
    x = jnp.flip(x, 2) if mirror else x
    return jnp.rot90(x, turns, axes=(1, 2))


def _turn_back(cam_BxHxW: np.ndarray, turns: int, mirror: bool) -> np.ndarray:
    cam_BxHxW = np.rot90(cam_BxHxW, -turns, axes=(1, 2))
    return np.flip(cam_BxHxW, 2) if mirror else cam_BxHxW
