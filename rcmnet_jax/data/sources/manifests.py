"""CSV manifests: which file has which label, and which patient, slide and lab it is from."""

import csv
import dataclasses
import io
import re
from pathlib import Path, PurePosixPath

from rcmnet_jax.data.sources.source_file import SourceFile, is_text
from rcmnet_jax.errors import DataError

REQUIRED_COLUMNS = ("file", "label")
OPTIONAL_COLUMNS = ("patient", "slide", "lab")
DELIMITERS = (",", ";", "\t")
HINT = "the first line must name the columns, e.g. file,label,patient,slide,lab"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The rows of a manifest, checked.

    Attributes:
        root: the folder of the CSV; every file lies in it.
        files: sorted by file.
        notes: what was read but not used, for the audit.
    """

    root: Path
    files: tuple[SourceFile, ...]
    notes: tuple[str, ...]


def read_manifest(path: Path) -> Manifest:
    """Reads and checks a manifest.

    Commas, semicolons and tabs all work as delimiters, with or without a byte-order mark, and
    backslashes count as slashes, since such files are often saved by a spreadsheet on Windows.

    Args:
        path: the CSV; the column file is relative to its folder.

    Returns:
        The rows, every file existing inside the folder.

    Raises:
        DataError: naming the row (the first line of the file is row 1).
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text: save it as 'CSV UTF-8'") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    header, _, _ = text.partition("\n")
    delimiter = max(DELIMITERS, key=header.count)
    # newline="" keeps line breaks inside quotes, as the csv module asks for.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        columns = [name.strip().lower() for name in next(reader, [])]
        notes = _check_columns(path, columns)
        rows = _read_rows(path, reader, columns)
    except csv.Error as error:
        raise DataError(f"{path} row {reader.line_num}: {error}") from error
    if not rows:
        raise DataError(f"{path} has no rows: {HINT}, then one line for each image")
    return Manifest(path.parent.resolve(), tuple(sorted(rows)), notes)


def _check_columns(path: Path, columns: list[str]) -> tuple[str, ...]:
    missing = [name for name in REQUIRED_COLUMNS if name not in columns]
    if missing:
        found = ", ".join(columns) or "nothing"
        raise DataError(f"{path} lacks the column {' and '.join(missing)} (found {found}): {HINT}")
    repeated = sorted({name for name in columns if name and columns.count(name) > 1})
    if repeated:
        raise DataError(f"{path} has the column {repeated[0]} twice: rename or remove one")
    extra = [name for name in columns if name and name not in REQUIRED_COLUMNS + OPTIONAL_COLUMNS]
    return (f"columns not used: {', '.join(extra)}",) if extra else ()


def _read_rows(path: Path, reader, columns: list[str]) -> list[SourceFile]:
    root = path.parent.resolve()
    rows: list[SourceFile] = []
    first_row: dict[str, int] = {}
    for fields in reader:
        row = reader.line_num
        if not any(field.strip() for field in fields):
            continue
        if len(fields) != len(columns):
            raise DataError(
                f"{path} row {row} has {len(fields)} fields, the header {len(columns)}: "
                "quote fields that contain the delimiter"
            )
        values = dict(zip(columns, (field.strip() for field in fields), strict=True))
        file = _check_file(path, row, root, values["file"])
        if not values["label"]:
            raise DataError(f"{path} row {row} has no label: fill it in or remove the row")
        if file in first_row:
            raise DataError(
                f"{path} row {row} repeats {file} of row {first_row[file]}: remove one of them"
            )
        first_row[file] = row
        optional = {name: values.get(name) or None for name in OPTIONAL_COLUMNS}
        rows.append(SourceFile(file, values["label"], **optional))
    return rows


def _check_file(path: Path, row: int, root: Path, name: str) -> str:
    """The path of one image, in its normal form, when it exists and lies in the folder."""
    where = f"{path} row {row}"
    if not name:
        raise DataError(f"{where} has no file: fill it in or remove the row")
    if not is_text(name):
        raise DataError(f"{where}: the file name has control characters")
    name = name.replace("\\", "/")
    posix = PurePosixPath(name)
    if posix.is_absolute() or re.match(r"[A-Za-z]:", name):
        raise DataError(f"{where}: {name} is an absolute path: give it relative to {root}")
    if ".." in posix.parts:
        raise DataError(f"{where}: {name} leaves the folder of the manifest: move the CSV upwards")
    target = root / posix
    try:
        inside = target.resolve().is_relative_to(root)
        exists = target.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{where}: {name} cannot be looked up ({error})") from error
    if not inside:
        raise DataError(f"{where}: {name} is a link out of {root}: copy the images there")
    if not exists:
        raise DataError(f"{where}: {name} does not exist in {root}: correct the path")
    return posix.as_posix()
