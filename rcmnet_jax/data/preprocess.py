"""The one way from image bytes to an RGB array: training, evaluation, prediction and export.

The rule, in order:

1. JPEG, PNG, TIFF, BMP and WebP, told by their first bytes. The first frame only.
2. Rotated and mirrored as EXIF says. Colour profiles are ignored.
3. To 8-bit RGB: grey, palette, CMYK and 1-bit are converted; 16-bit grey is scaled from its
   full range, ``round(v / 257)``; transparency is laid over white, the background of a smear.
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
    """

    height: int
    width: int

    def __post_init__(self) -> None:
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
        return {
            "version": PREPROCESS_VERSION,
            "height": self.height,
            "width": self.width,
            "resize": RESIZE_RULE,
        }

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
        if not all(isinstance(values.get(side), int) for side in ("height", "width")):
            raise ConfigError(f"preprocessing {dict(values)} lacks a whole height and width")
        return cls(height=values["height"], width=values["width"])


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
    """

    format: str
    mode: str
    width: int
    height: int
    orientation: int
    frames: int
    transparent: bool


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
    try:
        with plugin(io.BytesIO(data)) as image:
            _check_size(image)
            orientation = _orientation(image)
            facts = ImageFacts(
                format=image.format or "",
                mode=image.mode,
                width=image.size[1 if orientation >= 5 else 0],
                height=image.size[0 if orientation >= 5 else 1],
                orientation=orientation,
                frames=int(getattr(image, "n_frames", 1)),
                transparent=image.has_transparency_data,
            )
            image.seek(0)
            image.load()
            # TIFF may refine the size while it loads.
            _check_size(image)
            rgb = _to_rgb(image)
            if orientation in _TRANSPOSE:
                rgb = rgb.transpose(_TRANSPOSE[orientation])
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


def _to_rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB, transparency over white."""
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode == "F":
        raise BadImageError("the pixels are floating-point: save it with 8 or 16 bits a channel")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _from_16_bit(image).convert("RGB")
    if image.has_transparency_data:
        # Premultiplied modes only convert to their plain relatives.
        plain = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        rgba = (image.convert(plain) if plain else image).convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise BadImageError("the pixels have more than 16 bits: save it with 8 or 16 bits")
    # 65535 = 255 * 257, so this is the rounded value on the 8-bit scale.
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _cover(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Scales to cover the target and crops the overhang, in one resampling."""
    target = (preprocess.width, preprocess.height)
    if image.size == target:
        return image
    return image.resize(target, Image.Resampling.BICUBIC, box=preprocess.crop_box(*image.size))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "..."
