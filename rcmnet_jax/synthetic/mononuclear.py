"""Cells with one undivided nucleus: lymphoid cells, monocyte, erythroblast; and the platelet."""

from __future__ import annotations

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


def paint_lymphoid(rng: np.random.Generator, stain: Stain, activation: float) -> Cell:
    """A lymphocyte between rest and full activation.

    Args:
        rng: source of randomness.
        stain: colours of this slide.
        activation: in [0, 1]. 0: small, round, dense chromatin, a thin sky-blue rim. 1: enlarged,
            irregular outline, deep-blue cytoplasm, loose chromatin, nucleoli.
    """
    radius = float(np.clip(rng.normal(51.0 + 25.0 * activation, 5.0), 38.0, 88.0))
    pale = stain.blend("sky_blue", "basophilic", rng.uniform(0.0, 0.7))
    base = pale * (1.0 - activation) + stain.density("deep_blue") * activation
    cell = start_cell(
        rng,
        radius,
        base * rng.uniform(0.7, 1.0),
        base,
        elongation=1.0 + abs(rng.normal(0.0, 0.07 + 0.15 * activation)),
        wobble=0.02 + 0.05 * activation,
        ruffle=rng.uniform(0.2, 1.4) + 1.2 * activation,
        mottle=0.2,
    )
    size = radius * np.clip(rng.normal(0.84 - 0.16 * activation, 0.06), 0.55, 0.93)
    aside = rng.uniform(0.0, 2.0 * np.pi)
    profile = shapes.harmonics(rng, 0.02 + 0.03 * activation)
    if rng.random() < 0.3 + 0.3 * activation:
        profile = profile + shapes.dent(rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.2), 6.0)
    depth = shapes.outline(
        cell.half,
        size,
        centre=polar_point((radius - size) * rng.uniform(0.2, 1.0), aside),
        elongation=1.0 + abs(rng.normal(0.0, 0.08)),
        angle=rng.uniform(0.0, np.pi),
        profile=profile,
    )
    dark = stain.blend("nucleus", "nucleus_loose", 0.15 + 0.75 * activation)
    gap = stain.density("chromatin_gap")
    openness = 0.3 + 0.4 * activation + rng.uniform(0.0, 0.2)
    add_nucleus(cell, rng, depth, dark, gap, pitch=10.0 - 2.0 * activation, openness=openness)
    if rng.random() < 1.3 * activation:
        inside = 1.0 - shapes.coverage(depth - 7.0)
        add_discs(
            cell,
            rng,
            stain.density("nucleolus"),
            int(rng.integers(1, 5)),
            (4.0, 8.0),
            within=0.45,
            avoid=inside,
            opacity=0.6,
        )
    return cell


def paint_lymphocyte(rng: np.random.Generator, stain: Stain) -> Cell:
    """A resting lymphocyte, now and then a large one."""
    return paint_lymphoid(rng, stain, 0.55 * rng.beta(1.1, 3.5))


def _folded_nucleus(rng: np.random.Generator, cell: Cell, radius: float) -> np.ndarray:
    """Depth of a kidney, horseshoe or lobulated nucleus."""
    hollow = rng.uniform(0.0, 2.0 * np.pi)
    profile = shapes.harmonics(rng, 0.04)
    profile = profile + shapes.dent(hollow, rng.uniform(0.32, 0.7), rng.uniform(3.0, 8.0))
    for _ in range(int(rng.integers(0, 3))):
        profile = profile + shapes.dent(rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.28), 12.0)
    size = radius * rng.uniform(0.66, 0.8)
    depth = shapes.outline(
        cell.half,
        size,
        centre=polar_point(radius * rng.uniform(0.02, 0.2), hollow + np.pi),
        elongation=rng.uniform(1.0, 1.4),
        angle=hollow + 0.5 * np.pi + rng.normal(0.0, 0.3),
        profile=profile,
    )
    return depth + shapes.value_noise(rng, cell.side, 16.0) * np.float32(1.2)


