"""Maps averaged over the rotations and mirror images of the picture.

A cell has no up and no left, and training showed the network all eight views, so what differs
between views is no property of the cell.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.models.grid import Grid

# (quarter turns, mirrored) of a picture.
QUARTER_TURNS = tuple((turns, mirror) for mirror in (False, True) for turns in range(4))
HALF_TURNS = tuple((turns, mirror) for mirror in (False, True) for turns in (0, 2))


def dihedral_mean(
    maps_of: Callable[[jax.Array], jax.Array], x_BxHxWx3: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean over the views of a picture of the maps, each turned back, and how far they differ.

    All eight views where the map is square, the four that keep the sides (turns by half, mirror
    images) where it is not.

    Args:
      maps_of: gives maps (B, h, w) for images (B, H, W, 3); called once a view.
      x_BxHxWx3: images.

    Returns:
      (B, h, w) mean and (B, h, w) standard deviation over the views, float32. The cells of both
      lie on `centred_grid`: turning a map back moves what is not centred in the image.

    Raises:
      UserError: the maps change their shape with the view although the first is square.
    """
    first_Bxhxw = maps_of(x_BxHxWx3)
    square = first_Bxhxw.shape[1] == first_Bxhxw.shape[2]
    views = QUARTER_TURNS if square else HALF_TURNS
    turned_back = [first_Bxhxw]
    for turns, mirror in views[1:]:
        cam_Bxhxw = _turn_back(maps_of(_turn(x_BxHxWx3, turns, mirror)), turns, mirror)
        if cam_Bxhxw.shape != first_Bxhxw.shape:
            raise UserError(
                f"the maps of {x_BxHxWx3.shape[1]}x{x_BxHxWx3.shape[2]} images turned by a quarter"
                " have another shape: smooth maps of square images"
            )
        turned_back.append(cam_Bxhxw)
    stacked_VxBxhxw = jnp.stack(turned_back)
    return stacked_VxBxhxw.mean(0), stacked_VxBxhxw.std(0)


def _turn(x: jax.Array, turns: int, mirror: bool) -> jax.Array:
    x = jnp.flip(x, 2) if mirror else x
    return jnp.rot90(x, turns, axes=(1, 2))


def _turn_back(cam_Bxhxw: jax.Array, turns: int, mirror: bool) -> jax.Array:
    cam_Bxhxw = jnp.rot90(cam_Bxhxw, -turns, axes=(1, 2))
    return jnp.flip(cam_Bxhxw, 2) if mirror else cam_Bxhxw


def centred_grid(
    grid: Grid | None, cells: tuple[int, int], size: tuple[int, int]
) -> tuple[Grid, Grid] | None:
    """Where the cells of a smoothed map lie, along rows and along columns.

    The mean of a grid and its mirror image: the same stride, centred in the image.

    Args:
      grid: of the map before smoothing.
      cells: (h, w) of the map.
      size: (H, W) of the image, in pixels.
    """
    if grid is None:
        return None
    offsets = (np.asarray(size) - 1 - grid.stride * (np.asarray(cells) - 1)) / 2
    rows, columns = (Grid(grid.stride, float(offset)) for offset in offsets)
    return rows, columns
