"""TIFF files written tag by tag: orientations, bit depths, pages, broken offsets."""

import dataclasses
import struct

import numpy as np
from hypothesis import strategies as st

from rcmnet_jax.data.preprocess import Preprocess, decode_image, inspect_and_decode
from rcmnet_jax.errors import BadImageError

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _STRIPS = 256, 257, 258, 259, 262, 273
_ORIENTATION, _SAMPLES, _ROWS, _SIZES, _PLANAR = 274, 277, 278, 279, 284
_SHORT, _LONG = 3, 4
# Bits and samples of the kinds that are read.
_READ = ((1, 1), (4, 1), (8, 1), (8, 3), (16, 1), (16, 3))
_OTHERS = ((12, 1), (32, 1), (8, 2), (8, 4), (16, 4), (4, 3), (1, 3))
# Row 0 and column 0 of the stored array, as the TIFF standard defines the values of the tag.
_STORED = {
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: upright.swapaxes(0, 1)[::-1],
    7: lambda upright: upright[::-1, ::-1].swapaxes(0, 1),
    8: lambda upright: upright.swapaxes(0, 1)[:, ::-1],
}


@dataclasses.dataclass(frozen=True)
class Page:
    """One image of a file: how it is stored, and what is broken in its tags.

    Attributes:
        height, width: of the upright image, in pixels.
        orientation: the value of the tag; None leaves it out.
        tag_type: of the orientation, 16 or 32 bits.
        bits, samples: of a pixel.
        rows: in a strip.
        broken: tags with other values than the right ones.
    """

    height: int
    width: int
    orientation: int | None
    tag_type: int
    bits: int
    samples: int
    rows: int
    broken: tuple[tuple[int, int], ...] = ()

    def upright(self) -> np.ndarray:
        """Values of a bit depth, (height, width, samples); different in all pixels nearby."""
        dtype = {16: np.uint16, 12: np.uint16, 32: np.uint32}.get(self.bits, np.uint8)
        rng = np.random.default_rng(self.height * 100 + self.width)
        return rng.integers(0, 2**self.bits, (self.height, self.width, self.samples)).astype(dtype)

    def expected(self) -> np.ndarray | None:
        """The upright image as RGB uint8 where the file is whole and of a kind that is read."""
        if self.broken or (self.bits, self.samples) not in _READ:
            return None
        values = self.upright().astype(np.int64)
        if (self.bits, self.samples) == (16, 3):
            rgb = (values >> 8).astype(np.uint8)
        else:
            rgb = np.floor(values * 255 / (2**self.bits - 1) + 0.5).astype(np.uint8)
        return np.broadcast_to(rgb, (self.height, self.width, 3))


