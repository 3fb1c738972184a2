"""Synthetic single-cell images, drawn from morphology: no patient, no download, any number.

For tests, examples and a first look at the library. Nothing learnt from them says anything about
real blood.
"""

from rcmnet_jax.synthetic.draw_folder import (
    DRAWING_VERSION,
    contact_sheet,
    write_synthetic_folder,
)
from rcmnet_jax.synthetic.scenes import (
    SYNTHETIC_CART_CLASSES,
    SYNTHETIC_CLASSES,
    draw_cart_cell,
    draw_cell,
)

__all__ = [
    "DRAWING_VERSION",
    "SYNTHETIC_CART_CLASSES",
    "SYNTHETIC_CLASSES",
    "contact_sheet",
    "draw_cart_cell",
    "draw_cell",
    "write_synthetic_folder",
]