def paint_monocyte(rng: np.random.Generator, stain: Stain) -> Cell:
    """The largest cell: a folded nucleus of lacy chromatin, grey-blue cytoplasm with vacuoles."""
    radius = float(np.clip(rng.normal(80.0, 6.5), 60.0, 96.0))
    base = stain.blend("grey_blue", "sky_blue", rng.uniform(0.0, 0.6))
    cell = start_cell(
        rng,
        radius,
        base,
        base * rng.uniform(0.8, 1.15),
        elongation=1.0 + abs(rng.normal(0.0, 0.18)),
        wobble=0.045,
        ruffle=rng.uniform(0.3, 2.2),
        mottle=0.15,
    )
    dust = stain.density("azurophil_granule")
    add_discs(cell, rng, dust, int(rng.integers(20, 160)), (0.5, 1.0), opacity=0.35)
    depth = _folded_nucleus(rng, cell, radius)
    dark = stain.blend("nucleus_loose", "nucleus", rng.uniform(0.0, 0.45))
    gap = stain.density("chromatin_gap")
    mask = add_nucleus(cell, rng, depth, dark, gap, pitch=6.5, openness=rng.uniform(0.5, 0.85))
    holes = int(rng.choice([0, 3, 10, 22]))
    add_discs(cell, rng, base * 0.12, holes, (1.8, 5.0), margin=4.0, avoid=0.8 * mask, opacity=0.9)
    return cell


def paint_erythroblast(rng: np.random.Generator, stain: Stain) -> Cell:
    """A small, round, black nucleus in grey-pink to grey-blue cytoplasm."""
    radius = float(np.clip(rng.normal(47.0, 6.0), 34.0, 64.0))
    ripeness = rng.uniform(0.0, 1.0)
    base = stain.blend("grey_blue", "grey_pink", ripeness) * rng.uniform(0.85, 1.3)
    cell = start_cell(
        rng,
        radius,
        base,
        base * rng.uniform(0.9, 1.1),
        elongation=1.0 + abs(rng.normal(0.0, 0.1)),
        wobble=0.04,
        ruffle=rng.uniform(0.0, 1.2),
        mottle=0.08,
    )
    size = float(np.clip(radius * (0.66 - 0.14 * ripeness) * rng.normal(1.0, 0.06), 17.0, 36.0))
    aside = rng.uniform(0.0, 2.0 * np.pi)
    centre = polar_point((radius - size) * rng.uniform(0.0, 0.85), aside)
    depth = shapes.outline(cell.half, size, centre=centre, profile=shapes.harmonics(rng, 0.02))
    if rng.random() < 0.12:
        # A dividing or budding nucleus.
        twin = polar_point(0.9 * size, aside + 0.5 * np.pi)
        second = (centre[0] + twin[0], centre[1] + twin[1])
        depth = shapes.smooth_union(
            depth, shapes.outline(cell.half, 0.8 * size, centre=second), 4.0
        )
    dark = stain.blend("nucleus_pyknotic", "nucleus", 0.8 * (1.0 - ripeness) * rng.random())
    gap = stain.density("chromatin_gap")
    openness = 0.45 * (1.0 - ripeness) * rng.random()
    add_nucleus(cell, rng, depth, dark, gap, pitch=9.0, openness=openness)
    return cell


def paint_platelet(rng: np.random.Generator, stain: Stain, size: float | None = None) -> Cell:
    """A purple granular fragment without a nucleus; `size` is its radius, drawn when None."""
    radius = float(np.clip(rng.normal(20.0, 4.5), 12.0, 34.0)) if size is None else size
    base = stain.density("platelet_base")
    cell = start_cell(
        rng,
        radius,
        base * rng.uniform(0.9, 1.5),
        base * rng.uniform(0.4, 0.9),
        elongation=1.0 + abs(rng.normal(0.0, 0.15)),
        wobble=0.05,
        ruffle=rng.uniform(0.5, 1.6),
        mottle=0.2,
    )
    colour = stain.blend("platelet_granule", "nucleus", rng.uniform(0.0, 0.7))
    # A darker middle (the granulomere) of clumped granules, a paler border (the hyalomere).
    middle = shapes.coverage(cell.body - radius * np.float32(rng.uniform(0.15, 0.4)), 0.5 * radius)
    grain = 0.6 + 0.45 * shapes.value_noise(rng, cell.side, 3.2)
    cell.lay(colour, middle * np.clip(grain, 0.0, 1.0) * np.float32(rng.uniform(0.6, 0.95)))
    count = int(radius * radius * rng.uniform(0.05, 0.2))
    add_discs(cell, rng, colour, count, (0.7, 1.6), within=0.9, opacity=rng.uniform(0.4, 0.8))
    return cell
