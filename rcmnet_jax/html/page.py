"""Renders the templates of this folder; every page extends ``base.html``.

A page is one file that contains its style, scripts and pictures, so it can be mailed and archived,
and opens without a server.
"""

import base64
import functools
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from rcmnet_jax.files import write_text


def render(template: str, **values: Any) -> str:
    """A page as text; values are escaped unless they are marked safe.

    Args:
      template: file name in ``templates/``.
      **values: every name that the template uses.
    """
    return _environment().get_template(template).render(**values)


def write_page(path: str | Path, template: str, **values: Any) -> None:
    """Renders a page into a file, whole or not at all.

    Raises:
      UserError: the file cannot be written.
    """
    write_text(path, render(template, **values))


def png_uri(path: str | Path) -> str:
    """A PNG file as a data URI."""
    return "data:image/png;base64," + base64.b64encode(Path(path).read_bytes()).decode()


def image_uri(pixels_HxWx3: np.ndarray, *, quality: int = 85) -> str:
    """Pixels (H, W, 3) uint8 as a JPEG data URI: pages with hundreds of cells stay small."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_HxWx3).save(buffer, "JPEG", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("rcmnet_jax.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
