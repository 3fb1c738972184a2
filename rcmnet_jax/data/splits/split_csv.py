"""Splits as CSV files: written to be committed, checked against the data when read."""

import csv
import io
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rcmnet_jax.data.splits.split_table import DROPPED, PARTS, Split
from rcmnet_jax.data.tables import read_table
from rcmnet_jax.errors import DataError
from rcmnet_jax.files import write_text

COLUMNS = ("file", "label", "part", "reason", "group")


def write_split_csv(split: Split, path: str | os.PathLike[str]) -> Path:
    """Writes a split with the columns file, label, part, reason and group, sorted by file.

    Args:
        split: what to write.
        path: the CSV, written to the side and renamed.

    Returns:
        The path.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for i in np.argsort(split.files, kind="stable"):
        label = split.class_names[split.labels[i]]
        writer.writerow([split.files[i], label, split.part[i], split.reason[i], split.group[i]])
    path = Path(path)
    write_text(path, text.getvalue())
    return path


def read_split_csv(
    path: str | os.PathLike[str],
    *,
    files: Sequence[str] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    sha256: Sequence[str] | np.ndarray,
    class_names: Sequence[str],
) -> Split:
    """Reads a split and checks that it is one of this data set.

    Args:
        path: the CSV.
        files: path of each record, (N,).
        labels: class index of each record, (N,).
        sha256: content hash of each record, (N,), to see that no image is in two parts.
        class_names: names of the classes.

    Returns:
        The split in the order of `files`; its protocol is "file".

    Raises:
        DataError: files or labels differ from the data set, or an image is in two parts.
    """
    path = Path(path)
    rows = _read_rows(path)
    files = np.asarray(files, dtype=str)
    labels = np.asarray(labels, dtype=np.int32)
    composed = [unicodedata.normalize("NFC", file).strip() for file in files.tolist()]
    _check_same_files(path, set(rows), set(composed))
    ordered = [rows[file] for file in composed]
    for file, label, row in zip(files, labels, ordered, strict=True):
        if row["label"] != unicodedata.normalize("NFC", class_names[label]):
            raise DataError(
                f"{path} says {file} is {row['label']!r}, the data set {class_names[label]!r}: "
                "make the split again"
            )
    split = Split(
        files=files,
        labels=labels,
        part=np.asarray([row["part"] for row in ordered], dtype="<U7"),
        reason=np.asarray([row["reason"] for row in ordered], dtype=str),
        group=np.asarray([row["group"] for row in ordered], dtype=str),
        class_names=tuple(class_names),
        protocol="file",
        level="group" if any(row["group"] for row in ordered) else "image",
        seed=None,
    )
    _check_no_leak(path, split, np.asarray(sha256, dtype=str))
    return split


def _read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows by file, in Unicode's composed form."""
    table = read_table(path, "the split")
    if table.columns != COLUMNS:
        raise DataError(f"{path} is not a split: its columns must be {','.join(COLUMNS)}")
    rows: dict[str, dict[str, str]] = {}
    for line, row in table.rows:
        if row["part"] not in (*PARTS, DROPPED):
            raise DataError(
                f"{path} row {line}: unknown part {row['part']!r}: "
                f"choose from {', '.join(PARTS)}, {DROPPED}"
            )
        if row["file"] in rows:
            raise DataError(f"{path} row {line} repeats {row['file']}")
        rows[row["file"]] = row
    return rows


def _check_same_files(path: Path, in_split: set[str], in_data: set[str]) -> None:
    for extra, has, lacks in (
        (in_split - in_data, "the split", "the data set"),
        (in_data - in_split, "the data set", "the split"),
    ):
        if extra:
            some = ", ".join(sorted(extra)[:3]) + (", ..." if len(extra) > 3 else "")
            raise DataError(
                f"{path} does not fit the data: {len(extra)} files of {has} are not in {lacks} "
                f"({some}): use the data it was made for, or make the split again"
            )


def _check_no_leak(path: Path, split: Split, sha256: np.ndarray) -> None:
    for what, keys in (("identical copies", sha256), ("the same group", split.group)):
        part_of: dict[str, tuple[str, str]] = {}
        for file, key, part in zip(split.files, keys, split.part, strict=True):
            if part == DROPPED or not key:
                continue
            other, seen = part_of.setdefault(key, (file, part))
            if seen != part:
                raise DataError(
                    f"{path}: {file} ({part}) and {other} ({seen}) are {what} in two parts: "
                    "make the split again"
                )
