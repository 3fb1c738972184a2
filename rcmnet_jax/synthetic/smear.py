"""The slide around the cell: red cells, stray platelets, dirt, and the camera at the end."""

from __future__ import annotations

from types import EllipsisType

import numpy as np
from PIL import Image, ImageFilter

from rcmnet_jax.synthetic import shapes
from rcmnet_jax.synthetic.palette import Stain

# Radius of a red cell at native magnification, pixels: 7.5 micrometres are about 78 pixels.
RED_CELL_RADIUS = 38.0


def stack_patch(film: np.ndarray, patch: np.ndarray, centre: tuple[int, int]) -> None:
    """Stacks a red cell's thickness (S, S) on the film (H, W) in place.

    Where two cells overlap the upper nearly hides the lower: the sum of their densities would be
    right for glass, and looks wrong beside a photograph.
    """
    target, source = _overlap(film, patch, centre)
    below, above = film[target], patch[source]
    film[target] = np.maximum(below, above) + np.float32(0.22) * np.minimum(below, above)


def cover_patch(
    canvas: np.ndarray, patch: np.ndarray, mask: np.ndarray, centre: tuple[int, int]
) -> None:
    """Lays a density patch (3, S, S) over the canvas in place, hiding what is below by `mask`."""
    target, source = _overlap(canvas, patch, centre)
    canvas[target] += (patch[source] - canvas[target]) * mask[source[1:]]


def _overlap(
    canvas: np.ndarray, patch: np.ndarray, centre: tuple[int, int]
) -> tuple[tuple[EllipsisType | slice, ...], tuple[EllipsisType | slice, ...]]:
    """Indices where canvas and patch meet when the patch's middle is at `centre` (x, y)."""
    (height, width), side = canvas.shape[-2:], patch.shape[-1]
    top, left = centre[1] - side // 2, centre[0] - side // 2
    first_row, first_column = max(top, 0), max(left, 0)
    bottom = max(min(top + side, height), first_row)
    right = max(min(left + side, width), first_column)
    return (
        (..., slice(first_row, bottom), slice(first_column, right)),
        (..., slice(first_row - top, bottom - top), slice(first_column - left, right - left)),
    )


def _red_cell(rng: np.random.Generator, radius: float, habit: dict[str, float]) -> np.ndarray:
    """One red cell, thickness (S, S): a disc, thinner in the middle, sometimes crenated."""
    profile = shapes.harmonics(rng, 0.02, (2, 3, 4))
    pallor = np.clip(habit["pallor"] + rng.normal(0.0, 0.18), 0.0, 0.92)
    if rng.random() < habit["crenated"]:
        pallor *= 0.5
        spikes = int(rng.integers(9, 16))
        profile = profile + shapes.harmonics(rng, 0.05, (spikes, spikes + 1))
    elongation = 1.0 + abs(rng.normal(0.0, habit["oval"]))
    half = int(radius * (1.1 * np.sqrt(elongation) + 0.12)) + 3
    depth = shapes.outline(
        half, radius, elongation=elongation, angle=rng.uniform(0, np.pi), profile=profile
    )
    inward = depth * np.float32(1.0 / radius)
    # Central pallor: the biconcave disc holds less haemoglobin in the middle.
    onset = np.float32(rng.uniform(0.04, 0.34))
    rise = np.clip((inward - onset) * np.float32(1.0 / rng.uniform(0.25, 0.6)), 0.0, 1.0)
    hollow = 1.0 - np.float32(pallor) * rise * rise * (3.0 - 2.0 * rise)
    rim = 1.0 + np.float32(0.1) * np.clip(1.0 - np.abs(inward - 0.06) * 9.0, 0.0, 1.0)
    return shapes.coverage(depth, 2.4) * hollow * rim * np.float32(rng.normal(1.05, 0.08))


