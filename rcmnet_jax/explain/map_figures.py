"""Pictures for people: original beside overlay, and grids like the paper's Figures 9 to 11."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.explain.images import CellImage
from rcmnet_jax.explain.overlay import colour_scale, overlay
from rcmnet_jax.explain.run_maps import RunMaps
from rcmnet_jax.files import replacing

TILE = 192  # pixels a side that small images are enlarged to, at least
COLUMNS = 8
_MARGIN, _LINE, _TITLES = 6, 15, 120
_INK, _RIGHT, _WRONG = (34, 34, 34), (0, 115, 80), (190, 60, 0)


def enlargement(preprocess: Preprocess) -> int:
    """How many times larger than the network's input the pictures are drawn."""
    return -(-TILE // max(preprocess.height, preprocess.width))


def shown_pixels(image: CellImage, preprocess: Preprocess) -> np.ndarray:
    """The part of the image that the network saw, with the detail that the file has."""
    factor = enlargement(preprocess)
    return image.pixels(
        dataclasses.replace(
            preprocess, height=preprocess.height * factor, width=preprocess.width * factor
        )
    )


def shown_overlay(run: RunMaps, index: int, pixels_HxWx3: np.ndarray) -> np.ndarray:
    """The overlay of one map on pixels of `shown_pixels`."""
    cam_hxw = np.maximum(run.explained.signed_Nxhxw[index], 0)
    if "not_finite" in run.facts[index].flags:
        cam_hxw = np.zeros_like(cam_hxw)
    grid = run.explained.placement
    if grid is not None:
        grid = grid.scaled(enlargement(run.restored.preprocess))
    return overlay(pixels_HxWx3, cam_hxw, grid=grid)


def map_picture(run: RunMaps, index: int, image: CellImage) -> np.ndarray:
    """Original, overlay and colour scale side by side, with what is known written below."""
    original = shown_pixels(image, run.restored.preprocess)
    shown = shown_overlay(run, index, original)
    height, width = original.shape[:2]
    scale = colour_scale(height, (0.0, max(run.facts[index].maximum or 0.0, 0.0)))
    lines = _caption(run, index, image.true_class)
    total_width = 2 * width + _MARGIN + scale.shape[1]
    canvas = Image.new("RGB", (total_width, height + _MARGIN + _LINE * len(lines)), "white")
    canvas.paste(Image.fromarray(original), (0, 0))
    canvas.paste(Image.fromarray(shown), (width + _MARGIN, 0))
    canvas.paste(Image.fromarray(scale), (2 * width + _MARGIN, 0))
    draw = ImageDraw.Draw(canvas)
    for number, (text, colour) in enumerate(lines):
        _write(draw, (2, height + 3 + number * _LINE), text, total_width - 4, colour)
    return np.asarray(canvas)


def _caption(run: RunMaps, index: int, true_class: str | None) -> list[tuple[str, tuple]]:
    record = run.record(index, true_class)
    lines = [
        (f"true: {true_class or 'not known'}", _INK),
        (
            f"predicted: {record['predicted']} {100 * record['probability']:.1f} %",
            _colour(record["correct"]),
        ),
    ]
    told = []
    if record["explained_class"] != record["predicted"]:
        shown = 100 * record["explained_probability"]
        told.append(f"map of {record['explained_class']} {shown:.1f} %")
    told += record["flags"]
    return lines + ([(", ".join(told), _WRONG)] if told else [])


def grid_picture(
    images: Sequence[CellImage], runs: Sequence[RunMaps], rows: Sequence[int], *, tile: int = 128
) -> np.ndarray:
    """Networks below each other, images side by side: the paper's Figures 9 to 11, turned.

    Args:
      images: all images.
      runs: the networks, each with maps of all images.
      rows: which images, in the order they are shown.
      tile: pixels of a picture's longer side.

    Returns:
      (H, W, 3) uint8.
    """
    bands = [rows[start : start + COLUMNS] for start in range(0, len(rows), COLUMNS)]
    step, text = tile + _MARGIN, tile + _LINE + _MARGIN
    band_height = (1 + len(runs)) * text + _MARGIN
    width = _TITLES + min(len(rows), COLUMNS) * step
    canvas = Image.new("RGB", (width, _MARGIN + band_height * len(bands)), "white")
    draw = ImageDraw.Draw(canvas)
    for number, band in enumerate(bands):
        top = _MARGIN + number * band_height
        _write(draw, (4, top + tile // 2), "image", _TITLES - 8, _INK)
        for row, run in enumerate(runs, start=1):
            for which, line in enumerate(run.name.split(", ")):
                at = (4, top + row * text + tile // 2 + which * _LINE)
                _write(draw, at, line, _TITLES - 8, _INK)
        for column, index in enumerate(band):
            left, image = _TITLES + column * step, images[index]
            original = shown_pixels(image, runs[0].restored.preprocess)
            canvas.paste(_fit(original, tile), (left, top))
            _write(draw, (left, top + tile), image.true_class or "?", tile, _INK)
            for row, run in enumerate(runs, start=1):
                at = (left, top + row * text)
                pixels = shown_pixels(image, run.restored.preprocess)
                canvas.paste(_fit(shown_overlay(run, index, pixels), tile), at)
                told = f"{run.predicted(index)} {100 * run.confidence(index):.0f} %"
                told = ", ".join([told, *run.facts[index].flags])
                colour = _colour(run.correct(index, image.true_class))
                _write(draw, (left, at[1] + tile), told, tile, colour)
    return np.asarray(canvas)


def _fit(pixels_HxWx3: np.ndarray, tile: int) -> Image.Image:
    image = Image.fromarray(pixels_HxWx3)
    image.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    return image


def _colour(correct: bool | None) -> tuple[int, int, int]:
    return _INK if correct is None else _RIGHT if correct else _WRONG


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, colour) -> None:
    """One line, cut at its end where it would be wider than `width`."""
    font = _font()
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    draw.text(at, text, fill=colour, font=font)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    # Matplotlib's: it comes with it, and has more letters than Pillow's own.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans.ttf")), 11)


def write_png(path: Path, pixels_HxWx3: np.ndarray) -> None:
    """Writes a picture, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    with replacing(path) as temporary:
        Image.fromarray(pixels_HxWx3).save(temporary, "PNG", optimize=True)
