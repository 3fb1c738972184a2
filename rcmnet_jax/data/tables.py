"""CSV files as people have them: from any spreadsheet, in any language's settings."""

import csv
import dataclasses
import io
import re
import unicodedata
from pathlib import Path

from rcmnet_jax.errors import DataError

DELIMITERS = (",", ";", "\t")


@dataclasses.dataclass(frozen=True)
class Table:
    """A CSV in memory.

    Attributes:
        path: of the file.
        columns: names in the first line, stripped, in lower case.
        rows: line number (the first line of the file is 1) and stripped values by column; lines
            without any value are left out.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: Path | str, what: str, *, hint: str = "") -> Table:
    """Reads a CSV in UTF-8 or UTF-16, with or without a byte-order mark.

    The delimiter is a comma, a semicolon or a tab, with or without a space after it; lines end as
    on any system. All text comes in Unicode's composed form (NFC), in which names that look the
    same are the same.

    Args:
        path: the file.
        what: names it in messages, such as "the class map".
        hint: how to write it right, for messages.

    Raises:
        DataError: naming the line that cannot be read.
    """
    path = Path(path).expanduser()
    lines = read_lines(path, what, hint=hint)
    columns = tuple(name.lower() for name in lines[0][1]) if lines else ()
    repeated = sorted({name for name in columns if name and columns.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has the column {repeated[0]} twice: rename or remove one")
    rows: list[tuple[int, dict[str, str]]] = []
    for line, fields in lines[1:]:
        if not any(fields):
            continue
        if len(fields) != len(columns):
            raise DataError(
                f"{path} row {line} has {len(fields)} fields, the header {len(columns)}: "
                "quote fields that contain the delimiter"
            )
        rows.append((line, dict(zip(columns, fields, strict=True))))
    return Table(path, columns, tuple(rows))


def read_lines(path: Path, what: str, *, hint: str = "") -> list[tuple[int, list[str]]]:
    """Line numbers and stripped fields of a CSV that `read_table` reads, which may have no header.

    Raises:
        DataError: naming the line that cannot be read.
    """
    try:
        text = _decode(path.read_bytes())
    except OSError as error:
        raise DataError(
            f"{what} {path} cannot be read ({error.strerror}): check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{what} {path} is neither UTF-8 nor UTF-16 text: save it as 'CSV UTF-8'"
        ) from error
    # Excel's own first line, which names the delimiter.
    named = re.match(r"sep=(.)(?:\r\n?|\n)", text)
    skipped = 1 if named else 0
    text = text[named.end() :] if named else text
    reader = _reader(text, named[1] if named else _delimiter(text))
    try:
        return [(reader.line_num + skipped, [_clean(f) for f in fields]) for fields in reader]
    except csv.Error as error:
        hint = f": {hint}" if hint else ""
        raise DataError(f"{path} row {reader.line_num + skipped}: {error}{hint}") from error


def _reader(text: str, delimiter: str):
    # newline="" keeps line breaks inside quotes, as the csv module asks for.
    lines = io.StringIO(text, newline="")
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=True)


def _clean(field: str) -> str:
    # After parsing: composed, the Greek question mark is a semicolon.
    return unicodedata.normalize("NFC", field).strip()


def _delimiter(text: str) -> str:
    """The commonest delimiter of the header, outside quotes, that suits the lines below it."""
    header = re.split(r"[\r\n]", re.sub(r'"[^"]*"', "", text), maxsplit=1)[0]
    found = [delimiter for delimiter in DELIMITERS if delimiter in header]
    if len(found) > 1:
        found = [delimiter for delimiter in found if _is_regular(text, delimiter)] or found
    return max(found, key=header.count, default=DELIMITERS[0])


def _is_regular(text: str, delimiter: str) -> bool:
    """Whether all lines that are not blank have as many fields as the first."""
    try:
        rows = list(_reader(text, delimiter))
    except csv.Error:
        return False
    return len({len(row) for row in rows if any(field.strip() for field in row)}) == 1


def _decode(data: bytes) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16")
    # Delimiters and Latin letters have a zero byte in UTF-16, the first of two if big-endian.
    head = data[:200]
    if b"\0" in head:
        big_endian = head[::2].count(0) > head[1::2].count(0)
        return data.decode("utf-16-be" if big_endian else "utf-16-le")
    return data.decode("utf-8-sig")
