"""The granulocytes: basophil, eosinophil, neutrophil and their immature forms (ig)."""

from __future__ import annotations

import functools
import itertools

import numpy as np

from rcmnet_jax.synthetic import shapes
from rcmnet_jax.synthetic.palette import Stain
from rcmnet_jax.synthetic.parts import (
    Cell,
    add_discs,
    add_nucleus,
    polar_point,
    start_cell,
)


def _lobes(
    rng: np.random.Generator, half: int, reach: float, size: float, count: int, sweep: float
) -> np.ndarray:
    """Depth of `count` round lobes on an arc of `sweep` radians, joined by thin filaments."""
    start = rng.uniform(0.0, 2.0 * np.pi)
    angles = start + np.linspace(-0.5, 0.5, count) * sweep
    points = [
        polar_point(reach * rng.uniform(0.78, 1.15), angle + rng.normal(0.0, 0.1))
        for angle in angles
    ]
    lobes = [
        shapes.outline(
            half,
            size * float(np.clip(rng.normal(1.0, 0.13), 0.7, 1.3)),
            centre=point,
            elongation=rng.uniform(1.0, 1.5),
            angle=rng.uniform(0.0, np.pi),
            profile=shapes.harmonics(rng, 0.06),
        )
        for point in points
    ]
    filaments = [
        shapes.strand(half, first, second, rng.uniform(1.6, 4.5))
        for first, second in itertools.pairwise(points)
    ]
    return functools.reduce(_join, lobes + filaments)


