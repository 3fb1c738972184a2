"""Soft shapes and textures as small float32 fields: outlines, lobes, value noise, granules.

A shape is a *depth* field: pixels to the outline, positive inside. Depth fields join with
`smooth_union`, are roughened by adding noise, and become an antialiased mask with `coverage`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

# Half the side of the shared polar grid: above the largest patch (a half side) plus an offset.
_REACH = 320
_ANGLES = 720
_THETA = np.linspace(0.0, 2.0 * np.pi, _ANGLES, endpoint=False, dtype=np.float32)
Point = tuple[float, float]


@functools.cache
def _polar_grid() -> tuple[np.ndarray, np.ndarray]:
    """Radius in pixels and angle bin around the middle of a (2 * _REACH + 1) square."""
    y, x = np.mgrid[-_REACH : _REACH + 1, -_REACH : _REACH + 1].astype(np.float32)
    angle = np.arctan2(y, x) % (2.0 * np.pi)
    return np.hypot(x, y), (angle * (_ANGLES / (2.0 * np.pi))).astype(np.int32) % _ANGLES


def _window(half: int, centre: Point) -> tuple[slice, slice]:
    """The part of the polar grid that a patch sees when the shape's centre is moved."""
    left = _REACH - half - round(centre[0])
    top = _REACH - half - round(centre[1])
    side = 2 * half + 1
    return slice(top, top + side), slice(left, left + side)


@functools.cache
def _waves(order: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of `order` times the angle, kept: a smear asks for them a hundred times."""
    return np.cos(order * _THETA), np.sin(order * _THETA)


def _wave(order: int, phase: float) -> np.ndarray:
    """cos(order * angle + phase) over the angles."""
    cosine, sine = _waves(order)
    return cosine * np.float32(np.cos(phase)) - sine * np.float32(np.sin(phase))


def harmonics(
    rng: np.random.Generator, amplitude: float, orders: Sequence[int] = (2, 3, 4, 5)
) -> np.ndarray:
    """A closed random profile around 0 over the angles, float32 (angles,)."""
    total = np.zeros(_ANGLES, np.float32)
    for order in orders:
        size = rng.normal(0.0, amplitude) * (2.0 / order) ** 0.5
        total += np.float32(size) * _wave(order, rng.uniform(0, 2 * np.pi))
    return total


def dent(angle: float, depth: float, sharpness: float = 4.0) -> np.ndarray:
    """A notch in a radial profile at `angle` (radians), `depth` a share of the radius."""
    return np.float32(-depth) * np.exp(sharpness * (np.cos(_THETA - np.float32(angle)) - 1.0))


def outline(
    half: int,
    radius: float,
    *,
    centre: Point = (0.0, 0.0),
    elongation: float = 1.0,
    angle: float = 0.0,
    profile: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Depth of a star-shaped outline in a patch.

    Args:
        half: the patch is (2 * half + 1) square, its middle the origin; pixels.
        radius: mean radius, pixels.
        centre: (x, y) of the shape from the patch's middle, rounded to whole pixels.
        elongation: long axis over short axis, at equal area.
        angle: of the long axis, radians.
        profile: relative change of the radius over the angles, from `harmonics` and `dent`.

    Returns:
        float32 (2 * half + 1, 2 * half + 1), pixels, positive inside.
    """
    # 1 / r^2 = cos^2 / e + sin^2 * e, written with the double angle.
    short, long = 0.5 * (elongation + 1.0 / elongation), 0.5 * (elongation - 1.0 / elongation)
    ellipse = 1.0 / np.sqrt(np.float32(short) - np.float32(long) * _wave(2, -2.0 * angle))
    edge = (radius * ellipse * (1.0 + profile)).astype(np.float32)
    distance, bins = _polar_grid()
    window = _window(half, centre)
    return edge[bins[window]] - distance[window]


def strand(half: int, start: Point, end: Point, radius: float) -> np.ndarray:
    """Depth of a round-ended bar from `start` to `end` (x, y from the patch's middle)."""
    axis = np.arange(-half, half + 1, dtype=np.float32)
    along = np.float32(end[0] - start[0]), np.float32(end[1] - start[1])
    length = max(float(along[0] ** 2 + along[1] ** 2), 1e-6)
    x, y = (axis - np.float32(start[0]))[None, :], (axis - np.float32(start[1]))[:, None]
    share = np.clip((x * along[0] + y * along[1]) / np.float32(length), 0.0, 1.0)
    return np.float32(radius) - np.hypot(x - share * along[0], y - share * along[1])


def smooth_union(first: np.ndarray, second: np.ndarray, width: float) -> np.ndarray:
    """Union of two depth fields whose joint is rounded over `width` pixels."""
    gap = np.abs(first - second)
    bridge = np.maximum(np.float32(width) - gap, 0.0)
    return np.maximum(first, second) + bridge * bridge * np.float32(0.25 / width)


def coverage(depth: np.ndarray, softness: float = 1.6) -> np.ndarray:
    """Antialiased mask in [0, 1] of a depth field; `softness` is the edge's width in pixels."""
    return np.clip(depth * np.float32(1.0 / softness) + np.float32(0.5), 0.0, 1.0)


def value_noise(rng: np.random.Generator, side: int, pitch: float) -> np.ndarray:
    """Smooth noise of zero mean and about unit spread on a square patch.

    Args:
        rng: source of randomness.
        side: of the patch, pixels.
        pitch: distance between the knots, pixels: the size of the features.

    Returns:
        float32 (side, side).
    """
    knots = int(side / pitch) + 3
    coarse = Image.fromarray(rng.standard_normal((knots, knots), dtype=np.float32))
    # One knot of margin each side, so that no border of the resampling shows.
    span = side / pitch
    smooth = coarse.resize((side, side), Image.Resampling.BICUBIC, box=(1, 1, 1 + span, 1 + span))
    return np.asarray(smooth) * np.float32(1.35)


def ridges(rng: np.random.Generator, side: int, pitch: float, width: float) -> np.ndarray:
    """A net of thin light lines in [0, 1], where noise crosses zero: the gaps in chromatin."""
    return np.clip(1.0 - np.abs(value_noise(rng, side, pitch)) / np.float32(width), 0.0, 1.0)


def scatter(
    rng: np.random.Generator, half: int, reach: float, count: int, sizes: tuple[float, float]
) -> np.ndarray:
    """Round granules thrown over a disc.

    Args:
        rng: source of randomness.
        half: the patch is (2 * half + 1) square; pixels.
        reach: radius of the disc that holds the granules' centres, pixels.
        count: number of granules.
        sizes: smallest and largest radius of a granule, pixels.

    Returns:
        float32 mask in [0, 1].
    """
    side = 2 * half + 1
    # Drawn at twice the size and averaged down: Pillow's discs are not antialiased.
    sheet = Image.new("L", (2 * side, 2 * side))
    pen = ImageDraw.Draw(sheet)
    distance = reach * np.sqrt(rng.random(count))
    angle = rng.uniform(0.0, 2.0 * np.pi, count)
    radius = 2.0 * rng.uniform(*sizes, count)
    x = side + 2.0 * distance * np.cos(angle)
    y = side + 2.0 * distance * np.sin(angle)
    boxes = np.stack([x - radius, y - radius, x + radius, y + radius], axis=1)
    for box in boxes.tolist():
        pen.ellipse(box, fill=255)
    return np.asarray(sheet.reduce(2), np.float32) * np.float32(1.0 / 255.0)
