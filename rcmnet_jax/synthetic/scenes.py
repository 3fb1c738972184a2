"""Whole images: one cell near the middle of a smear, of a PBC class or of the CAR-T pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageOps

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.synthetic import smear
from rcmnet_jax.synthetic.granulocytes import (
    paint_basophil,
    paint_eosinophil,
    paint_ig,
    paint_neutrophil,
)
from rcmnet_jax.synthetic.mononuclear import (
    paint_erythroblast,
    paint_lymphocyte,
    paint_lymphoid,
    paint_monocyte,
    paint_platelet,
)
from rcmnet_jax.synthetic.palette import Stain, draw_stain
from rcmnet_jax.synthetic.parts import Cell

Painter = Callable[[np.random.Generator, Stain], Cell]


def _paint_cart(rng: np.random.Generator, stain: Stain) -> Cell:
    """A CAR-T cell: an activated lymphocyte, some of them hardly activated."""
    return paint_lymphoid(rng, stain, rng.beta(4.0, 2.6))


def _paint_other(rng: np.random.Generator, stain: Stain) -> Cell:
    """An ordinary white cell: mostly a lymphocyte, some of them reactive, or a monocyte."""
    if rng.random() < 0.35:
        return paint_monocyte(rng, stain)
    return paint_lymphoid(rng, stain, rng.beta(1.2, 4.2))


_PBC_PAINTERS: dict[str, Painter] = {
    "basophil": paint_basophil,
    "eosinophil": paint_eosinophil,
    "erythroblast": paint_erythroblast,
    "ig": paint_ig,
    "lymphocyte": paint_lymphocyte,
    "monocyte": paint_monocyte,
    "neutrophil": paint_neutrophil,
    "platelet": paint_platelet,
}
_CART_PAINTERS: dict[str, Painter] = {"cart": _paint_cart, "other": _paint_other}

SYNTHETIC_CLASSES: tuple[str, ...] = tuple(_PBC_PAINTERS)
SYNTHETIC_CART_CLASSES: tuple[str, ...] = tuple(_CART_PAINTERS)
# (height, width) in pixels, as the two real sets have them.
PBC_SIZE = (363, 360)
CART_SIZE = (384, 384)


def draw_cell(class_name: str, seed: int, *, height: int = 363, width: int = 360) -> np.ndarray:
    """Draws one synthetic peripheral-blood cell of a PBC class.

    Args:
        class_name: one of `SYNTHETIC_CLASSES`.
        seed: non-negative; the same class and seed give the same image.
        height: pixels; drawn at 363 and resized when another is asked for.
        width: pixels; drawn at 360 and resized when another is asked for.

    Returns:
        uint8 RGB (height, width, 3).

    Raises:
        ConfigError: unknown class, or a size or seed that cannot be drawn.
    """
    return _draw(_PBC_PAINTERS, class_name, seed, PBC_SIZE, (height, width))


def draw_cart_cell(
    class_name: str, seed: int, *, height: int = 384, width: int = 384
) -> np.ndarray:
    """Draws one synthetic cell of the CAR-T stand-in pair; the classes overlap on purpose.

    Args:
        class_name: one of `SYNTHETIC_CART_CLASSES`.
        seed: non-negative; the same class and seed give the same image.
        height: pixels; drawn at 384 and resized when another is asked for.
        width: pixels; drawn at 384 and resized when another is asked for.

    Returns:
        uint8 RGB (height, width, 3).

    Raises:
        ConfigError: unknown class, or a size or seed that cannot be drawn.
    """
    return _draw(_CART_PAINTERS, class_name, seed, CART_SIZE, (height, width))


def _draw(
    painters: Mapping[str, Painter],
    class_name: str,
    seed: int,
    native: tuple[int, int],
    size: tuple[int, int],
) -> np.ndarray:
    """Checks the request, renders at the native size, resizes when asked to."""
    if class_name not in painters:
        known = ", ".join(painters)
        raise ConfigError(f"unknown synthetic class {class_name!r}: choose from {known}")
    if seed < 0:
        raise ConfigError(f"seed is {seed}: give a non-negative integer")
    if min(size) < 1:
        raise ConfigError(f"height x width is {size[0]} x {size[1]}: both must be positive")
    # The kind (by its native height) and the class keep the streams of equal seeds apart.
    rng = np.random.default_rng([seed, list(painters).index(class_name), native[0]])
    pixels = _render(rng, painters[class_name], native)
    if size == native:
        return pixels
    picture = ImageOps.fit(Image.fromarray(pixels), size[::-1], Image.Resampling.BICUBIC)
    return np.array(picture)


def _render(rng: np.random.Generator, painter: Painter, size: tuple[int, int]) -> np.ndarray:
    """One scene at native size: slide, red cells, stray platelets, the cell, the camera."""
    height, width = size
    stain = draw_stain(rng)
    canvas = np.zeros((3, height, width), np.float32)
    cell = painter(rng, stain)
    x = round(width / 2 + float(np.clip(rng.normal(0.0, 6.0), -20, 20)))
    y = round(height / 2 + float(np.clip(rng.normal(0.0, 6.0), -20, 20)))
    smear.add_red_cells(canvas, rng, stain, (x, y, cell.radius))
    smear.add_dirt(canvas, rng, stain)
    _add_stray_platelets(canvas, rng, stain, (x, y, cell.radius))
    smear.cover_patch(canvas, cell.density, cell.mask, (x, y))
    return smear.photograph(canvas, rng, stain)


def _add_stray_platelets(
    canvas: np.ndarray, rng: np.random.Generator, stain: Stain, keep_clear: tuple[int, int, float]
) -> None:
    """Adds the few platelets that lie about in a smear of any class."""
    height, width = canvas.shape[1:]
    for _ in range(int(rng.poisson(0.9))):
        spot = int(rng.integers(0, width)), int(rng.integers(0, height))
        size = float(np.clip(rng.normal(13.0, 4.0), 7.0, 24.0))
        if np.hypot(spot[0] - keep_clear[0], spot[1] - keep_clear[1]) < keep_clear[2] + size + 4:
            continue
        stray = paint_platelet(rng, stain, size)
        smear.cover_patch(canvas, stray.density, stray.mask, spot)
