"""Does the map point at the cell? Pointing game and energy in the box, with intervals.

Cells lie in the middle of their pictures, so every number comes with two controls: the box's share
of the picture, which is the energy of a constant map, and a spot in the middle of the picture,
which depends on no image.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.bootstrap import Resampler
from rcmnet_jax.evaluation.comparison import mcnemar
from rcmnet_jax.evaluation.intervals import Interval, Proportion
from rcmnet_jax.explain.boxes import Box, BoxTable, box_in_pixels
from rcmnet_jax.explain.images import CellImage
from rcmnet_jax.explain.network_maps import NetworkMaps, untrained_variables
from rcmnet_jax.explain.overlay import Placement, upsample
from rcmnet_jax.models.grid import Grid

# Standard deviation of the control spot, as a share of the picture's sides.
SPOT_SIZE = 0.2


@dataclasses.dataclass(frozen=True)
class Localisation:
    """How N maps agree with the boxes around the cells.

    Attributes:
      hit: (N,) bool, the map's largest cell is centred in the box; an empty map misses.
      energy: (N,) share of the positive map that lies in the box; NaN for an empty map.
      area: (N,) the box's share of the picture.
    """

    hit: np.ndarray
    energy: np.ndarray
    area: np.ndarray

    def __len__(self) -> int:
        return len(self.hit)

    def take(self, rows: np.ndarray) -> "Localisation":
        """The given images alone."""
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
      signed_Nxhxw: maps; negative values count as 0.
      boxes: N, in pixels of the network's input.
      size: (H, W) of those images.
      grid: where the maps' cells lie; None spreads them evenly.

    Raises:
      DataError: maps and boxes differ in number, or a box holds no pixel.
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
    # Between centres the placed map is linear, so its maximum is at a centre.
    cell = np.unravel_index(int(cam_hxw.argmax()), cam_hxw.shape)
    centres = []
    for index, cells, pixels in zip(cell, cam_hxw.shape, size, strict=True):
        axis = grid or Grid(pixels / cells, (pixels / cells - 1) / 2)
        centre = axis.offset + int(index) * axis.stride
        # The first pixel's centre is 0 on a grid and 0.5 from the edge.
        centres.append(min(max(centre, 0), pixels - 1) + 0.5)
    return centres[0], centres[1]


def spot(height: int, width: int) -> np.ndarray:
    """(H, W) the control that depends on no image: a Gaussian spot in the middle."""
    rows = (np.arange(height) + 0.5) / height - 0.5
    columns = (np.arange(width) + 0.5) / width - 0.5
    squares = rows[:, None] ** 2 + columns[None, :] ** 2
    return np.exp(-squares / (2 * SPOT_SIZE**2)).astype(np.float32)


def mean_interval(values: np.ndarray, samples: int = 2000, seed: int = 0) -> Interval:
    """The mean with its 95 % percentile bootstrap over images (no interval for one image)."""
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

    Images where either map is empty have no energy and are left out of the difference.

    Raises:
      DataError: the numbers of images differ.
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


def localise_maps(
    maps: NetworkMaps, images: Sequence[CellImage], boxes: BoxTable, signed_Nxhxw: np.ndarray
) -> Localisation:
    """`localise` on those images that have a box, in their order.

    Args:
      maps: of the network.
      images: N.
      boxes: of some of them.
      signed_Nxhxw: the maps to compare, of `maps` or of other variables of the same network.

    Raises:
      DataError: no image has a box.
    """
    rows, in_pixels = _boxed(maps, images, boxes)
    return localise(signed_Nxhxw[rows], in_pixels, maps.input_size, maps.explained.placement)


def localisation_scores(
    maps: NetworkMaps,
    images: Sequence[CellImage],
    boxes: BoxTable,
    *,
    seeds: Sequence[int] = (0,),
) -> dict[str, Any]:
    """Pointing game and energy in the box, against untrained networks and two controls.

    Args:
      maps: of the images.
      images: those images.
      boxes: of some of them; the others are left out.
      seeds: of the untrained networks, which explain the same classes.

    Returns:
      JSON-ready: ``images`` (with a box), ``trained``, ``per_class``, ``untrained`` by seed, each
      with the paired comparison, and ``controls``.

    Raises:
      DataError: no image has a box.
    """
    rows, in_pixels = _boxed(maps, images, boxes)
    trained = localise_maps(maps, images, boxes, maps.explained.signed_Nxhxw)
    classes = np.array([images[i].true_class or "unknown" for i in rows])
    untrained = {}
    for seed in seeds:
        variables = untrained_variables(maps.network, seed=seed)
        fresh = maps.explainer(variables, maps.pixels_NxHxWx3, maps.explained.class_ids_N)
        found = localise_maps(maps, images, boxes, fresh.signed_Nxhxw)
        compared = compare_localisation(trained, found)
        untrained[str(seed)] = {**found.summary(), "trained_minus_untrained": compared}
    spots = np.repeat(spot(*maps.input_size)[None], len(rows), axis=0)
    middle = localise(spots, in_pixels, maps.input_size, None)
    return {
        "images": len(rows),
        "trained": trained.summary(),
        "per_class": {
            name: trained.take(np.flatnonzero(classes == name)).summary()
            for name in np.unique(classes).tolist()
        },
        "untrained": untrained,
        "controls": {"spot_in_the_middle": middle.summary()},
    }


def _boxed(
    maps: NetworkMaps, images: Sequence[CellImage], boxes: BoxTable
) -> tuple[np.ndarray, list[Box]]:
    """Which images have a box, and their boxes in pixels of the network's input."""
    found = [(i, boxes.find(image.file)) for i, image in enumerate(images)]
    having = [(i, box) for i, box in found if box is not None]
    if not having:
        raise DataError(
            "none of the images has a box: the table must name them by class folder and file"
        )
    preprocess = maps.network.preprocess
    rows = np.array([i for i, _ in having], int)
    return rows, [box_in_pixels(box, images[i].size, preprocess) for i, box in having]
