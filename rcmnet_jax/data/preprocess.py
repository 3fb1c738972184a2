"""The one way from image bytes to an RGB array: training, evaluation, prediction and export.

The rule, in order:

1. JPEG, PNG, TIFF, BMP and WebP, recognised by their first bytes. One page, the first by default.
2. Rotated and mirrored as EXIF says. Colour profiles are ignored.
3. To 8-bit RGB: grey, palette, CMYK and 1-bit are converted; 16-bit grey is scaled from its
   full range, ``round(v / 257)``, or, where a bit depth is given, 16-bit grey and colour from
   that depth (12 bits: 4095 is white); transparency is laid over white, the background of a smear.
4. To the asked size. An image of that size is left alone, bit by bit. Any other is scaled,
   keeping its proportions, until it just covers the target, and the overhang is cropped evenly
   from both sides (one antialiased bicubic resampling of the centred crop box).

Changing any pixel this produces means raising ``PREPROCESS_VERSION``, which is part of every
cache key and every checkpoint.
"""

import dataclasses
import io
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from rcmnet_jax.data.bit_depth import (
    from_16_bit,
    has_wide_colour,
    largest_value,
    narrow_colour,
)
from rcmnet_jax.errors import BadImageError, ConfigError

PREPROCESS_VERSION = 1
RESIZE_RULE = "cover-bicubic-centre"
# 64 megapixels: 200 times a cell image, 192 MB decoded. Checked before any pixel is decoded.
MAX_PIXELS = 64_000_000
MIN_SIDE = 8