@dataclasses.dataclass(frozen=True)
class Tiff:
    """A file of pages, in either byte order.

    Attributes:
        order: "<" or ">".
        pages: in the file.
        then: where the last page points on to; None ends the file as it should.
        page: the one to read.
    """

    order: str
    pages: tuple[Page, ...]
    then: int | None
    page: int

    def encode(self) -> bytes:
        """The bytes of the file."""
        data = bytearray(b"II*\0" if self.order == "<" else b"MM\0*")
        data += bytes(4)
        link = 4
        directories = []
        for page in self.pages:
            tags = self._write_pixels(data, page)
            data += bytes(len(data) % 2)
            directories.append(len(data))
            data[link : link + 4] = struct.pack(f"{self.order}I", len(data))
            link = self._write_tags(data, tags)
        if self.then is not None:
            # A circle back to an earlier page, or a directory beyond the end of the file.
            earlier = self.then < len(directories)
            target = directories[self.then] if earlier else len(data) + 100
            data[link : link + 4] = struct.pack(f"{self.order}I", target)
        return bytes(data)

    def _write_pixels(self, data: bytearray, page: Page) -> dict[int, tuple[int, list[int]]]:
        """Appends the strips of a page; the tags that describe them."""
        stored = _STORED.get(page.orientation or 1, lambda upright: upright)(page.upright())
        height, width = stored.shape[:2]
        offsets, sizes = [], []
        for top in range(0, height, page.rows):
            strip = stored[top : top + page.rows]
            if page.bits not in (8, 16, 32):
                shifts = np.arange(page.bits)[::-1]
                bits = (strip[..., None] >> shifts & 1).reshape(len(strip), -1)
                raw = np.packbits(bits.astype(np.uint8), axis=1).tobytes()
            else:
                raw = strip.astype(strip.dtype.newbyteorder(self.order)).tobytes()
            offsets.append(len(data))
            sizes.append(len(raw))
            data += raw
        tags = {
            _WIDTH: (_SHORT, [width]),
            _HEIGHT: (_SHORT, [height]),
            _BITS: (_SHORT, [page.bits] * page.samples),
            _COMPRESSION: (_SHORT, [1]),
            _PHOTOMETRIC: (_SHORT, [2 if page.samples >= 3 else 1]),
            _STRIPS: (_LONG, offsets),
            _SAMPLES: (_SHORT, [page.samples]),
            _ROWS: (_SHORT, [page.rows]),
            _SIZES: (_LONG, sizes),
            _PLANAR: (_SHORT, [1]),
        }
        if page.orientation is not None:
            tags[_ORIENTATION] = (page.tag_type, [page.orientation])
        for tag, value in page.broken:
            kind, values = tags.get(tag, (_SHORT, [1]))
            limit = 0xFFFF if kind == _SHORT else 0xFFFFFFFF
            tags[tag] = (kind, [min(value, limit), *values[1:]])
        return dict(sorted(tags.items()))

    def _write_tags(self, data: bytearray, tags: dict[int, tuple[int, list[int]]]) -> int:
        """Appends a directory; where its link to the next one is."""
        start = len(data)
        beside = start + 2 + 12 * len(tags) + 4
        directory, values_beside = struct.pack(f"{self.order}H", len(tags)), b""
        for tag, (kind, values) in tags.items():
            packed = struct.pack(f"{self.order}{len(values)}{'HI'[kind == _LONG]}", *values)
            if len(packed) > 4:
                where = struct.pack(f"{self.order}I", beside + len(values_beside))
                values_beside += packed + bytes(len(packed) % 2)
                packed = where
            directory += struct.pack(f"{self.order}HHI", tag, kind, len(values))
            directory += packed.ljust(4, b"\0")
        data += directory + bytes(4) + values_beside
        return beside - 4


_BROKEN = st.tuples(
    st.sampled_from([_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _STRIPS, _SAMPLES, _ROWS, _SIZES])
    | st.sampled_from([_STRIPS, _SIZES, _PLANAR, _PHOTOMETRIC]),
    st.sampled_from([0, 1, 2, 5, 7, 8, 100, 60_000, 2**31, 2**32 - 1]),
)


def _page(kind: tuple[int, int], **values) -> Page:
    return Page(bits=kind[0], samples=kind[1], **values)


_PAGE = st.builds(
    _page,
    kind=st.sampled_from(_READ) | st.sampled_from([*_READ, *_OTHERS]),
    height=st.integers(8, 24),
    width=st.integers(8, 24),
    orientation=st.none() | st.integers(0, 9) | st.integers(0, 9),
    tag_type=st.sampled_from([_SHORT, _SHORT, _LONG]),
    rows=st.integers(1, 30),
    broken=st.just(())
    | st.just(())
    | st.just(())
    | st.lists(_BROKEN, min_size=1, max_size=2).map(tuple),
)
TIFFS = st.builds(
    Tiff,
    order=st.sampled_from("<>"),
    pages=st.lists(_PAGE, min_size=1, max_size=3).map(tuple),
    then=st.none() | st.none() | st.integers(0, 3),
    page=st.just(0) | st.integers(0, 3),
)


def read_tiff(tiff: Tiff) -> None:
    """Decodes one page: the upright image exactly, the right size, or a `BadImageError`."""
    data = tiff.encode()
    chosen = Preprocess(16, 16, page=tiff.page)
    page = tiff.pages[tiff.page] if tiff.page < len(tiff.pages) else None
    expected = page.expected() if page else None
    whole = all(other.expected() is not None for other in tiff.pages) and tiff.then is None
    try:
        assert decode_image(data, chosen).shape == (16, 16, 3)
    except BadImageError:
        assert expected is None or not whole, "a whole file of a common kind is refused"
        raise
    if page is None:
        assert tiff.then is not None, "a page that does not exist"
        return
    if tiff.page == 0:
        facts, pixels = inspect_and_decode(data)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (facts.height, facts.width, 3)
        if not {_WIDTH, _HEIGHT} & {tag for tag, _ in page.broken}:
            assert pixels.shape == (page.height, page.width, 3)
        if expected is not None:
            np.testing.assert_array_equal(pixels, expected)
    elif expected is not None:
        same = Tiff(tiff.order, (page,), None, 0).encode()
        np.testing.assert_array_equal(
            decode_image(data, chosen), decode_image(same, Preprocess(16, 16))
        )
