"""Inputs that are nearly right: valid files, bent a little."""

import io
import json
import zipfile
from typing import Any

import numpy as np
from hypothesis import strategies as st
from PIL import Image

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF")


def _image(format: str) -> bytes:
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(file, format)
    return file.getvalue()


IMAGES = {format: _image(format) for format in FORMATS}


@st.composite
def bent(draw: st.DrawFn, start: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with some changed, cut out, doubled or put in."""
    data = bytearray(draw(start))
    for _ in range(draw(st.integers(0, 6))):
        if not data:
            break
        where = draw(st.integers(0, len(data) - 1))
        length = draw(st.integers(1, 16))
        what = draw(st.sampled_from(["set", "cut", "double", "put", "end"]))
        if what == "set":
            data[where : where + length] = draw(st.binary(min_size=length, max_size=length))
        elif what == "cut":
            del data[where : where + length]
        elif what == "double":
            data[where:where] = data[where : where + length]
        elif what == "put":
            data[where:where] = draw(
                st.sampled_from([b"\0", b"\xff" * 4, b",", b'"', b"\n", b"../"])
            )
        else:
            del data[where:]
    return bytes(data)


def image_bytes() -> st.SearchStrategy[bytes]:
    """Images of all formats, bent; and anything."""
    return bent(st.sampled_from(list(IMAGES.values()))) | st.binary(max_size=200)


_WORDS = st.sampled_from(
    [
        *("a/1.png", "b/2.png", "../x.png", "/etc/passwd", "a", "b", "", "train", "test", "val"),
        *("C:\\x.png", "file", "label", "nan", "1e999", "-1", "0.5", "ä", "\u202e", "\x00", '"'),
    ]
)


@st.composite
def table(draw: st.DrawFn, header: list[str], good: list[list[str]]) -> bytes:
    """A CSV with its header and rows, one cell changed or not; or one that is wild all over."""
    delimiter = draw(st.sampled_from([",", ",", ",", ";", "\t"]))
    if draw(st.booleans()):
        rows = [list(header), *(list(row) for row in good if draw(st.integers(0, 3)))]
        if draw(st.booleans()):
            row = draw(st.integers(0, len(rows) - 1))
            rows[row][draw(st.integers(0, len(header) - 1))] = draw(_WORDS)
        return "\n".join(delimiter.join(row) for row in rows).encode()
    head = draw(st.just(header) | st.lists(_WORDS, max_size=6))
    width = len(header)
    odd = st.lists(_WORDS | st.text(max_size=8), min_size=max(1, width - 1), max_size=width + 1)
    rows = draw(st.lists(st.sampled_from(good) | odd, max_size=6))
    text = "\n".join(delimiter.join(row) for row in [head, *rows])
    data = text.encode("utf-8", "surrogatepass")
    return draw(st.just(data) | bent(st.just(data)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


@st.composite
def bent_json(draw: st.DrawFn, value: Any) -> bytes:
    """A JSON document with some value somewhere replaced, or removed; or its bytes bent."""
    if draw(st.booleans()):
        return draw(bent(st.just(json.dumps(value).encode())))
    copy = json.loads(json.dumps(value))
    for _ in range(draw(st.integers(1, 3))):
        place, key = _somewhere(draw, copy)
        if place is None:
            break
        if isinstance(place, dict) and draw(st.booleans()):
            del place[key]
        else:
            place[key] = draw(JSON)
    return json.dumps(copy).encode("utf-8", "surrogatepass")


def _somewhere(draw: st.DrawFn, value: Any) -> tuple[Any, Any]:
    """A container inside a document, and one of its keys."""
    place, key = None, None
    for _ in range(draw(st.integers(1, 5))):
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            break
        place, key = value, draw(st.sampled_from(keys))
        value = value[key]
        if not isinstance(value, dict | list):
            break
    return place, key


@st.composite
def zip_bytes(draw: st.DrawFn) -> bytes:
    """A zip of class folders, with odd names, then bent or not."""
    file = io.BytesIO()
    names = st.sampled_from(
        [
            *("a/1.png", "b/1.png", "b/2.png", "../c/1.png", "/a/3.png", "a\\4.png", "x/a/5.png"),
            *("a/", "c/", "readme.txt", "a/\x01.png", "C:/a.png", "train/a/1.png"),
            "__MACOSX/a/1.png",
        ]
    )
    with zipfile.ZipFile(file, "w", draw(st.sampled_from([0, 8]))) as archive:
        for name in draw(st.lists(names, max_size=6, unique=True)):
            archive.writestr(name, draw(st.sampled_from([IMAGES["PNG"], b"", b"x" * 2000])))
    data = file.getvalue()
    return draw(st.just(data) | bent(st.just(data)))


class Arrays(dict):
    """A state dict that does not fill the screen when a test fails."""

    def __repr__(self) -> str:
        shapes = {name: getattr(value, "shape", value) for name, value in self.items()}
        return f"Arrays({str(shapes)[:500]})"


@st.composite
def bent_arrays(draw: st.DrawFn, arrays: dict[str, np.ndarray]) -> dict[Any, Any]:
    """A state dict with arrays missing, added, renamed, reshaped, of another type or not finite."""
    state: dict[Any, Any] = Arrays(arrays)
    for _ in range(draw(st.integers(0, 4))):
        names = list(state)
        if not names:
            break
        name = draw(st.sampled_from(names))
        what = draw(st.sampled_from(["gone", "more", "renamed", "shape", "type", "nan", "other"]))
        if what == "gone":
            del state[name]
        elif what == "more":
            state[draw(st.text(max_size=20))] = np.zeros(draw(st.integers(0, 3)))
        elif what == "renamed":
            state[draw(st.sampled_from(["module.", "backbone.", "x"])) + str(name)] = state.pop(
                name
            )
        elif what == "shape":
            state[name] = np.zeros(draw(st.lists(st.integers(0, 4), max_size=5)), np.float32)
        elif what == "type":
            kind = draw(st.sampled_from(["int64", "float16", "complex64", "O", "S3", "bool"]))
            state[name] = np.zeros(np.shape(state[name]), kind)
        elif what == "nan":
            state[name] = np.full(np.shape(state[name]), np.nan, np.float32)
        else:
            state[name] = draw(JSON)
    return state
