"""Preprocessing: every mode by hand-made pixels, the size rule, and no traceback for any bytes."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from rcmnet_jax.data.preprocess import (
    MAX_PIXELS,
    Preprocess,
    decode_image,
    inspect_and_decode,
)
from rcmnet_jax.errors import BadImageError, ConfigError


def save(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format=format, **options)
    return file.getvalue()


def image_bytes(
    seed: int, height: int = 24, width: int = 20, *, format: str = "JPEG", mode: str = "RGB"
) -> bytes:
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return save(Image.fromarray(small).resize((width, height)).convert(mode), format)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "BMP"])
def test_lossless_formats_come_back_exactly(pixels, format):
    image = decode_image(save(Image.fromarray(pixels), format), Preprocess(12, 16))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, pixels)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_are_near(format):
    smooth = np.tile(np.arange(0, 240, 15, dtype=np.uint8)[None, :, None], (12, 1, 3))
    image = decode_image(save(Image.fromarray(smooth), format, quality=95))
    assert np.abs(image.astype(int) - smooth).max() < 12


def test_grey_and_one_bit(pixels):
    grey = pixels[..., 0]
    expected = np.repeat(grey[..., None], 3, axis=2)
    np.testing.assert_array_equal(decode_image(save(Image.fromarray(grey))), expected)
    bits = Image.fromarray(grey).point(lambda v: 255 * (v > 127)).convert("1")
    image = decode_image(save(bits))
    np.testing.assert_array_equal(image[..., 0], 255 * (grey > 127))


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_is_scaled_from_the_full_range(format):
    values = np.tile(np.linspace(0, 65535, 16).astype(np.uint16), (8, 1))
    image = decode_image(save(Image.fromarray(values), format))
    np.testing.assert_array_equal(image[..., 1], np.round(values / 257).astype(np.uint8))


def test_32_bit_and_float_are_refused():
    with pytest.raises(BadImageError, match="more than 16 bits"):
        decode_image(save(Image.fromarray(np.full((9, 9), 70000, np.int32)), "TIFF"))
    with pytest.raises(BadImageError, match="floating-point"):
        decode_image(save(Image.fromarray(np.ones((9, 9), np.float32)), "TIFF"))


def test_transparency_is_laid_over_white(pixels):
    alpha = np.full((12, 16), 255, np.uint8)
    alpha[:6] = 0
    alpha[6] = 128
    image = decode_image(save(Image.fromarray(np.dstack([pixels, alpha]))))
    assert np.all(image[:6] == 255)
    np.testing.assert_array_equal(image[7:], pixels[7:])
    half = (pixels[6].astype(float) * 128 + 255 * 127) / 255
    assert np.abs(image[6] - half).max() <= 1
    grey_alpha = Image.fromarray(np.dstack([pixels[..., 0], alpha]), "LA")
    assert np.all(decode_image(save(grey_alpha))[:6] == 255)


def test_palettes(pixels):
    palette = Image.fromarray(pixels).quantize(8)
    image = decode_image(save(palette))
    np.testing.assert_array_equal(image, np.asarray(palette.convert("RGB")))
    transparent = decode_image(save(palette, transparency=0))
    first = np.asarray(palette) == 0
    assert np.all(transparent[first] == 255)
    np.testing.assert_array_equal(transparent[~first], image[~first])


def test_cmyk_jpeg_has_the_right_colours():
    red = Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK")
    facts, image = inspect_and_decode(save(red, "JPEG", quality=95))
    assert facts.mode == "CMYK"
    assert np.abs(image.astype(int) - [200, 30, 40]).max() < 10


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(pixels, orientation):
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    facts, turned = inspect_and_decode(save(image, exif=exif))
    # By the standard: what row 0 and column 0 of the stored array show.
    expected = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels[::-1].transpose(1, 0, 2),
        7: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: pixels[:, ::-1].transpose(1, 0, 2),
    }[orientation]
    np.testing.assert_array_equal(turned, expected)
    assert (facts.height, facts.width) == expected.shape[:2]
    assert facts.orientation == orientation


def test_only_the_first_frame(pixels):
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    data = save(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    facts, image = inspect_and_decode(data)
    assert facts.frames == 2
    np.testing.assert_array_equal(image, pixels)


def test_size_rule_covers_and_crops_the_centre():
    # Three columns of colour; a tall target sees only the middle one.
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    image = decode_image(save(Image.fromarray(wide)), Preprocess(20, 20))
    np.testing.assert_array_equal(image, wide[:, 20:40])
    smaller = decode_image(save(Image.fromarray(wide)), Preprocess(10, 10))
    assert np.all(smaller[:, 3:7] == 200)
    tall = decode_image(save(Image.fromarray(wide.transpose(1, 0, 2))), Preprocess(10, 10))
    np.testing.assert_array_equal(tall, smaller.transpose(1, 0, 2))


def test_resizing_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    image = decode_image(save(Image.fromarray(stripes)), Preprocess(8, 8))
    assert np.abs(image[2:-2, 2:-2].astype(int) - 127).max() <= 3


def test_366x369_becomes_native_by_the_rule():
    image = decode_image(image_bytes(1, height=369, width=366), Preprocess(363, 360))
    assert image.shape == (363, 360, 3)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_truncated(format):
    data = image_bytes(2, height=64, width=64, format=format)
    with pytest.raises(BadImageError) as error:
        decode_image(data[: len(data) // 2])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"hello", b"\x00" * 100, b"GIF89a" + bytes(50)])
def test_not_an_image(data):
    with pytest.raises(BadImageError, match="JPEG, PNG, TIFF, BMP or WebP"):
        decode_image(data)


def _png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [8001, 10_000, 14_000, 100_000])
def test_decompression_bombs_are_refused_from_the_header(side):
    assert side * side > MAX_PIXELS
    with pytest.raises(BadImageError, match="too large"):
        decode_image(_png_header(side, side))


def test_too_small():
    with pytest.raises(BadImageError, match="too small"):
        decode_image(image_bytes(0, height=7, width=20, format="PNG"))


def test_preprocess_dict_round_trip():
    preprocess = Preprocess(363, 360)
    assert Preprocess.from_dict(preprocess.to_dict()) == preprocess
    with pytest.raises(ConfigError, match="version 99"):
        Preprocess.from_dict({**preprocess.to_dict(), "version": 99})
    with pytest.raises(ConfigError, match="whole height"):
        Preprocess.from_dict({**preprocess.to_dict(), "height": "big"})
    with pytest.raises(ConfigError, match="0x64"):
        Preprocess(0, 64)


SAMPLES = [
    *(image_bytes(i, format=f) for i, f in enumerate(("JPEG", "PNG", "TIFF", "BMP", "WEBP"))),
    image_bytes(9, mode="P", format="PNG"),
    image_bytes(9, mode="RGBA", format="TIFF"),
    image_bytes(9, mode="CMYK", format="JPEG"),
]
SIGNATURES = [sample[:12] for sample in SAMPLES]


def decodes_or_refuses(data: bytes) -> None:
    try:
        image = decode_image(data, Preprocess(16, 16))
    except BadImageError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert image.shape == (16, 16, 3)
        assert image.dtype == np.uint8


FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@FUZZ
@given(st.sampled_from(SIGNATURES), st.binary(max_size=200))
def test_any_bytes_after_a_signature(signature, rest):
    decodes_or_refuses(signature + rest)


@FUZZ
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 10**6),
)
def test_any_damage_to_a_real_file(sample, changes, cut):
    data = bytearray(sample)
    for position, value in changes:
        # Half of the changes in the headers, where the decoders take decisions.
        data[position % (len(data) if position % 2 else min(120, len(data)))] = value
    decodes_or_refuses(bytes(data[: cut % (2 * len(data)) or None]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    "options",
    [
        {"format": "JPEG", "quality": 100, "subsampling": 0},
        {"format": "PNG"},
        {"format": "TIFF"},
        {"format": "TIFF", "compression": "tiff_lzw"},
        {"format": "WEBP", "lossless": True},
    ],
    ids=lambda o: f"{o['format']}-{o.get('compression', '')}",
)
def test_every_orientation_of_every_format_equals_the_upright_image(options, orientation):
    upright = np.zeros((40, 64, 3), np.uint8)
    upright[:16, :32], upright[24:, 48:], upright[:16, 48:] = 200, (200, 0, 0), (0, 0, 200)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **options)
    facts, image = inspect_and_decode(data)
    assert (facts.width, facts.height, facts.orientation) == (64, 40, orientation)
    assert image.shape == upright.shape
    assert np.abs(image.astype(int) - upright).max() <= 4


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_bit_depth_of_16_bit_grey(format, bits):
    values = np.tile(np.linspace(0, 2**bits - 1, 16).astype(np.uint16), (8, 1))
    data = save(Image.fromarray(values), format)
    facts, dark = inspect_and_decode(data)
    assert (facts.bits, facts.maximum) == (16, 2**bits - 1)
    assert dark.max() <= 64
    image = decode_image(data, Preprocess(8, 16, bit_depth=bits))
    np.testing.assert_array_equal(image[..., 0], np.round(values / (2**bits - 1) * 255))


def _rgb_tiff_of_16_bits(values: np.ndarray, order: str) -> bytes:
    height, width, _ = values.shape
    tags = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, 8 + 2 + 9 * 12 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 9 * 12 + 4 + 6),
        (277, 3, 1, 3),
        (278, 3, 1, height),
        (279, 4, 1, values.size * 2),
    ]
    data = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    data += struct.pack(f"{order}H", len(tags))
    for tag, kind, count, value in tags:
        short = kind == 3 and count == 1
        body = struct.pack(
            f"{order}HH" if short else f"{order}I", *((value, 0) if short else (value,))
        )
        data += struct.pack(f"{order}HHI", tag, kind, count) + body
    data += struct.pack(f"{order}I", 0) + struct.pack(f"{order}HHH", 16, 16, 16)
    return data + values.astype(f"{order}u2").tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
def test_bit_depth_of_16_bit_colour(order):
    values = np.random.default_rng(0).integers(0, 4096, (12, 16, 3)).astype(np.uint16)
    data = _rgb_tiff_of_16_bits(values, order)
    facts, dark = inspect_and_decode(data)
    assert facts.bits == 16
    assert facts.maximum < 4096
    assert dark.max() < 16
    image = decode_image(data, Preprocess(12, 16, bit_depth=12))
    np.testing.assert_array_equal(image, np.round(values / 4095 * 255).astype(np.uint8))


def test_a_bit_depth_that_does_not_fit_is_refused_and_old_bundles_open():
    data = save(Image.fromarray(np.full((9, 9), 40000, np.uint16)))
    with pytest.raises(BadImageError, match=r"values up to 40000 do not fit.*set it to 16"):
        decode_image(data, Preprocess(9, 9, bit_depth=12))
    with pytest.raises(ConfigError, match=r"bit_depth is 7"):
        Preprocess(9, 9, bit_depth=7)
    assert Preprocess(9, 9).to_dict().keys() == {"version", "height", "width", "resize"}
    for chosen in (Preprocess(9, 9, bit_depth=12), Preprocess(9, 9, page=1)):
        assert Preprocess.from_dict(chosen.to_dict()) == chosen


def test_a_page_can_be_chosen(pixels):
    frames = [Image.fromarray(pixels), Image.fromarray(255 - pixels)]
    data = save(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(decode_image(data, Preprocess(12, 16, page=1)), 255 - pixels)
    with pytest.raises(BadImageError, match="has 2 pages"):
        decode_image(data, Preprocess(12, 16, page=2))


def test_an_unknown_compression_is_named():
    data = save(Image.new("RGB", (16, 16)), format="TIFF")
    tag = struct.pack("<HHIH", 259, 3, 1, 1)
    assert data.count(tag) == 1
    broken = data.replace(tag, struct.pack("<HHIH", 259, 3, 1, 60_000))
    with pytest.raises(BadImageError, match=r"\(unknown code 60000 in its header\): replace"):
        decode_image(broken)
