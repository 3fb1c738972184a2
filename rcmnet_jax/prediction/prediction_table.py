"""The rows of a prediction, as CSV columns and as lines that survive a kill."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.files import replacing
from rcmnet_jax.prediction.classifier import Verdicts

# File name -> its row. A row is a dict of strings by column, as the CSV has them.
Row = dict[str, str]
PREFIX = "p_"


def columns(class_names: Sequence[str], top_k: int) -> list[str]:
    """The header: who, what, how sure, and every probability."""
    tops = [f"top_{rank}" for rank in range(2, top_k + 1)]
    head = ["file", "sha256", "top_1", "probability", *tops, "ood_score", "status"]
    return [*head, *(PREFIX + name for name in class_names)]


def rows_of(
    files: Sequence[str], digests: Sequence[str], verdicts: Verdicts, top_k: int
) -> list[Row]:
    """One row an image; score and status are empty where the model has no gate."""
    names = columns(verdicts.class_names, top_k)
    rows = []
    for number, (file, digest) in enumerate(zip(files, digests, strict=True)):
        probabilities = verdicts.probabilities[number]
        # Ties to the lowest class, as everywhere.
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        ranked = [verdicts.class_names[k] for k in order]
        score = "" if verdicts.score is None else f"{verdicts.score[number]:.4f}"
        status = "" if verdicts.status is None else str(verdicts.status[number])
        numbers = [f"{p:.6g}" for p in probabilities]
        first, *others = ranked
        values = [file, digest, first, numbers[order[0]], *others, score, status, *numbers]
        rows.append(dict(zip(names, values, strict=True)))
    return rows


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Mapping[str, str]]) -> None:
    """The table, whole or not at all."""
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, header, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_csv(path: Path, header: Sequence[str]) -> dict[str, Row]:
    """The rows of an earlier table with this header; none where it is another or damaged."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            reader = csv.DictReader(stream)
            if reader.fieldnames != list(header):
                return {}
            rows = [row for row in reader if None not in row and None not in row.values()]
    except (OSError, csv.Error):
        return {}
    return {row["file"]: row for row in rows}


class Partial:
    """The rows so far, appended batch by batch, so that a killed prediction can go on.

    Args:
      path: the file; removed by `finish`.
      identity: of model and settings; rows of another are not taken up.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any]):
        self.path = path
        self._identity = json.dumps({"prediction": identity}, sort_keys=True)
        self.rows = self._read()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = path.open("w", encoding="utf-8", errors="surrogateescape")
        except OSError as error:
            raise UserError(
                f"cannot write {path} ({error.strerror}): choose another --out"
            ) from error
        print(self._identity, file=self._stream)
        self.append(self.rows.values())

    def append(self, rows: Iterable[Row]) -> None:
        """Adds rows, on disk before this returns (but for the disk's own cache)."""
        try:
            for row in rows:
                print(json.dumps(row), file=self._stream)
            self._stream.flush()
        except OSError as error:
            raise UserError(
                f"cannot write {self.path} ({error.strerror}): free some space and run the same"
                " command to go on"
            ) from error

    def close(self) -> None:
        """Leaves the rows for the next start."""
        self._stream.close()

    def finish(self) -> None:
        """Removes the rows, which are in the table now."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Row]:
        try:
            text = self.path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return {}
        first, *lines = text.split("\n")
        if first != self._identity:
            return {}
        rows: dict[str, Row] = {}
        for line in lines:
            try:
                row = json.loads(line)
            except ValueError:
                # The line that was being written when the process was killed.
                continue
            rows[row["file"]] = row
        return rows
