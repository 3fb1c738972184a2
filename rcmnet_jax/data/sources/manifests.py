"""CSV manifests: which file has which label, and which patient, slide, lab and part it is from."""

import dataclasses
import re
from pathlib import Path, PurePosixPath

from rcmnet_jax.data.sources.folder_layouts import part_of
from rcmnet_jax.data.sources.source_file import SourceFile, is_text, on_disk
from rcmnet_jax.data.tables import Table, read_table
from rcmnet_jax.errors import DataError

REQUIRED_COLUMNS = ("file", "label")
OPTIONAL_COLUMNS = ("patient", "slide", "lab", "fold")
PART_COLUMN = "split"
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
    """Reads and checks a manifest, see `read_table` for what it may look like.

    Args:
        path: the CSV. The column file is relative to its folder, with slashes or backslashes; the
            column split (train, val or test), where there is one, becomes the split.

    Returns:
        The rows, every file existing inside the folder.

    Raises:
        DataError: naming the row (the first line of the file is row 1).
    """
    table = read_table(path, "the manifest", hint=HINT)
    missing = [name for name in REQUIRED_COLUMNS if name not in table.columns]
    if missing:
        found = ", ".join(table.columns) or "nothing"
        raise DataError(f"{path} lacks the column {' and '.join(missing)} (found {found}): {HINT}")
    if not table.rows:
        raise DataError(f"{path} has no rows: {HINT}, then one line for each image")
    used = (*REQUIRED_COLUMNS, *OPTIONAL_COLUMNS, PART_COLUMN)
    extra = [name for name in table.columns if name and name not in used]
    notes = [f"columns not used: {', '.join(extra)}"] if extra else []
    files = _read_files(table)
    if any(file.part for file in files):
        notes.append("the column split is taken as the split")
    return Manifest(path.parent.resolve(), tuple(sorted(files)), tuple(notes))


def _read_files(table: Table) -> list[SourceFile]:
    root = table.path.parent.resolve()
    has_parts = any(row.get(PART_COLUMN) for _, row in table.rows)
    files: list[SourceFile] = []
    first_row: dict[str, int] = {}
    for line, row in table.rows:
        file = _check_file(table.path, line, root, row["file"])
        if not row["label"]:
            raise DataError(f"{table.path} row {line} has no label: fill it in or remove the row")
        if file in first_row:
            raise DataError(
                f"{table.path} row {line} repeats {file} of row {first_row[file]}: remove one of "
                "them"
            )
        first_row[file] = line
        optional = {name: row.get(name) or None for name in OPTIONAL_COLUMNS}
        part = _check_part(table.path, line, row[PART_COLUMN]) if has_parts else None
        files.append(SourceFile(file, row["label"], part=part, **optional))
    return files


def _check_part(path: Path, line: int, name: str) -> str:
    part = part_of(name)
    if part is None:
        raise DataError(
            f"{path} row {line}: split is {name!r}, expected train, val or test in every row: "
            "correct it, or rename the column to have the split made here"
        )
    return part


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
    try:
        posix = PurePosixPath(on_disk(root, str(posix)))
        target = root / posix
        inside = target.resolve().is_relative_to(root)
        exists = target.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{where}: {name} cannot be looked up ({error})") from error
    if not inside:
        raise DataError(f"{where}: {name} is a link out of {root}: copy the images there")
    if not exists:
        raise DataError(f"{where}: {name} does not exist in {root}: correct the path")
    return posix.as_posix()
