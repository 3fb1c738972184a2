"""Columns that divide images into subgroups: manifest columns, file-name prefix, image size."""

from collections.abc import Sequence
from pathlib import Path

from rcmnet_jax.data.dataset import CellDataset
from rcmnet_jax.data.tables import read_table
from rcmnet_jax.errors import DataError

# The label defines no subgroup, and the file is different for every image.
_NOT_COLUMNS = ("file", "label", "")


def subgroup_columns(
    dataset: CellDataset, files: Sequence[str], table: Path | None
) -> dict[str, list[str]]:
    """Values of each column, one for each image.

    Args:
        dataset: with its audit; the other columns of its manifest are used while the file exists.
        files: the images.
        table: a CSV with a column ``file`` and any others (stain, scanner, ...), or None.

    Returns:
        Values by column name; "" where unknown. Columns without any value are left out.

    Raises:
        DataError: the table cannot be read, or names none of the images.
    """
    audit = dataset.audit
    rows = {row.file: row for row in audit.kept}
    columns = {
        "patient": [rows[file].patient for file in files],
        "slide": [rows[file].slide for file in files],
        "lab": [rows[file].lab for file in files],
        "letters of the file name": [rows[file].prefix for file in files],
        "size (width x height)": [f"{rows[file].width}x{rows[file].height}" for file in files],
    }
    if audit.layout == "manifest" and Path(audit.source).is_file():
        columns |= _table_columns(Path(audit.source), files, required=False)
    if table is not None:
        columns |= _table_columns(table, files, required=True)
    return {name: values for name, values in columns.items() if any(values)}


def _table_columns(path: Path, files: Sequence[str], *, required: bool) -> dict[str, list[str]]:
    """The columns of a CSV, in the order of the files."""
    table = read_table(path, "the table")
    if "file" not in table.columns:
        raise DataError(f"{path} has no column file: name each image's file relative to its folder")
    found = {row["file"].replace("\\", "/"): row for _, row in table.rows}
    if required and not any(file in found for file in files):
        raise DataError(
            f"{path} names none of the images (such as {files[0]}): give files as the report does"
        )
    return {
        name: [found.get(file, {}).get(name, "") for file in files]
        for name in table.columns
        if name not in _NOT_COLUMNS
    }