def _join(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Union of two parts of a nucleus."""
    return shapes.smooth_union(first, second, 5.5)


def _band(rng: np.random.Generator, half: int, reach: float, thickness: float) -> np.ndarray:
    """Depth of a sausage bent into a C or an S: the nucleus of a band neutrophil."""
    sweep = rng.uniform(2.6, 4.4)
    angles = rng.uniform(0.0, 2.0 * np.pi) + np.linspace(-0.5, 0.5, 7) * sweep
    points = [polar_point(reach * rng.uniform(0.9, 1.1), angle) for angle in angles]
    pieces = [
        shapes.strand(half, first, second, thickness * rng.uniform(0.82, 1.12))
        for first, second in itertools.pairwise(points)
    ]
    return functools.reduce(_join, pieces)


def paint_neutrophil(rng: np.random.Generator, stain: Stain) -> Cell:
    """Three to five lobes on filaments, or a band; pale pink cytoplasm with fine granules."""
    radius = float(np.clip(rng.normal(67.0, 5.5), 52.0, 82.0))
    base = stain.blend("pale_pink", "lilac", rng.uniform(0.0, 0.7))
    cell = start_cell(
        rng, radius, base, base * 0.85, elongation=1.0 + abs(rng.normal(0, 0.12)), wobble=0.025
    )
    fine = int(rng.integers(150, 420))
    granule = stain.density("neutrophil_granule")
    add_discs(cell, rng, granule, fine, (0.7, 1.5), opacity=rng.uniform(0.25, 0.8))
    if rng.random() < 0.28:
        depth = _band(
            rng, cell.half, radius * rng.uniform(0.42, 0.5), radius * rng.uniform(0.2, 0.27)
        )
    else:
        count = int(rng.choice([2, 3, 4, 5], p=[0.12, 0.45, 0.31, 0.12]))
        size = radius * {2: 0.41, 3: 0.35, 4: 0.31, 5: 0.27}[count]
        sweep = {2: 2.6, 3: 3.3, 4: 4.3, 5: 5.0}[count] * rng.uniform(0.8, 1.08)
        depth = _lobes(rng, cell.half, radius * rng.uniform(0.43, 0.54), size, count, sweep)
    nucleus, gap = stain.density("nucleus"), stain.density("chromatin_gap")
    add_nucleus(cell, rng, depth, nucleus, gap, pitch=7.0, openness=rng.uniform(0.4, 0.8))
    return cell


def paint_eosinophil(rng: np.random.Generator, stain: Stain) -> Cell:
    """Two (sometimes three) lobes; the cytoplasm packed with coarse orange-red granules."""
    radius = float(np.clip(rng.normal(67.0, 5.5), 52.0, 82.0))
    base = stain.density("eosin_base")
    cell = start_cell(
        rng, radius, base, base, elongation=1.0 + abs(rng.normal(0, 0.1)), wobble=0.025, ruffle=0.6
    )
    # Some cells have lost part of their granules: pale patches remain.
    packed = rng.uniform(0.45, 1.0)
    bright = stain.density("eosin_granule")
    count = int(packed * 520)
    add_discs(cell, rng, bright * 0.62, count, (1.8, 3.2), margin=0.5, opacity=0.8)
    add_discs(cell, rng, bright, count, (1.3, 2.6), margin=0.5, opacity=0.85)
    gaps = int(rng.integers(4, 40))
    add_discs(cell, rng, base * 0.45, gaps, (1.0, 2.2), margin=3.0, opacity=0.75)
    count = int(rng.choice([2, 3, 4], p=[0.66, 0.28, 0.06]))
    size = radius * {2: 0.42, 3: 0.33, 4: 0.28}[count]
    sweep = {2: 2.5, 3: 3.4, 4: 4.4}[count] * rng.uniform(0.75, 1.1)
    depth = _lobes(rng, cell.half, radius * rng.uniform(0.42, 0.54), size, count, sweep)
    nucleus, gap = stain.density("nucleus"), stain.density("chromatin_gap")
    mask = add_nucleus(cell, rng, depth, nucleus, gap, pitch=8.0, openness=rng.uniform(0.4, 0.8))
    # A few granules lie over the nucleus.
    add_discs(cell, rng, bright, 30, (1.3, 2.4), avoid=0.6 * mask, opacity=0.8)
    return cell


def paint_basophil(rng: np.random.Generator, stain: Stain) -> Cell:
    """Dark purple granules over a bilobed nucleus that they nearly hide."""
    radius = float(np.clip(rng.normal(60.0, 6.0), 44.0, 76.0))
    base = stain.density("basophil_base")
    cell = start_cell(
        rng,
        radius,
        base * rng.uniform(0.7, 1.2),
        base * rng.uniform(0.5, 1.2),
        elongation=1.0 + abs(rng.normal(0, 0.14)),
        wobble=0.03,
        ruffle=rng.uniform(0.8, 2.4),
    )
    count = int(rng.choice([2, 3], p=[0.75, 0.25]))
    depth = _lobes(rng, cell.half, radius * 0.36, radius * 0.43, count, 2.8)
    dark = stain.blend("nucleus", "nucleus_loose", rng.uniform(0.1, 0.8))
    gap = stain.density("chromatin_gap")
    add_nucleus(cell, rng, depth, dark, gap, pitch=9.0, openness=0.4)
    granule = stain.density("basophil_granule")
    red = stain.density("basophil_granule_red")
    # From degranulated cells, whose nucleus shows, to cells black with granules.
    packed = rng.uniform(0.4, 1.0) ** 0.6
    add_discs(cell, rng, granule, int(480 * packed), (1.8, 3.8), margin=-1.0, opacity=0.85)
    add_discs(cell, rng, red, int(rng.integers(5, 60)), (1.2, 2.8), margin=-3.0, opacity=0.8)
    add_discs(cell, rng, gap * 0.8, int(rng.integers(20, 110)), (0.9, 1.8), margin=4.0, opacity=0.7)
    return cell


def _immature_nucleus(
    rng: np.random.Generator, cell: Cell, radius: float, ripeness: float
) -> np.ndarray:
    """Depth of a nucleus from large and round (ripeness 0) to bean-shaped (ripeness 1)."""
    size = radius * (0.74 - 0.16 * ripeness) * rng.uniform(0.94, 1.06)
    side_of_cell = rng.uniform(0.0, 2.0 * np.pi)
    centre = polar_point((radius - size) * rng.uniform(0.3, 1.0), side_of_cell)
    notch = 0.42 * max(ripeness - 0.45, 0.0) / 0.55 * rng.uniform(0.6, 1.3)
    # The hollow of the bean faces the middle of the cell.
    profile = shapes.harmonics(rng, 0.03) + shapes.dent(side_of_cell + np.pi, notch, 3.5)
    return shapes.outline(
        cell.half,
        size,
        centre=centre,
        elongation=1.0 + abs(rng.normal(0, 0.1)) + 0.45 * ripeness * rng.random(),
        angle=side_of_cell + 0.5 * np.pi,
        profile=profile,
    )


def paint_ig(rng: np.random.Generator, stain: Stain) -> Cell:
    """Promyelocyte to metamyelocyte: a large cell, round to bean-shaped nucleus, fine granules."""
    ripeness = rng.uniform(0.0, 1.0)
    radius = float(np.clip(rng.normal(70.0 - 5.0 * ripeness, 6.0), 54.0, 90.0))
    young = stain.blend("basophilic", "lilac", rng.uniform(0.45, 0.85))
    ripe = stain.blend("lilac", "pale_pink", rng.uniform(0.1, 0.7))
    base = young * (1.0 - ripeness) + ripe * ripeness
    edge = 0.7 * base + 0.3 * young
    cell = start_cell(
        rng,
        radius,
        base,
        edge,
        elongation=1.0 + abs(rng.normal(0, 0.12)),
        wobble=0.03,
        ruffle=rng.uniform(0.0, 0.9),
    )
    count = int(rng.integers(180, 450))
    colour = stain.blend("azurophil_granule", "neutrophil_granule", ripeness)
    add_discs(cell, rng, colour, count, (0.8, 2.2), opacity=rng.uniform(0.45, 0.9))
    depth = _immature_nucleus(rng, cell, radius, ripeness)
    dark = stain.blend("nucleus_loose", "nucleus", 0.35 + 0.55 * ripeness)
    gap = stain.density("chromatin_gap")
    mask = add_nucleus(cell, rng, depth, dark, gap, pitch=8.0, openness=rng.uniform(0.45, 0.85))
    if ripeness < 0.4:
        nucleolus = stain.density("nucleolus")
        inside = 1.0 - shapes.coverage(depth - 8.0)
        add_discs(cell, rng, nucleolus, 3, (4.0, 7.0), within=0.4, avoid=inside, opacity=0.55)
        add_discs(cell, rng, colour, 60, (0.9, 1.8), avoid=1.0 - mask, opacity=0.5)
    return cell
