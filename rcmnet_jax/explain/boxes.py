"""Boxes around cells: reading them, and taking them through the crop of the preprocessing."""

import dataclasses
from pathlib import Path, PurePath

import numpy as np

from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.data.tables import read_table
from rcmnet_jax.errors import DataError

COLUMNS = ("file", "x_center", "y_center", "width", "height")


@dataclasses.dataclass(frozen=True)
class Box:
    """A rectangle; edges in pixels, or as fractions of the image, as the reader says."""

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
    """Boxes by image file.

    Args:
      boxes: fractions of the image, by file with slashes.
    """

    def __init__(self, boxes: dict[str, Box]):
        self._boxes = {_key(file): box for file, box in boxes.items()}

    def __len__(self) -> int:
        return len(self._boxes)

    def find(self, file: str) -> Box | None:
        """The box of an image, in fractions, by its file name and the folder it is in."""
        return self._boxes.get(_key(file))


def _key(file: str) -> tuple[str, ...]:
    # The class folder and the name: the folders above are wherever the user keeps the images.
    return PurePath(file).parts[-2:]


def read_boxes(path: str | Path) -> BoxTable:
    """Reads a CSV of boxes, one an image: ``file,x_center,y_center,width,height``.

    Numbers are fractions of the image's width and height. Images are told apart by the last folder
    and the name in ``file``.

    Raises:
      DataError: no such file, other columns, a number that is none or out of range, or two boxes
        for one image.
    """
    path = Path(path)
    boxes: dict[str, Box] = {}
    seen: set[tuple[str, ...]] = set()
    table = read_table(path, "the table of boxes")
    if table.columns != COLUMNS:
        raise DataError(f"{path} needs the columns {','.join(COLUMNS)}")
    for _, row in table.rows:
        file = row["file"]
        if _key(file) in seen:
            raise DataError(f"{path} has two boxes for {file}: keep one")
        seen.add(_key(file))
        boxes[file] = _parse(path, row)
    return BoxTable(boxes)


def _parse(path: Path, row: dict[str, str]) -> Box:
    try:
        # Where semicolons part the columns, commas are decimal.
        x, y, width, height = (float(row[column].replace(",", ".")) for column in COLUMNS[1:])
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: the box of {row['file']} is no four numbers") from error
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
    """A box in the pixels that the network sees.

    Args:
      box: in fractions of the original image.
      size: (width, height) of the original image, in pixels.
      preprocess: the crop and scale that the image went through.
    """
    left, top, right, bottom = preprocess.crop_box(*size)
    x_scale, y_scale = preprocess.width / (right - left), preprocess.height / (bottom - top)
    return Box(
        float(np.clip((box.left * size[0] - left) * x_scale, 0, preprocess.width)),
        float(np.clip((box.top * size[1] - top) * y_scale, 0, preprocess.height)),
        float(np.clip((box.right * size[0] - left) * x_scale, 0, preprocess.width)),
        float(np.clip((box.bottom * size[1] - top) * y_scale, 0, preprocess.height)),
    )
