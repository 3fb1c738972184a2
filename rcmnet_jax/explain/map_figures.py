"""Pictures of maps: image beside overlay, and grids like the paper's Figures 9 to 11."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.evaluation.fonts import drawable_names, font_of
from rcmnet_jax.explain.images import CellImage
from rcmnet_jax.explain.network_maps import NetworkMaps
from rcmnet_jax.explain.overlay import colour_scale, overlay
from rcmnet_jax.files import replacing

MIN_SIDE = 192  # pixels; smaller images are enlarged
COLUMNS = 8
_MARGIN, _LINE, _TITLES = 6, 15, 120
_INK, _RIGHT, _WRONG = (34, 34, 34), (0, 115, 80), (190, 60, 0)


def enlargement(preprocess: Preprocess) -> int:
    """How many times larger than the network's input the pictures are drawn."""
    return -(-MIN_SIDE // max(preprocess.height, preprocess.width))


def enlarged_pixels(image: CellImage, preprocess: Preprocess) -> np.ndarray:
    """The part of the image that the network sees, decoded from the file at the drawn size."""
    factor = enlargement(preprocess)
    return image.pixels(
        dataclasses.replace(
            preprocess, height=preprocess.height * factor, width=preprocess.width * factor
        )
    )


def enlarged_overlay(maps: NetworkMaps, index: int, pixels_HxWx3: np.ndarray) -> np.ndarray:
    """The overlay of one map on the pixels of `enlarged_pixels`."""
    cam_hxw = np.maximum(maps.explained.signed_Nxhxw[index], 0)
    if "not_finite" in maps.facts[index].flags:
        cam_hxw = np.zeros_like(cam_hxw)
    grid = maps.explained.placement
    if grid is not None:
        grid = grid.scaled(enlargement(maps.network.preprocess))
    return overlay(pixels_HxWx3, cam_hxw, grid=grid)


def map_picture(maps: NetworkMaps, index: int, image: CellImage) -> np.ndarray:
    """Image, overlay and colour scale side by side, with the prediction written below."""
    original = enlarged_pixels(image, maps.network.preprocess)
    shown = enlarged_overlay(maps, index, original)
    height, width = original.shape[:2]
    scale = colour_scale(height, (0.0, max(maps.facts[index].maximum or 0.0, 0.0)))
    lines = _caption(maps, index, image.true_class)
    total_width = 2 * width + _MARGIN + scale.shape[1]
    canvas = Image.new("RGB", (total_width, height + _MARGIN + _LINE * len(lines)), "white")
    canvas.paste(Image.fromarray(original), (0, 0))
    canvas.paste(Image.fromarray(shown), (width + _MARGIN, 0))
    canvas.paste(Image.fromarray(scale), (2 * width + _MARGIN, 0))
    draw = ImageDraw.Draw(canvas)
    for number, (text, colour) in enumerate(lines):
        _write(draw, (2, height + 3 + number * _LINE), text, total_width - 4, colour)
    return np.asarray(canvas)


def _caption(
    maps: NetworkMaps, index: int, true_class: str | None
) -> list[tuple[str, tuple[int, int, int]]]:
    record = maps.record(index, true_class)
    names = _drawn_names(maps)
    predicted, explained = record["predicted"], record["explained_class"]
    lines = [
        (f"true: {names.get(true_class, true_class) or 'not known'}", _INK),
        (
            f"predicted: {names[predicted]} {100 * record['probability']:.1f} %",
            _colour(record["correct"]),
        ),
    ]
    notes = list(record["flags"])
    if explained != predicted:
        notes.insert(0, f"map of {names[explained]} {100 * record['explained_probability']:.1f} %")
    return lines + ([(", ".join(notes), _WRONG)] if notes else [])


def _drawn_names(maps: NetworkMaps) -> dict[str | None, str]:
    names = maps.network.class_names
    return dict(zip(names, drawable_names(names), strict=True))


def grid_picture(
    images: Sequence[CellImage],
    networks: Sequence[NetworkMaps],
    rows: Sequence[int],
    *,
    tile: int = 128,
) -> np.ndarray:
    """Networks below each other, images side by side: the paper's Figures 9 to 11, turned.

    Args:
      images: all images.
      networks: each with maps of all images.
      rows: which images, in the order they are shown.
      tile: pixels of a picture's longer side.

    Returns:
      (H, W, 3) uint8.
    """
    bands = [rows[start : start + COLUMNS] for start in range(0, len(rows), COLUMNS)]
    step, text = tile + _MARGIN, tile + _LINE + _MARGIN
    band_height = (1 + len(networks)) * text + _MARGIN
    width = _TITLES + min(len(rows), COLUMNS) * step
    canvas = Image.new("RGB", (width, _MARGIN + band_height * len(bands)), "white")
    draw = ImageDraw.Draw(canvas)

    def write_title(title: str, top: int) -> None:
        for number, line in enumerate(title.split(", ")):
            _write(draw, (4, top + tile // 2 + number * _LINE), line, _TITLES - 8, _INK)

    for number, band in enumerate(bands):
        top = _MARGIN + number * band_height
        write_title("image", top)
        for row, maps in enumerate(networks, start=1):
            write_title(maps.name, top + row * text)
        for column, index in enumerate(band):
            left, image = _TITLES + column * step, images[index]
            original = enlarged_pixels(image, networks[0].network.preprocess)
            canvas.paste(_fit(original, tile), (left, top))
            true_class = _drawn_names(networks[0]).get(image.true_class, image.true_class)
            _write(draw, (left, top + tile), true_class or "?", tile, _INK)
            for row, maps in enumerate(networks, start=1):
                at = (left, top + row * text)
                pixels = enlarged_pixels(image, maps.network.preprocess)
                canvas.paste(_fit(enlarged_overlay(maps, index, pixels), tile), at)
                predicted = _drawn_names(maps)[maps.predicted(index)]
                caption = f"{predicted} {100 * maps.confidence(index):.0f} %"
                caption = ", ".join([caption, *maps.facts[index].flags])
                colour = _colour(maps.correct(index, image.true_class))
                _write(draw, (left, at[1] + tile), caption, tile, colour)
    return np.asarray(canvas)


def _fit(pixels_HxWx3: np.ndarray, tile: int) -> Image.Image:
    image = Image.fromarray(pixels_HxWx3)
    image.thumbnail((tile, tile), Image.Resampling.LANCZOS)
    return image


def _colour(correct: bool | None) -> tuple[int, int, int]:
    return _INK if correct is None else _RIGHT if correct else _WRONG


def _write(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, width: int, colour) -> None:
    """Writes one line, cut at its end where it would be wider than `width`."""
    font = _font(font_of(text))
    if font.getlength(text) > width:
        while text and font.getlength(text + "…") > width:
            text = text[:-1]
        text += "…"
    draw.text(at, text, fill=colour, font=font)


@functools.cache
def _font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), 11)


def write_png(path: Path, pixels_HxWx3: np.ndarray) -> None:
    """Writes a picture, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    with replacing(path) as temporary:
        Image.fromarray(pixels_HxWx3).save(temporary, "PNG", optimize=True)