def add_red_cells(
    canvas: np.ndarray,
    rng: np.random.Generator,
    stain: Stain,
    keep_clear: tuple[int, int, float],
) -> None:
    """Fills the field with red cells around the cell of interest.

    Args:
        canvas: density (3, H, W), changed in place.
        rng: source of randomness.
        stain: colours of this slide.
        keep_clear: (x, y, radius) of the central cell, pixels; red cells may just touch it.
    """
    height, width = canvas.shape[1:]
    radius = RED_CELL_RADIUS * rng.uniform(0.86, 1.14)
    crowd = int(rng.integers(12, 40))
    spacing = rng.uniform(1.35, 2.1)
    stacked = rng.uniform(0.0, 0.35)
    habit = {
        "pallor": rng.uniform(0.25, 0.9),
        "oval": rng.uniform(0.05, 0.25),
        "crenated": rng.choice([0.02, 0.02, 0.1, 0.6]),
    }
    film = np.zeros((height, width), np.float32)
    placed = np.empty((0, 2))
    spots = rng.uniform((-radius, -radius), (width + radius, height + radius), (3 * crowd, 2))
    for spot in spots:
        if len(placed) >= crowd:
            break
        if np.hypot(*(spot - keep_clear[:2])) < keep_clear[2] + 0.93 * radius:
            continue
        near = 0.9 if rng.random() < stacked else spacing
        if len(placed) and np.min(np.hypot(*(placed - spot).T)) < near * radius:
            continue
        placed = np.vstack([placed, spot])
        size = radius * float(np.clip(rng.normal(1.0, 0.09), 0.7, 1.3))
        stack_patch(film, _red_cell(rng, size, habit), (round(spot[0]), round(spot[1])))
    canvas += film * stain.density("red_cell")


def add_dirt(canvas: np.ndarray, rng: np.random.Generator, stain: Stain) -> None:
    """Adds a few specks of precipitated stain, as on most slides."""
    height, width = canvas.shape[1:]
    for _ in range(int(rng.poisson(2.0))):
        size = rng.uniform(0.8, 2.6)
        depth = shapes.outline(6, size, profile=shapes.harmonics(rng, 0.2, (2, 3)))
        mask = shapes.coverage(depth) * np.float32(rng.uniform(0.2, 0.9))
        ink = np.broadcast_to(stain.density("basophil_granule"), (3, *mask.shape))
        spot = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        cover_patch(canvas, ink, mask, spot)


def photograph(canvas: np.ndarray, rng: np.random.Generator, stain: Stain) -> np.ndarray:
    """Turns densities into the camera's picture.

    Args:
        canvas: density, float32 (3, H, W).
        rng: source of randomness.
        stain: gives the lamp.

    Returns:
        uint8 (H, W, 3): lamp, uneven light, focus blur and sensor noise applied.
    """
    height, width = canvas.shape[1:]
    slope_x, slope_y = rng.normal(0.0, 0.018, 2).astype(np.float32)
    x = np.linspace(-1.0, 1.0, width, dtype=np.float32)
    y = np.linspace(-1.0, 1.0, height, dtype=np.float32)[:, None]
    uneven = 1.0 + slope_x * x + slope_y * y - np.float32(rng.uniform(0, 0.02)) * (x * x + y * y)
    # A box, not a Gaussian: a defocused point is a flat disc, and one pass is a third of the time.
    focus = ImageFilter.BoxBlur(float(rng.gamma(3.0, 0.18)))
    grain = rng.standard_normal((height, width), dtype=np.float32)
    grain = np.rint(grain * np.float32(rng.uniform(0.4, 2.2))).astype(np.int16)
    pixels = np.empty((height, width, 3), np.uint8)
    for channel in range(3):
        light = np.exp(-canvas[channel]) * (uneven * np.float32(255.0 * stain.lamp[channel]))
        plane = Image.fromarray(np.minimum(light, 255.0).astype(np.uint8)).filter(focus)
        pixels[..., channel] = np.clip(np.asarray(plane, np.int16) + grain, 0, 255)
    return pixels
