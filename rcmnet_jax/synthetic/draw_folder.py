"""Synthetic images as a class-per-folder data set on disk, and as one labelled contact sheet."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from rcmnet_jax.errors import ConfigError, DataError
from rcmnet_jax.files import require_folder, write_text
from rcmnet_jax.synthetic import scenes

Kind = Literal["pbc", "cart"]

REQUEST_NAME = "synthetic.json"
# Raised whenever the drawings change, so that a folder of older drawings is not taken for new.
DRAWING_VERSION = 1
JPEG_QUALITY = 92
# Image `number` of a folder of `seed` is drawn with seed * _SEED_STRIDE + number.
_SEED_STRIDE = 1_000_000

_README = """SYNTHETIC IMAGES, NOT BLOOD

Every image in this folder was drawn by a program (rcmnet_jax.synthetic). No patient, no
microscope and no real data took part. They are for testing software: a score on them says nothing
about real cells. The request that made them is in {request}.
"""


def _kind(kind: str) -> tuple[tuple[str, ...], Callable[..., np.ndarray], tuple[int, int]]:
    """Classes, drawing function and native (height, width) of a kind."""
    if kind == "pbc":
        return scenes.SYNTHETIC_CLASSES, scenes.draw_cell, scenes.PBC_SIZE
    if kind == "cart":
        return scenes.SYNTHETIC_CART_CLASSES, scenes.draw_cart_cell, scenes.CART_SIZE
    raise ConfigError(f"unknown kind of synthetic images {kind!r}: choose from pbc, cart")


def _request(
    kind: str, per_class: int, seed: int, height: int | None, width: int | None
) -> dict[str, Any]:
    """All that decides the pixels of a folder, as written to its synthetic.json."""
    classes, _, native = _kind(kind)
    if not 1 <= per_class <= _SEED_STRIDE:
        raise ConfigError(f"per_class is {per_class}: give 1 to {_SEED_STRIDE}")
    return {
        "synthetic": True,
        "drawing_version": DRAWING_VERSION,
        "kind": kind,
        "classes": list(classes),
        "per_class": per_class,
        "seed": seed,
        "height": native[0] if height is None else height,
        "width": native[1] if width is None else width,
        "jpeg_quality": JPEG_QUALITY,
    }


def write_synthetic_folder(
    directory: str | os.PathLike[str],
    *,
    kind: Kind = "pbc",
    per_class: int = 60,
    seed: int = 0,
    height: int | None = None,
    width: int | None = None,
    progress: bool = False,
    workers: int = 2,
) -> Path:
    """Writes a folder of synthetic images, one sub-folder a class, or reuses the same one.

    The files are ``<class>/synthetic_<CLASS>_<number>.jpg``, with a README.txt and the request as
    synthetic.json. All is written beside `directory` and then renamed, so a folder that exists is
    complete.

    Args:
        directory: the folder to make; it may exist if it is empty or holds the same request.
        kind: "pbc" for the eight classes, "cart" for the CAR-T stand-in pair.
        per_class: images of each class.
        seed: non-negative; the same request gives the same pixels.
        height: pixels; native (363 or 384) when None.
        width: pixels; native (360 or 384) when None.
        progress: show a progress bar on standard error.
        workers: threads.

    Returns:
        The absolute path of the folder.

    Raises:
        ConfigError: unknown kind, or a size, count or seed that cannot be drawn.
        DataError: `directory` already holds something else.
        UserError: it cannot be written.
    """
    request = _request(kind, per_class, seed, height, width)
    target = Path(directory).expanduser().absolute()
    if _holds(target, request):
        return target
    require_folder(target.parent, "directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        _write_images(partial, request, progress=progress, workers=workers)
        write_text(partial / "README.txt", _README.format(request=REQUEST_NAME))
        write_text(partial / REQUEST_NAME, json.dumps(request, indent=2) + "\n")
        # mkdtemp makes a private folder; the images are for the whole group to read.
        partial.chmod(0o755)
        _publish(partial, target, request)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _holds(target: Path, request: dict[str, Any]) -> bool:
    """Whether `target` already holds the request.

    Raises:
        DataError: it holds something else, which is never overwritten.
    """
    if not target.exists():
        return False
    if target.is_dir() and not any(target.iterdir()):
        return False
    try:
        found = json.loads((target / REQUEST_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if found == request:
        return True
    what = "other synthetic images" if isinstance(found, dict) else "other files"
    raise DataError(f"{target} already holds {what}: give another directory, or remove it first")


def _publish(partial: Path, target: Path, request: dict[str, Any]) -> None:
    """Renames the finished folder to its name, unless another process was first."""
    try:
        os.replace(partial, target)
    except OSError:
        if not _holds(target, request):
            raise


def _write_images(root: Path, request: dict[str, Any], *, progress: bool, workers: int) -> None:
    """Draws and saves every image of the request under `root`."""
    _, draw, _ = _kind(request["kind"])
    size = {"height": request["height"], "width": request["width"]}

    def write(item: tuple[str, int]) -> None:
        name, number = item
        pixels = draw(name, request["seed"] * _SEED_STRIDE + number, **size)
        path = root / name / f"synthetic_{name.upper()}_{number:06d}.jpg"
        Image.fromarray(pixels).save(path, quality=JPEG_QUALITY)

    for name in request["classes"]:
        (root / name).mkdir()
    items = [
        (name, number) for name in request["classes"] for number in range(request["per_class"])
    ]
    # disable=None: silent where standard error is no terminal.
    bar = tqdm(
        total=len(items),
        desc="drawing synthetic cells",
        unit="image",
        disable=None if progress else True,
        leave=False,
    )
    with bar, ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(write, items):
            bar.update()


def contact_sheet(
    kind: Kind = "pbc", *, columns: int = 8, seed: int = 0, cell: int = 120
) -> Image.Image:
    """A grid of synthetic images, one row a class, labelled and titled "synthetic".

    Args:
        kind: "pbc" or "cart".
        columns: images of each class.
        seed: the first image's seed; the next columns count up from it.
        cell: side of one image in the grid, pixels.

    Returns:
        RGB picture.
    """
    classes, draw, _ = _kind(kind)
    gap, title, label = 4, 28, 96
    width = label + columns * (cell + gap) + gap
    height = title + len(classes) * (cell + gap) + gap
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    pen.text(
        (gap + 2, 5), f"synthetic {kind} images (drawn by a program)", fill="black", font_size=15
    )
    for row, name in enumerate(classes):
        top = title + row * (cell + gap)
        pen.text((gap + 2, top + math.floor(cell / 2) - 6), name, fill="black", font_size=14)
        for column in range(columns):
            # Drawn at full size and reduced: a thumbnail of what the library draws.
            picture = Image.fromarray(draw(name, seed + column))
            picture = picture.resize((cell, cell), Image.Resampling.BICUBIC, reducing_gap=3.0)
            sheet.paste(picture, (label + column * (cell + gap), top))
    return sheet
