"""One table in every form that a spreadsheet may save it in: all of them read the same."""

import dataclasses
import unicodedata
from pathlib import Path

from hypothesis import strategies as st

from rcmnet_jax.data.sources import open_source
from rcmnet_jax.data.tables import read_table
from rcmnet_jax.errors import DataError
from tests.fuzz import inputs

_ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be")
# A delimiter of another file, quotes, line breaks, right-to-left marks; the Greek question mark,
# which is a semicolon in Unicode's composed form.
_ODD = st.sampled_from(
    [
        *("a, b", "a; b", "a\tb", 'say "a"', "a\nb", " a ", "=1+1", "0,5", "NA", "#", "'", "sep=;"),
        *("\u0142", "o\u0308", "\u00f6", "\u037e", "\u202e", "\u7ec6\u80de"),
    ]
)
_TEXT = st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=6)
_PARTS = ("train", "Training", "val", "TEST", "holdout")


@dataclasses.dataclass(frozen=True)
class Sheet:
    """A table, and the forms that it is saved in.

    Attributes:
        header, rows: cells as text.
        encodings, end: of the files, which must all read the same.
        quoted: quote all cells, or only those that need it.
        spaced: write a space after each delimiter.
        named: start with Excel's line that names the delimiter.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    encodings: tuple[str, str]
    end: str
    quoted: bool
    spaced: bool
    named: bool

    def files(self) -> list[bytes]:
        """The table with each delimiter, in each encoding."""
        return [
            self.save(delimiter, encoding)
            for delimiter in (",", ";", "\t")
            for encoding in self.encodings
        ]

    def save(self, delimiter: str, encoding: str) -> bytes:
        """The bytes of one file."""
        between = delimiter + " " if self.spaced else delimiter
        lines = [
            between.join(self._cell(cell, delimiter) for cell in row)
            for row in (self.header, *self.rows)
        ]
        first = [f"sep={delimiter}"] if self.named else []
        return "".join(line + self.end for line in [*first, *lines]).encode(encoding)

    def _cell(self, cell: str, delimiter: str) -> str:
        if self.quoted or set(cell) & {delimiter, '"', "\r", "\n"}:
            return '"' + cell.replace('"', '""') + '"'
        return cell


def _clean(cell: str) -> str:
    return unicodedata.normalize("NFC", cell).strip()


@st.composite
def _sheets(draw: st.DrawFn, columns: st.SearchStrategy[list[str]], cell, key=None) -> Sheet:
    """Tables of some columns; `cell` gives the strategy of a column, `key` a column of its own."""
    header = draw(columns)
    rows = draw(st.lists(st.tuples(*map(cell, header)), min_size=1, max_size=5))
    if key and draw(st.integers(0, 7)):
        values = draw(st.permutations(key[1]))
        rows = [
            tuple(
                value if name.strip().lower() == key[0] else other
                for name, other in zip(header, row, strict=True)
            )
            for value, row in zip(values, rows, strict=False)
        ]
    return Sheet(
        header=tuple(header),
        rows=tuple(rows),
        encodings=tuple(draw(st.lists(st.sampled_from(_ENCODINGS), min_size=2, max_size=2))),
        end=draw(st.sampled_from(["\n", "\r\n", "\r\n", "\r"])),
        quoted=draw(st.booleans()),
        spaced=draw(st.integers(0, 3)) == 0,
        named=draw(st.integers(0, 4)) == 0,
    )


TABLES = _sheets(
    st.lists(_ODD | _TEXT, min_size=2, max_size=4, unique_by=lambda name: _clean(name).lower()),
    lambda name: _ODD | _TEXT,
)


def read_tables(folder: Path, sheet: Sheet) -> None:
    """Reads a table in all its forms and compares them with the cells it was made from.

    A row of numbers settles the delimiter where a cell of the header holds another one.
    """
    sheet = dataclasses.replace(sheet, rows=(tuple("1234"[: len(sheet.header)]), *sheet.rows))
    columns = tuple(_clean(name).lower() for name in sheet.header)
    rows = [tuple(map(_clean, row)) for row in sheet.rows]
    expected = [dict(zip(columns, row, strict=True)) for row in rows if any(row)]
    for number, data in enumerate(sheet.files()):
        path = folder / f"{number}.csv"
        path.write_bytes(data)
        table = read_table(path, "the table")
        assert table.columns == columns, data
        assert [row for _, row in table.rows] == expected, data


_IMAGES = ("a/1.png", "a/2.png", "b/1.png", "b/ö 2.png", "x, y/1.png")
_COLUMNS = ("file", "label", "patient", "slide", "fold", "split", "Remarks; if any")


def _manifest_cell(name: str) -> st.SearchStrategy[str]:
    if name.lower() == "file":
        return st.sampled_from(_IMAGES)
    if name.lower() == "split":
        return st.sampled_from(_PARTS)
    if name.lower() == "label":
        return st.sampled_from(["a", "b", "b", "o\u0308, x", "\u00f6, x"])
    return st.sampled_from(["", "P1", "P 2; left", "3,5"]) | _TEXT


MANIFESTS = _sheets(
    st.tuples(
        st.sampled_from([["file", "label"]] * 3 + [["FILE", " Label "], ["label"], ["file"]]),
        st.lists(st.sampled_from(_COLUMNS[2:]), max_size=5, unique=True),
    )
    .flatmap(lambda both: st.permutations([*both[0], *both[1]]))
    .filter(lambda columns: len(columns) > 1),
    _manifest_cell,
    ("file", _IMAGES),
)


def read_manifests(folder: Path, sheet: Sheet) -> None:
    """Opens a manifest in all its forms: the same images each time, or the same error."""
    for name in _IMAGES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(inputs.IMAGES["PNG"])
    names = [name.strip().lower() for name in sheet.header]
    expected = [
        {name: _clean(cell) or None for name, cell in zip(names, row, strict=True)}
        for row in sheet.rows
    ]
    errors = set()
    for data in sheet.files():
        (folder / "manifest.csv").write_bytes(data)
        try:
            source = open_source(folder / "manifest.csv", min_classes=1)
        except DataError as error:
            errors.add(str(error))
            continue
        errors.add("")
        assert {"file", "label"} <= set(names)
        assert [file.file for file in source.files] == sorted(row["file"] for row in expected)
        assert source.class_names == tuple(sorted({row["label"] for row in expected}))
        for row in expected:
            file = next(file for file in source.files if file.file == row["file"])
            for level in ("label", "patient", "slide", "fold"):
                assert getattr(file, level) == row.get(level), data
            word = (row.get("split") or "").lower()
            words = {"training": "train", "holdout": "test", "": None}
            assert file.part == words.get(word, word)
    assert len(errors) == 1, errors
    if errors != {""}:
        files = [row.get("file") for row in expected]
        labels = [row.get("label") for row in expected]
        assert None in (*files, *labels) or len(set(files)) < len(files)
        raise DataError(errors.pop())
