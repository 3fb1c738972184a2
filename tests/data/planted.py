"""Leaks and shortcuts to plant in a copy of real images, each of a known kind."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("basophil", "eosinophil", "lymphocyte", "neutrophil")


def copy_part(pbc: Path, root: Path, per_class: int = 40) -> Path:
    """So many real images of four classes, all 360x363, as files of their own."""
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        sized = (p for p in sorted((pbc / name).glob("[A-Z]*.jpg")) if _size(p) == (360, 363))
        for path, _ in zip(sized, range(per_class), strict=False):
            shutil.copy(path, root / name / path.name)
    return root


def _size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def _jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(io.BytesIO(file.getvalue()))


def _noisy(image: Image.Image) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(0).normal(0, 8, (*image.size[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


# What people do to a picture before they save it again.
COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved again (JPEG quality 40)": lambda i: _jpeg(i, 40),
    "scaled to 70 %": lambda i: i.resize((252, 254), Image.Resampling.BICUBIC),
    "brighter by 15 %": lambda i: i.point(lambda v: min(255, int(1.15 * v))),
    "darker by 15 %": lambda i: i.point(lambda v: int(0.85 * v)),
    "gamma 1.3": lambda i: i.point(lambda v: int(255 * (v / 255) ** 1.3)),
    "turned by 90 degrees": lambda i: i.transpose(Image.Transpose.ROTATE_90),
    "mirrored": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "noise of 8 grey levels": _noisy,
    "cropped by 2 %": lambda i: i.crop((7, 7, 360, 363)),
    "grey": lambda i: i.convert("L").convert("RGB"),
}


def plant_copies(root: Path) -> dict[str, list[tuple[str, str]]]:
    """Adds four copies of each kind beside their originals; (original, copy) by kind."""
    planted: dict[str, list[tuple[str, str]]] = {}
    for number, (kind, change) in enumerate(COPIES.items()):
        for name in CLASSES:
            original = sorted((root / name).glob("[A-Z]*.jpg"))[number]
            target = root / name / f"copy_{number}.png"
            change(Image.open(original).convert("RGB")).save(target)
            planted.setdefault(kind, []).append(
                (f"{name}/{original.name}", f"{name}/{target.name}")
            )
    return planted


def plant_relabelled(root: Path) -> list[tuple[str, str]]:
    """Saved again, slightly smaller, under the next class."""
    planted = []
    for i, name in enumerate(CLASSES):
        original = sorted((root / name).glob("[A-Z]*.jpg"))[20]
        other = CLASSES[(i + 1) % len(CLASSES)]
        target = root / other / f"relabelled_{i}.jpg"
        Image.open(original).resize((300, 302)).save(target, quality=60)
        planted.append((f"{name}/{original.name}", f"{other}/{target.name}"))
    return planted


def _framed(image: Image.Image, k: int) -> Image.Image:
    pixels = np.array(image)
    for line in (pixels[:6], pixels[-6:], pixels[:, :6], pixels[:, -6:]):
        line[...] = 235 - 20 * k
    return Image.fromarray(pixels)


def _cast(image: Image.Image, k: int) -> Image.Image:
    factors = [(1.0, 1.0, 1.0), (0.85, 1.0, 1.0), (1.0, 0.85, 1.0), (1.0, 1.0, 0.85)][k]
    return Image.fromarray((np.asarray(image) * factors).astype(np.uint8))


def _same(image: Image.Image, _k: int) -> Image.Image:
    return image


# Probe -> (what is done to an image of class k, JPEG quality, file name of image i of class k).
SHORTCUTS: dict[str, tuple] = {
    "size": (lambda i, k: i.resize((360 + 4 * k, 363)), lambda k: 90, None),
    "file size": (_same, lambda k: 60 + 10 * k, None),
    "name": (_same, lambda k: 90, lambda i, k: f"{'wxyz'[k]}_{(i * 37 + 11 * k) % 97}.jpg"),
    "number": (_same, lambda k: 90, lambda i, k: f"cell_{1000 * (k + 1) + i}.jpg"),
    "mean colour": (_cast, lambda k: 90, None),
    "border": (_framed, lambda k: 90, None),
}


def plant_shortcut(clean: Path, root: Path, probe: str | None) -> Path:
    """A copy of clean folders in which one thing beside the cell gives the class away, or none.

    Names become neutral, and the classes are dealt out to the images in turn, so that no cell looks
    like its new class and what is found is what was planted.
    """
    change, quality, name = SHORTCUTS.get(probe or "", (_same, lambda k: 90, None))
    # Sorted by class, so that each gives as many cells to every new class.
    paths = sorted(clean.rglob("*.jpg"))
    for index in range(len(paths)):
        i, k = divmod(index, len(CLASSES))
        target = root / CLASSES[k]
        target.mkdir(parents=True, exist_ok=True)
        shown = name(i, k) if name else f"cell_{index}.jpg"
        image = change(Image.open(paths[index]).convert("RGB"), k)
        image.save(target / shown, "JPEG", quality=quality(k))
    return root
