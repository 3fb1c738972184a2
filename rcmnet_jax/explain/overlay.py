"""Maps laid over images in viridis.

The lightness of viridis rises evenly with the value, also in print and for colour-blind readers, so
an overlay shows no edge that is not in the map; jet, the usual choice, adds several. The image
below is grey, so every hue is the map's.
"""

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rcmnet_jax.errors import UserError
from rcmnet_jax.models.grid import Grid

COLOUR_MAP = "viridis"
# Luma of Rec. 601, as Pillow's "L".
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_SCALE_WIDTH = 12  # pixels of the bar itself

# Where a map's cells lie in the image; None spreads them evenly.
Placement = Grid | None


def overlay(
    pixels_HxWx3: np.ndarray,
    cam_hxw: np.ndarray,
    *,
    alpha: float = 0.5,
    limits: tuple[float, float] | None = None,
    grid: Placement = None,
) -> np.ndarray:
    """The image in grey with the map over it in colour.

    Args:
      pixels_HxWx3: uint8 RGB.
      cam_hxw: raw map of any size, float.
      alpha: weight of the map, 0 to 1.
      limits: values of the darkest and the lightest colour; 0 and the map's maximum when None. An
        empty map is dark everywhere.
      grid: where the map's cells lie, from ``model.layers``; None spreads them evenly.

    Returns:
      (H, W, 3) uint8.

    Raises:
      UserError: not an image, or a map that is not two-dimensional and finite.
    """
    pixels = np.asarray(pixels_HxWx3)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UserError(
            f"an overlay needs uint8 pixels (H, W, 3), got {pixels.dtype} {pixels.shape}"
        )
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha must lie between 0 and 1, got {alpha}")
    values = upsample(cam_hxw, pixels.shape[:2], grid)
    low, high = limits or (0.0, float(np.max(cam_hxw)))
    shown = (values - low) / (high - low) if high > low else np.zeros_like(values)
    grey_HxWx1 = (pixels @ _LUMA)[..., None]
    return np.round((1 - alpha) * grey_HxWx1 + alpha * colours(shown)).astype(np.uint8)


def colours(values: np.ndarray) -> np.ndarray:
    """RGB uint8 of values clipped to [0, 1], with a last axis of 3."""
    table = matplotlib.colormaps[COLOUR_MAP]
    return np.asarray(table(np.clip(values, 0, 1), bytes=True))[..., :3]


def upsample(cam_hxw: np.ndarray, size: tuple[int, int], grid: Placement = None) -> np.ndarray:
    """Resizes a map to the image, linearly between the centres of its cells.

    Args:
      cam_hxw: map, or maps along leading axes.
      size: (H, W) of the image, in pixels.
      grid: where the cells lie; None spreads them evenly.

    Returns:
      (..., H, W) float32; beyond the outermost centres, the nearest centre's value.

    Raises:
      UserError: the map has less than two dimensions, is empty or not finite.
    """
    cam = np.asarray(cam_hxw, np.float32)
    if cam.ndim < 2 or not cam.size or not np.isfinite(cam).all():
        raise UserError(
            f"a map must be finite and have at least 2 dimensions, got {cam.shape}: a NaN means"
            " a class that does not exist"
        )
    rows, columns = map(_weights, cam.shape[-2:], size, (grid, grid))
    return rows @ cam @ columns.T


def _weights(cells: int, pixels: int, grid: Grid | None) -> np.ndarray:
    """(pixels, cells) matrix of linear interpolation along one axis."""
    if grid is None:
        grid = Grid(pixels / cells, (pixels / cells - 1) / 2)
    position = np.clip((np.arange(pixels) - grid.offset) / grid.stride, 0, cells - 1)
    below = np.minimum(position.astype(int), max(cells - 2, 0))
    above = np.minimum(below + 1, cells - 1)
    share = (position - below).astype(np.float32)
    weights = np.zeros((pixels, cells), np.float32)
    weights[np.arange(pixels), below] = 1 - share
    # Added, not set: a single cell is both of its neighbours.
    weights[np.arange(pixels), above] += share
    return weights


def colour_scale(height: int, limits: tuple[float, float]) -> np.ndarray:
    """A vertical colour bar labelled with its limits.

    Args:
      height: pixels, at least 32.
      limits: values at the bottom and the top.

    Returns:
      (height, 64, 3) uint8, on white.
    """
    canvas = np.full((height, 64, 3), 255, np.uint8)
    canvas[:, 4 : 4 + _SCALE_WIDTH] = colours(np.linspace(1, 0, height))[:, None]
    image = Image.fromarray(canvas)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(10)
    left = 4 + _SCALE_WIDTH + 3
    draw.text((left, 0), f"{limits[1]:.2g}", fill=(0, 0, 0), font=font)
    draw.text((left, height - 1), f"{limits[0]:.2g}", fill=(0, 0, 0), font=font, anchor="ls")
    return np.asarray(image)
