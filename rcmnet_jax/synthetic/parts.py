"""What every cell is made of: a body with its cytoplasm, a nucleus with its chromatin, granules.

Densities are planar, (3, S, S): NumPy broadcasts a mask over planes ten times faster than over a
last axis of three.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from rcmnet_jax.synthetic import shapes


@dataclasses.dataclass
class Cell:
    """A cell being painted on its own square patch.

    Attributes:
        half: the patch is (2 * half + 1) square, its middle the origin; pixels.
        body: depth of the cell's outline, float32 (S, S), pixels.
        density: optical density painted so far, float32 (3, S, S).
        mask: where the cell hides the slide, float32 (S, S) in [0, 1].
        radius: reach of the body, pixels.
    """

    half: int
    body: np.ndarray
    density: np.ndarray
    mask: np.ndarray
    radius: float

    @property
    def side(self) -> int:
        """Side of the patch, pixels."""
        return 2 * self.half + 1

    def lay(self, colour: np.ndarray, mask: np.ndarray) -> None:
        """Covers what is painted with a density, (3, 1, 1) or (3, S, S), by `mask` (S, S)."""
        self.density += (colour - self.density) * mask


def start_cell(
    rng: np.random.Generator,
    radius: float,
    colour: np.ndarray,
    edge_colour: np.ndarray,
    *,
    elongation: float = 1.0,
    wobble: float = 0.02,
    ruffle: float = 0.0,
    mottle: float = 0.12,
) -> Cell:
    """A cell body filled with cytoplasm that shades from `colour` inside to `edge_colour`.

    Args:
        rng: source of randomness.
        radius: mean radius, pixels.
        colour: density of the cytoplasm near the middle, (3, 1, 1).
        edge_colour: density of the cytoplasm at the outline, (3, 1, 1).
        elongation: long axis over short axis.
        wobble: slow unevenness of the outline, share of the radius.
        ruffle: fine unevenness of the outline, pixels.
        mottle: unevenness of the cytoplasm's density, relative.
    """
    profile = shapes.harmonics(rng, wobble)
    reach = radius * float(np.sqrt(elongation) * (1.0 + np.max(profile))) + 2.5 * ruffle
    half = int(reach) + 8
    body = shapes.outline(
        half, radius, elongation=elongation, angle=rng.uniform(0, np.pi), profile=profile
    )
    side = 2 * half + 1
    if ruffle:
        body += shapes.value_noise(rng, side, rng.uniform(7.0, 11.0)) * np.float32(ruffle)
    mask = shapes.coverage(body)
    inward = np.clip(body * np.float32(1.0 / (0.45 * radius)), 0.0, 1.0)
    cloud = shapes.value_noise(rng, side, 4.0) + shapes.value_noise(rng, side, 14.0)
    uneven = np.maximum(1.0 + np.float32(0.7 * mottle) * cloud, 0.1)
    density = (edge_colour + (colour - edge_colour) * inward) * uneven
    # The membrane: a thin darker line at the outline.
    density *= 1.0 + 0.25 * np.clip(1.0 - np.abs(body - 1.5) / 2.0, 0.0, 1.0)
    return Cell(half, body, density.astype(np.float32), mask, reach)


def add_nucleus(
    cell: Cell,
    rng: np.random.Generator,
    depth: np.ndarray,
    colour: np.ndarray,
    gap_colour: np.ndarray,
    *,
    pitch: float = 8.0,
    openness: float = 0.5,
    opacity: float = 1.0,
) -> np.ndarray:
    """Paints a nucleus inside the body.

    Args:
        cell: painted in place.
        rng: source of randomness.
        depth: the nucleus as a depth field, (S, S).
        colour: density of dense chromatin, (3, 1, 1).
        gap_colour: density of the lighter gaps between clumps, (3, 1, 1).
        pitch: size of the chromatin clumps, pixels.
        openness: how much of the gaps shows, in [0, 1].
        opacity: of the whole nucleus, in [0, 1].

    Returns:
        The nucleus mask, float32 (S, S).
    """
    side = cell.side
    inside = np.minimum(depth, cell.body - 2.0)
    mask = shapes.coverage(inside)
    clumps = 1.0 + np.float32(0.14) * shapes.value_noise(rng, side, pitch)
    # No gaps at the nuclear membrane, where chromatin is always dense.
    deep = np.clip((inside - 1.0) * np.float32(0.5), 0.0, 1.0)
    gaps = shapes.ridges(rng, side, 0.7 * pitch, 0.4) * np.float32(1.1 * openness)
    flecks = np.clip(1.4 * shapes.value_noise(rng, side, 0.55 * pitch) - 0.9, 0.0, 1.0)
    gaps = np.minimum(gaps + flecks * np.float32(1.2 * openness), 1.0) * deep
    chromatin = (colour + (gap_colour - colour) * gaps) * clumps
    cell.lay(chromatin, mask * np.float32(opacity))
    return mask


def add_discs(
    cell: Cell,
    rng: np.random.Generator,
    colour: np.ndarray,
    count: int,
    sizes: tuple[float, float],
    *,
    within: float = 1.0,
    margin: float = 2.0,
    avoid: np.ndarray | float = 0.0,
    opacity: float = 1.0,
) -> None:
    """Covers the body with round granules or vacuoles of one colour.

    Args:
        cell: painted in place.
        rng: source of randomness.
        colour: density of a granule, (3, 1, 1); small for a vacuole.
        count: granules thrown over a disc around the middle.
        sizes: smallest and largest radius, pixels.
        within: radius of that disc over the cell's reach.
        margin: distance kept from the outline, pixels; negative lets granules stick out.
        avoid: mask (S, S) that hides granules, such as the nucleus.
        opacity: of the granules, in [0, 1].
    """
    dots = shapes.scatter(rng, cell.half, within * cell.radius, count, sizes)
    dots *= shapes.coverage(cell.body - margin, 2.0) * (1.0 - avoid) * np.float32(opacity)
    cell.lay(colour, dots)
    cell.mask = np.maximum(cell.mask, dots)


def polar_point(distance: float, angle: float) -> shapes.Point:
    """(x, y) of a point given in polar coordinates around the patch's middle."""
    return float(distance * np.cos(angle)), float(distance * np.sin(angle))