# The plugins are called directly, not through Image.open: that one warns about large images
# from a process-wide setting, where the limit here is ours, smaller and an error.
_PLUGINS: tuple[tuple[tuple[bytes, ...], type[ImageFile]], ...] = (
    ((b"\xff\xd8\xff",), JpegImageFile),
    ((b"\x89PNG\r\n\x1a\n",), PngImageFile),
    ((b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+"), TiffImageFile),
    ((b"BM",), BmpImageFile),
)
# What Pillow is known to raise on damaged files. UserWarning: where warnings are errors.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    AssertionError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    UserWarning,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_EXIF_ORIENTATION = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclasses.dataclass(frozen=True)
class Preprocess:
    """The size that images are brought to, by the rule of this module.

    Attributes:
        height, width: in pixels.
        bit_depth: significant bits of 16-bit files, 8 to 16; 0: all. Cameras of 10, 12 or 14 bits
            fill only the lower part of 16 bits, which is nearly black without this.
        page: which image of a file that holds several, from 0.
    """

    height: int
    width: int
    bit_depth: int = 0
    page: int = 0

    def __post_init__(self) -> None:
        if self.bit_depth and not 8 <= self.bit_depth <= 16:
            raise ConfigError(
                f"data.bit_depth is {self.bit_depth}: give 8 to 16, or 0 for all bits"
            )
        if self.page < 0:
            raise ConfigError(f"data.page is {self.page}: pages count from 0")
        if min(self.height, self.width) < MIN_SIDE or self.height * self.width > MAX_PIXELS:
            raise ConfigError(
                f"image size {self.height}x{self.width} (height x width) is not possible: "
                f"each side must be {MIN_SIDE} pixels or more, the area at most {MAX_PIXELS}"
            )

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """What is kept of an image of this size: left, top, right, bottom in its pixels."""
        scale = max(self.width / width, self.height / height)
        box_width, box_height = min(self.width / scale, width), min(self.height / scale, height)
        left, top = (width - box_width) / 2, (height - box_height) / 2
        return left, top, min(left + box_width, width), min(top + box_height, height)

    def to_dict(self) -> dict[str, Any]:
        """What goes into checkpoints and cache keys."""
        values = {
            "version": PREPROCESS_VERSION,
            "height": self.height,
            "width": self.width,
            "resize": RESIZE_RULE,
        }
        # Written where they are set, so that bundles and caches without them stay valid.
        options = {"bit_depth": self.bit_depth, "page": self.page}
        return values | {name: value for name, value in options.items() if value}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`.

        Raises:
            ConfigError: the values come from another version of the rule, or are incomplete.
        """
        found = {"version": values.get("version"), "resize": values.get("resize")}
        if found != {"version": PREPROCESS_VERSION, "resize": RESIZE_RULE}:
            raise ConfigError(
                f"preprocessing {found['resize']!r} version {found['version']} is not the one "
                f"here ({RESIZE_RULE!r} version {PREPROCESS_VERSION}): use the rcmnet_jax "
                "version that wrote it"
            )
        options = {name: values.get(name, 0) for name in ("bit_depth", "page")}
        sides: dict[str, Any] = {name: values.get(name) for name in ("height", "width")}
        if not all(isinstance(value, int) for value in (*sides.values(), *options.values())):
            raise ConfigError(f"preprocessing {dict(values)} lacks a whole height and width")
        return cls(**sides, **options)


@dataclasses.dataclass(frozen=True)
class ImageFacts:
    """What a file says about itself, before any conversion.

    Attributes:
        format: "JPEG", "PNG", ...
        mode: Pillow's mode as stored: "RGB", "L", "P", "CMYK", "I;16", ...
        width, height: in pixels, after the EXIF rotation.
        orientation: the EXIF orientation, 1 (upright) to 8.
        frames: number of images in the file.
        transparent: whether there is transparency to lay over white.
        bits: of a channel, 1 to 16.
        maximum: the largest value of a 16-bit image (of colour, to the next 256), else 0.
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    frames: int
    transparent: bool
    bits: int = 8
    maximum: int = 0


def decode_image(data: bytes, preprocess: Preprocess | None = None) -> np.ndarray:
    """Decodes one image by the rule of this module.

    Args:
        data: the bytes of an image file.
        preprocess: the size to bring it to; None keeps the size it has.

    Returns:
        RGB, uint8, (height, width, 3).

    Raises:
        BadImageError: for any bytes that are not a whole image within the limits.
    """
    return inspect_and_decode(data, preprocess)[1]


def inspect_and_decode(
    data: bytes, preprocess: Preprocess | None = None
) -> tuple[ImageFacts, np.ndarray]:
    """`decode_image`, with the facts about the file beside the pixels.

    Args:
        data: the bytes of an image file.
        preprocess: the size to bring it to; None keeps the size it has.

    Returns:
        The facts, and RGB, uint8, (height, width, 3).

    Raises:
        BadImageError: for any bytes that are not a whole image within the limits.
    """
    plugin = _plugin_for(data)
    page, bit_depth = (preprocess.page, preprocess.bit_depth) if preprocess else (0, 0)
    try:
        with plugin(io.BytesIO(data)) as image:
            _check_size(image)
            frames = int(getattr(image, "n_frames", 1))
            if page >= frames:
                raise BadImageError(f"the file has {frames} pages, so none is page {page}, from 0")
            image.seek(page)
            orientation, wide = _orientation(image), has_wide_colour(image)
            mode, transparent = image.mode, image.has_transparency_data
            image.load()
            # TIFF may refine the size while it loads.
            _check_size(image)
            maximum = largest_value(image, wide)
            if wide and bit_depth:
                rgb = _to_rgb(narrow_colour(image, plugin(io.BytesIO(data)), page, bit_depth))
            else:
                rgb = _to_rgb(image, bit_depth)
            # Pillow turns TIFF files itself while it loads them, and no others.
            if orientation in _TRANSPOSE and not isinstance(image, TiffImageFile):
                rgb = rgb.transpose(_TRANSPOSE[orientation])
            facts = ImageFacts(
                format=image.format or "",
                mode=mode,
                width=rgb.width,
                height=rgb.height,
                orientation=orientation,
                frames=frames,
                transparent=transparent,
                bits=16 if maximum or wide or mode.startswith("I") else 8,
                maximum=maximum,
            )
            if preprocess is not None:
                rgb = _cover(rgb, preprocess)
            return facts, np.asarray(rgb)
    except BadImageError:
        raise
    except _DECODER_ERRORS as error:
        raise BadImageError(
            f"the image is damaged or incomplete ({_one_line(error)}): replace or remove it"
        ) from error


def _plugin_for(data: bytes) -> type[ImageFile]:
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImageFile
    for signatures, plugin in _PLUGINS:
        if data.startswith(signatures):
            return plugin
    what = "the file is empty" if not data else "not an image"
    raise BadImageError(f"{what}: expected JPEG, PNG, TIFF, BMP or WebP")


def _check_size(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImageError(
            f"the image is too large ({width}x{height}, at most {MAX_PIXELS // 10**6} megapixels): "
            "crop single cells from it"
        )
    if min(width, height) < MIN_SIDE:
        raise BadImageError(
            f"the image is too small ({width}x{height}, at least {MIN_SIDE} pixels a side)"
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 where there is none or the EXIF block is damaged."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except _DECODER_ERRORS:
        # Pixels are what counts; cameras and editors write broken EXIF all the time.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, bit_depth: int = 0) -> Image.Image:
    """Any mode to 8-bit RGB, transparency over white."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise BadImageError("the pixels are floating-point: save it with 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return from_16_bit(image, bit_depth).convert("RGB")
    if image.has_transparency_data:
        # Premultiplied modes only convert to their plain relatives.
        plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        rgba = (image.convert(plain) if plain else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _cover(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Scales to cover the target and crops the overhang, in one resampling."""
    target = (preprocess.width, preprocess.height)
    if image.size == target:
        return image
    return image.resize(target, Image.Resampling.BICUBIC, box=preprocess.crop_box(*image.size))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if text.isdecimal():
        # The key of a failed look-up, such as Pillow's of compressions, says nothing by itself.
        text = f"unknown code {text} in its header"
    return text if len(text) <= 120 else text[:117] + "..."
