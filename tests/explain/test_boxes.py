"""Boxes land on the same pixels of the preprocessed image as what they were drawn around."""

import io

import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.data.preprocess import Preprocess, decode_image
from rcmnet_jax.errors import DataError
from rcmnet_jax.explain.boxes import Box, box_in_pixels, read_boxes

HEADER = "file,x_center,y_center,width,height\n"


def write(tmp_path, text):
    path = tmp_path / "boxes.csv"
    path.write_text(text)
    return path


def test_boxes_are_found_wherever_the_folder_lies(tmp_path):
    table = read_boxes(write(tmp_path, HEADER + "pbc/ig/a.jpg,0.5,0.4,0.2,0.3\n"))
    assert len(table) == 1
    for file in ("ig/a.jpg", "/home/me/set/ig/a.jpg", "pbc/ig/a.jpg"):
        box = table.find(file)
        edges = [box.left, box.top, box.right, box.bottom]
        np.testing.assert_allclose(edges, [0.4, 0.25, 0.6, 0.55])
    assert table.find("monocyte/a.jpg") is None
    assert table.find("ig/b.jpg") is None


@pytest.mark.parametrize("size", [(360, 363), (400, 300), (300, 400), (96, 48), (48, 48)])
def test_a_box_goes_where_its_pixels_go(size):
    """A black rectangle on white, through the real preprocessing."""
    width, height = size
    pixels = np.full((height, width, 3), 255, np.uint8)
    top, bottom = int(0.4 * height), int(0.7 * height)
    left, right = int(0.35 * width), int(0.55 * width)
    pixels[top:bottom, left:right] = 0
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    preprocess = Preprocess(48, 48)
    seen = decode_image(stream.getvalue(), preprocess)[..., 0] < 128
    fractions = Box(left / width, top / height, right / width, bottom / height)
    box = box_in_pixels(fractions, size, preprocess)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    found = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    np.testing.assert_allclose([box.left, box.top, box.right, box.bottom], found, atol=0.6)
    # And the mask of the box is that rectangle, but for pixels on its edge.
    assert (box.mask(48, 48) ^ seen).sum() <= rows.size + columns.size


def test_what_is_cropped_away_is_cut_off():
    box = box_in_pixels(Box(0.0, 0.2, 0.5, 0.8), (200, 100), Preprocess(50, 50))
    assert (box.left, box.right) == (0, 25)
    assert (box.top, box.bottom) == (10, 40)


def test_masks_count_pixel_centres():
    assert Box(1.0, 0.0, 3.0, 2.0).mask(4, 4).sum() == 4
    assert Box(1.4, 0.6, 2.6, 1.4).mask(4, 4).sum() == 0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("file,x,y\n", "needs the columns file,x_center"),
        (HEADER + "a/b.jpg,0.5,x,0.1,0.1\n", "not four numbers"),
        (HEADER + "a/b.jpg,0.5,0.5,0.1\n", "row 2 has 4 fields"),
        (HEADER + "a/b.jpg,180,180,50,50\n", "fractions of its width"),
        (HEADER + "a/b.jpg,0.5,0.5,0,0.1\n", "not within the image"),
        (HEADER + "a/b.jpg,nan,0.5,0.1,0.1\n", "not within the image"),
        (HEADER + 2 * "a/b.jpg,0.5,0.5,0.1,0.1\n", "two boxes for a/b.jpg"),
    ],
)
def test_tables_that_are_none(tmp_path, text, told):
    with pytest.raises(DataError, match=told):
        read_boxes(write(tmp_path, text))


def test_a_missing_table(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv cannot be read"):
        read_boxes(tmp_path / "none.csv")
