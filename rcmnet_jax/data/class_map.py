"""Which of their classes is which of ours: a CSV with the columns ``label`` and ``class``."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

from rcmnet_jax.data.tables import read_table
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
    table = read_table(path, "the class map", hint=HINT)
    if table.columns != COLUMNS:
        raise DataError(f"{path} is not a class map: {HINT}")
    composed = {unicodedata.normalize("NFC", name): name for name in ours}
    found: dict[str, str | None] = {}
    for line, row in table.rows:
        label, name = row["label"], row["class"]
        if label in found:
            raise DataError(f"{path} row {line} maps {label!r} again: keep one of its lines")
        if name and name not in composed:
            raise DataError(
                f"{path} row {line}: {name!r} is no class of the network: choose from"
                f" {', '.join(ours)}, or leave it empty to leave these images out"
            )
        found[label] = composed.get(name)
    chosen = {label: unicodedata.normalize("NFC", label) for label in theirs}
    missing = [label for label, key in chosen.items() if key not in found]
    if missing:
        raise DataError(f"{path} does not map {', '.join(missing)}: {HINT}")
    if not any(found[key] for key in chosen.values()):
        raise DataError(f"{path} leaves all images out: name one of our classes for some label")
    return {label: found[key] for label, key in chosen.items()}
