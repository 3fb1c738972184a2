"""The table of predictions: one CSV row an image, exact enough to recompute every score.

Columns: ``file, sha256, label, predicted, correct, probability``, then ``p_<class>`` for each class
in the model's order. ``label`` and ``predicted`` are class names, ``correct`` is 1 or 0,
``probability`` is that of the predicted class. Numbers are written with ``repr``, so float32 and
float64 both come back bit by bit.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation import scores
from rcmnet_jax.evaluation.checks import check_predictions
from rcmnet_jax.files import replacing

_COLUMNS = ("file", "sha256", "label", "predicted", "correct", "probability")
_PREFIX = "p_"


@dataclass(frozen=True, eq=False)
class Predictions:
    """The probabilities of a model on a set of images, with their labels."""

    files: tuple[str, ...]
    sha256: tuple[str, ...]
    """Of the image files; empty strings where unknown."""
    labels: np.ndarray
    """(N,) int64."""
    probabilities: np.ndarray
    """(N, K) float64."""
    class_names: tuple[str, ...]

    @classmethod
    def of(
        cls,
        labels: Any,
        probabilities: Any,
        *,
        files: Sequence[str],
        class_names: Sequence[str],
        sha256: Sequence[str] | None = None,
    ) -> "Predictions":
        """Checked predictions from arrays.

        Args:
            labels: (N,) int in [0, K).
            probabilities: (N, K), rows sum to 1.
            files: N distinct names.
            class_names: K distinct names.
            sha256: N hashes, or None.

        Raises:
            DataError: lengths disagree, a file repeats, or the values are not probabilities.
        """
        labels, probabilities = check_predictions(labels, probabilities, class_names)
        names = tuple(str(file) for file in files)
        hashes = tuple(sha256) if sha256 is not None else ("",) * len(names)
        if not len(names) == len(hashes) == len(labels):
            raise DataError(
                f"{len(labels)} predictions, {len(names)} file names and {len(hashes)} hashes; "
                "give one of each for every image"
            )
        if len(set(names)) != len(names):
            twice = Counter(names).most_common(1)[0][0]
            raise DataError(f"{twice!r} was predicted twice; each image must occur once")
        return cls(names, hashes, labels, probabilities, tuple(class_names))

    @property
    def predicted(self) -> np.ndarray:
        """(N,) int64 class of largest probability, ties to the lowest index."""
        return scores.predict(self.probabilities)


def write_predictions(path: Path | str, predictions: Predictions) -> None:
    """Write the table, whole or not at all.

    Args:
        path: the CSV file.
        predictions: the rows, in their order.

    Raises:
        UserError: the file cannot be written.
    """
    names = predictions.class_names
    # surrogateescape: file names on Linux are bytes, and need not be UTF-8.
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*_COLUMNS, *(_PREFIX + name for name in names)])
        for file, digest, label, predicted, row in zip(
            predictions.files,
            predictions.sha256,
            predictions.labels.tolist(),
            predictions.predicted.tolist(),
            predictions.probabilities.tolist(),
            strict=True,
        ):
            head = [file, digest, names[label], names[predicted], int(label == predicted)]
            writer.writerow([*head, repr(row[predicted]), *map(repr, row)])


def read_predictions(path: Path | str) -> Predictions:
    """Read a table back and check that its columns agree with each other.

    Args:
        path: a CSV file as `write_predictions` makes it; extra columns are refused.

    Returns:
        The predictions, in the file's order.

    Raises:
        DataError: the file cannot be read, is another table, or a row contradicts itself.
    """
    path = Path(path)
    try:
        with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            header, *rows = csv.reader(stream)
    except OSError as error:
        raise DataError(
            f"cannot read predictions {path}: {error.strerror or error}; run `rcmnet evaluate` to "
            "write them"
        ) from error
    except csv.Error as error:
        raise DataError(f"{path} is not a CSV file ({error}); write it again") from error
    except ValueError as error:  # nothing to unpack
        raise DataError(f"{path} is empty; run `rcmnet evaluate` to write it again") from error
    scored = header[len(_COLUMNS) :]
    if tuple(header[: len(_COLUMNS)]) != _COLUMNS or not all(
        name.startswith(_PREFIX) for name in scored
    ):
        raise DataError(
            f"{path} has other columns than {', '.join(_COLUMNS)}, p_<class>, ...; give a "
            "predictions file written by `rcmnet evaluate`"
        )
    classes = [name.removeprefix(_PREFIX) for name in scored]
    return _parse(path, rows, classes)


def _parse(path: Path, rows: list[list[str]], classes: list[str]) -> Predictions:
    """Predictions from rows of text; an error names the row."""
    index = {name: i for i, name in enumerate(classes)}
    table: list[list[float]] = []
    for line, row in enumerate(rows, start=2):
        if len(row) != len(_COLUMNS) + len(classes):
            raise DataError(f"{path}, row {line}: {len(row)} columns; the file is cut or edited")
        try:
            table.append([float(value) for value in row[len(_COLUMNS) :]])
        except ValueError as error:
            raise DataError(f"{path}, row {line}: {error}; write the file again") from error
        for column in (2, 3):
            if row[column] not in index:
                raise DataError(
                    f"{path}, row {line}: {row[column]!r} is not a class of this file "
                    f"({', '.join(classes)}); write the file again"
                )
    if not table:
        raise DataError(f"{path} holds no images; evaluate a part of the data that is not empty")
    try:
        result = Predictions.of(
            np.array([index[row[2]] for row in rows]),
            np.array(table),
            files=[row[0] for row in rows],
            sha256=[row[1] for row in rows],
            class_names=classes,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    for line, (row, label, predicted) in enumerate(
        zip(rows, result.labels, result.predicted, strict=True), start=2
    ):
        expected = [classes[predicted], str(int(label == predicted))]
        if row[3:5] != expected or row[5] != row[len(_COLUMNS) + predicted]:
            raise DataError(
                f"{path}, row {line}: predicted, correct or probability contradicts the p_ "
                "columns; the file was edited, write it again"
            )
    return result
