"""Which of their classes is which of ours: a CSV with the columns ``label`` and ``class``."""

import csv
from collections.abc import Sequence
from pathlib import Path

from rcmnet_jax.errors import DataError

COLUMNS = ("label", "class")
HINT = "write label,class in the first line and one line for each of their labels"


def read_class_map(
    path: Path | str, theirs: Sequence[str], ours: Sequence[str]
) -> dict[str, str | None]:
    """Reads a map of classes and checks that it covers the images and names our classes.

    Args:
        path: the CSV; a row with an empty class leaves its images out.
        theirs: labels of the other set, each of which must have a row.
        ours: classes of the network.

    Returns:
        Our class, or None, for each of their labels.

    Raises:
        DataError: the file cannot be read, or a row or a label is wrong.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"the class map {path} cannot be read ({error}): {HINT}") from error
    if not rows or tuple(name.strip().lower() for name in rows[0]) != COLUMNS:
        raise DataError(f"{path} is not a class map: {HINT}")
    found: dict[str, str | None] = {}
    for line, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) != 2:
            raise DataError(f"{path} line {line} has {len(row)} fields, not 2: {HINT}")
        label, name = (field.strip() for field in row)
        if label in found:
            raise DataError(f"{path} line {line} maps {label!r} again: keep one of its lines")
        if name and name not in ours:
            raise DataError(
                f"{path} line {line}: {name!r} is no class of the network: choose from"
                f" {', '.join(ours)}, or leave it empty to leave these images out"
            )
        found[label] = name or None
    missing = [label for label in theirs if label not in found]
    if missing:
        raise DataError(f"{path} does not map {', '.join(missing)}: {HINT}")
    if not any(found[label] for label in theirs):
        raise DataError(f"{path} leaves all images out: name one of our classes for some label")
    return {label: found[label] for label in theirs}
