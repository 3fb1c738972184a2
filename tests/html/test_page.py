"""Pages are one file and escape what they are given."""

import base64
import io

import jinja2
import numpy as np
import pytest
from PIL import Image

from rcmnet_jax.errors import UserError
from rcmnet_jax.html import image_uri, render, write_page


def test_titles_are_escaped_and_nothing_is_fetched():
    text = render("base.html", title="<script>alert(1)</script>")
    assert "<script>" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_a_missing_value_is_an_error():
    with pytest.raises(jinja2.UndefinedError):
        render("base.html")


def test_pictures_come_back():
    pixels = np.full((8, 6, 3), (200, 100, 50), np.uint8)
    head, _, data = image_uri(pixels).partition(",")
    assert head == "data:image/jpeg;base64"
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.size == (6, 8)
    assert np.abs(np.asarray(image).astype(int) - pixels).max() < 12


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_page(tmp_path / "file" / "page.html", "base.html", title="x")
