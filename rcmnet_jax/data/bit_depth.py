"""Images of more than eight bits a channel: their depth, and their values on the 8-bit scale."""

import sys
from typing import Any

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile

from rcmnet_jax.errors import BadImageError


def narrower_depth(maximum: int) -> int:
    """The bits of the camera that 16-bit values up to a maximum come from; 0 where it has 16."""
    return next((bits for bits in (8, 10, 12, 14) if 0 < maximum < 2**bits), 0)


def has_wide_colour(image: ImageFile) -> bool:
    """Whether colour has 16 bits a channel in the file, of which Pillow keeps the upper eight."""
    raw = _raw_mode(image.tile[0].args) if image.tile else ""
    return image.mode in ("RGB", "RGBA", "LA") and ";16" in raw


def largest_value(image: Image.Image, wide: bool) -> int:
    """The largest value of a 16-bit image, else 0."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        return max(0, int(np.asarray(image).max()))
    if wide:
        colours = np.asarray(image)[..., : 1 if image.mode == "LA" else 3]
        return 256 * int(colours.max()) + 255
    return 0


def from_16_bit(image: Image.Image, bit_depth: int) -> Image.Image:
    """A grey image of 16 bits as one of 8, from its significant bits (0: all 16).

    Raises:
        BadImageError: values of more than 16 bits, or more than the given ones.
    """
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadImageError("the pixels have more than 16 bits: save it with 8 or 16 bits")
    return Image.fromarray(_scale(values, bit_depth or 16))


def narrow_colour(high: Image.Image, again: ImageFile, page: int, bit_depth: int) -> Image.Image:
    """16-bit colour scaled to 8 bits from a bit depth.

    Args:
        high: the image as Pillow loads it: the upper byte of each value.
        again: the same file, opened anew; read with its bytes swapped, for the lower byte.
        page: which image of the file.
        bit_depth: significant bits.
    """
    with again:
        again.seek(page)
        native = "L" if sys.byteorder == "little" else "B"
        for i, tile in enumerate(again.tile):
            raw = _raw_mode(tile.args)
            order = native if raw.endswith("N") else raw[-1]
            swapped = raw[:-1] + {"L": "B", "B": "L"}[order]
            args = (swapped, *tile.args[1:]) if isinstance(tile.args, tuple) else swapped
            again.tile[i] = tile._replace(args=args)
        again.load()
        upper = np.asarray(high)
        values = upper.astype(np.int64) << 8 | np.asarray(again)
    narrow = upper.copy()
    colours = {"RGB": 3, "RGBA": 3, "LA": 1}[high.mode]
    narrow[..., :colours] = _scale(values[..., :colours], bit_depth)
    return Image.fromarray(narrow, high.mode)


def _raw_mode(args: Any) -> str:
    """The pixel layout among a decoder's arguments."""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _scale(values: np.ndarray, bit_depth: int) -> np.ndarray:
    """Whole values of a bit depth on the 8-bit scale, rounded, uint8."""
    white = 2**bit_depth - 1
    if values.max() > white:
        raise BadImageError(
            f"values up to {values.max()} do not fit data.bit_depth={bit_depth}, whose largest is "
            f"{white}: set it to {int(values.max()).bit_length()} or more, or 0"
        )
    return ((510 * values + white) // (2 * white)).astype(np.uint8)
