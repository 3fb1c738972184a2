"""Boxes around cells: reading them, and mapping them to the network's input."""

import dataclasses
from pathlib import Path, PurePath

import numpy as np

from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.data.tables import read_table
from rcmnet_jax.errors import DataError

COLUMNS = ("file", "x_center", "y_center", "width", "height")


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle; edges in pixels or in fractions of the image."""

    left: float
    top: float
    right: float
    bottom: float

    def mask(self, height: int, width: int) -> np.ndarray:
        """(H, W) bool: pixels whose centre lies inside, for edges in pixels."""
        rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
        inside_rows = (rows >= self.top) & (rows < self.bottom)
        return inside_rows[:, None] & (columns >= self.left) & (columns < self.right)


class BoxTable:
    """Boxes in fractions of their images, by the last folder and the name of the image file.

    The folders above do not count, since every user keeps the images elsewhere.
    """

    def __init__(self) -> None:
        self._boxes: dict[tuple[str, ...], Box] = {}

    def __len__(self) -> int:
        return len(self._boxes)

    def find(self, file: str) -> Box | None:
        """The box of an image."""
        return self._boxes.get(PurePath(file).parts[-2:])

    def add(self, file: str, box: Box) -> None:
        """Adds the box of an image."""
        self._boxes[PurePath(file).parts[-2:]] = box


def read_boxes(path: str | Path) -> BoxTable:
    """Reads a CSV of boxes, one an image: ``file,x_center,y_center,width,height``.

    Numbers are fractions of the image's width and height.

    Raises:
      DataError: the file cannot be read, has other columns, a number that is missing or out of
        range, or two boxes for one image.
    """
    path, boxes = Path(path), BoxTable()
    table = read_table(path, "the table of boxes")
    if table.columns != COLUMNS:
        raise DataError(f"{path} needs the columns {','.join(COLUMNS)}")
    for _, row in table.rows:
        if boxes.find(row["file"]):
            raise DataError(f"{path} has two boxes for {row['file']}: keep one")
        boxes.add(row["file"], _parse(path, row))
    return boxes


def _parse(path: Path, row: dict[str, str]) -> Box:
    try:
        # Where semicolons part the columns, commas are decimal.
        x, y, width, height = (float(row[column].replace(",", ".")) for column in COLUMNS[1:])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the box of {row['file']} is not four numbers") from error
    box = Box(x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    # Annotation tools round: a thousandth beyond the border is the border.
    edges = (box.left, box.top, box.right, box.bottom)
    if not (width > 0 and height > 0 and all(-1e-3 <= edge <= 1 + 1e-3 for edge in edges)):
        raise DataError(
            f"{path}: the box of {row['file']} is not within the image: write fractions of its"
            " width and height"
        )
    return box


def box_in_pixels(box: Box, size: tuple[int, int], preprocess: Preprocess) -> Box:
    """A box in pixels of the network's input.

    Args:
      box: in fractions of the original image.
      size: (width, height) of the original image, in pixels.
      preprocess: the crop and scale of the image.
    """
    left, top, right, bottom = preprocess.crop_box(*size)
    x_scale, y_scale = preprocess.width / (right - left), preprocess.height / (bottom - top)
    return Box(
        float(np.clip((box.left * size[0] - left) * x_scale, 0, preprocess.width)),
        float(np.clip((box.top * size[1] - top) * y_scale, 0, preprocess.height)),
        float(np.clip((box.right * size[0] - left) * x_scale, 0, preprocess.width)),
        float(np.clip((box.bottom * size[1] - top) * y_scale, 0, preprocess.height)),
    )
