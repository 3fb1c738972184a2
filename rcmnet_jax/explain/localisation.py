"""Does the map point at the cell? Pointing game and energy in the box, with intervals.

Two controls belong beside every number, since cells lie in the middle of their pictures: the share
of the picture that the box takes, which a map of one value has as energy, and a spot in the middle
of the picture, which has seen no image at all.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.bootstrap import Resampler
from rcmnet_jax.evaluation.comparison import mcnemar
from rcmnet_jax.evaluation.intervals import Interval, Proportion
from rcmnet_jax.explain.boxes import Box
from rcmnet_jax.explain.overlay import Placement, upsample
from rcmnet_jax.models.grid import Grid

# Standard deviation of the control spot, as a share of the picture's sides.
SPOT_SIZE = 0.2


@dataclasses.dataclass(frozen=True)
class Localisation:
    """How the maps of N images lie to their boxes.

    Attributes:
      hit: (N,) bool, the largest cell is centred in the box; an empty map misses.
      energy: (N,) share of the positive map that lies in the box; NaN for an empty map.
      area: (N,) share of the picture that the box takes.
    """

    hit: np.ndarray
    energy: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.hit)

    def of(self, rows: np.ndarray) -> "Localisation":
        """A part of the images."""
        return Localisation(self.hit[rows], self.energy[rows], self.area[rows])

    def summary(self, *, samples: int = 2000, seed: int = 0) -> dict[str, Any]:
        """Counts and intervals, JSON-ready: ``pointing``, ``energy``, ``area``, ``empty``."""
        full = ~np.isnan(self.energy)
        return {
            "pointing": Proportion.of(int(self.hit.sum()), len(self)).to_dict(),
            "energy": mean_interval(self.energy[full], samples, seed).to_dict(),
            "area": float(self.area.mean()) if len(self) else None,
            "empty": int((~full).sum()),
        }


def localise(
    signed_Nxhxw: np.ndarray, boxes: Sequence[Box], size: tuple[int, int], grid: Placement
) -> Localisation:
    """Compares maps with boxes.

    Args:
      signed_Nxhxw: maps, from ``relu=False`` or True; negative values count as nothing.
      boxes: N, in pixels of the images that the network saw.
      size: (H, W) of those images.
      grid: where the maps' cells lie; None spreads them evenly.

    Raises:
      DataError: not one box a map, or a box without area.
    """
    maps = np.maximum(np.asarray(signed_Nxhxw, np.float32), 0)
    if len(maps) != len(boxes):
        raise DataError(f"{len(maps)} maps and {len(boxes)} boxes: give one box for each map")
    hit, energy, area = [], [], []
    for cam, box in zip(maps, boxes, strict=True):
        mask = box.mask(*size)
        if not mask.any():
            raise DataError(f"{box} holds no pixel of a {size[0]}x{size[1]} image")
        placed = upsample(cam, size, grid).astype(np.float64)
        total = placed.sum()
        y, x = _peak(cam, size, grid)
        inside = box.top <= y < box.bottom and box.left <= x < box.right
        hit.append(bool(inside and total > 0))
        energy.append(placed[mask].sum() / total if total > 0 else np.nan)
        area.append(mask.mean())
    return Localisation(np.array(hit, bool), np.array(energy), np.array(area))


def _peak(cam_hxw: np.ndarray, size: tuple[int, int], grid: Placement) -> tuple[float, float]:
    """Row and column of the centre of the largest cell, on the scale of box edges."""
    # Between centres the placed map is linear, so its maximum is at a centre: no need to search.
    cell = np.unravel_index(int(cam_hxw.argmax()), cam_hxw.shape)
    centres = []
    for index, cells, pixels in zip(cell, cam_hxw.shape, size, strict=True):
        axis = grid or Grid(pixels / cells, (pixels / cells - 1) / 2)
        centre = axis.offset + int(index) * axis.stride
        # The first pixel's centre is 0 on a grid and 0.5 from the edge.
        centres.append(min(max(centre, 0), pixels - 1) + 0.5)
    return centres[0], centres[1]


def spot(height: int, width: int) -> np.ndarray:
    """(H, W) the control that sees nothing: a Gaussian spot in the middle of the picture."""
    rows = (np.arange(height) + 0.5) / height - 0.5
    columns = (np.arange(width) + 0.5) / width - 0.5
    squares = rows[:, None] ** 2 + columns[None, :] ** 2
    return np.exp(-squares / (2 * SPOT_SIZE**2)).astype(np.float32)


def mean_interval(values: np.ndarray, samples: int = 2000, seed: int = 0) -> Interval:
    """The mean with its 95 % percentile bootstrap over images (none from a single one)."""
    values = np.asarray(values, np.float64)
    if not values.size:
        return Interval(None, None, None, 0.95, 0, "images")
    draw = Resampler(len(values), None, samples, seed)
    means = np.concatenate([values @ w / w.sum(axis=0) for w in draw.weights()])
    return draw.interval(float(values.mean()), means, 0.95)


def compare_localisation(
    first: Localisation, second: Localisation, *, samples: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Two networks on the same images, paired: energy first minus second, and McNemar on the hits.

    Images where either map is empty have no energy and are left out of its difference.

    Raises:
      DataError: not the same number of images.
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} images: compare maps of the same images")
    difference = first.energy - second.energy
    interval = mean_interval(difference[~np.isnan(difference)], samples, seed)
    only_first = int((first.hit & ~second.hit).sum())
    only_second = int((~first.hit & second.hit).sum())
    return {
        "energy_difference": interval.to_dict(),
        "hits_only_first": only_first,
        "hits_only_second": only_second,
        "mcnemar_p": mcnemar(only_first, only_second),
    }
