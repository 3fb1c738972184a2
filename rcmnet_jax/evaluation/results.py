"""The files of one evaluation: metrics, per-image table and figures."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation.metrics import Evaluation, evaluate_predictions
from rcmnet_jax.evaluation.predictions import Predictions, write_predictions
from rcmnet_jax.files import replacing

_LEVEL_NOTES = {
    "image": "image-level: an upper bound (images of one patient or slide may lie in training and "
    "test alike)",
    "external": "external: images of another source than the training images",
}


def split_note(meta: Mapping[str, Any]) -> str:
    """What the scores can claim given the split, from ``meta["split"]["level"]``."""
    split = meta.get("split")
    level = split.get("level") if isinstance(split, Mapping) else None
    if level is None:
        return "split level not recorded: take the numbers as an upper bound"
    if isinstance(split, Mapping) and split.get("protocol") == "external":
        level = "external"
    kept = f"{level}-level: no {level} lies in training and test alike"
    return _LEVEL_NOTES.get(str(level), kept) + _lax_notes(meta)


def _lax_notes(meta: Mapping[str, Any]) -> str:
    """Options of the run that make its test scores look better than they are."""
    evaluation = (meta.get("config") or {}).get("eval") or {}
    notes = ""
    if evaluation.get("watch") == "test":
        notes += "; the best epoch was chosen on the test part: optimistic"
    if evaluation.get("views") == "paper":
        notes += "; each test image counts in six views, which are not independent"
    return notes


def _plain(value: Any) -> Any:
    """numpy scalars, arrays and paths in the caller's meta as JSON types."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a JSON type")


def _json_text(content: Mapping[str, Any], name: str) -> str:
    """Indented JSON without NaN; see `write_json` for the types allowed."""
    try:
        return json.dumps(content, indent=2, allow_nan=False, default=_plain, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name} cannot hold its content ({error}); pass numbers, strings, lists and dicts, "
            "and None for what is undefined"
        ) from error


def write_json(path: Path | str, content: Mapping[str, Any]) -> None:
    """Write JSON, whole or not at all, indented, with types kept.

    Args:
        path: the file.
        content: JSON types, numpy scalars and arrays, paths.

    Raises:
        DataError: a value that JSON cannot hold, NaN and infinities included.
        UserError: the file cannot be written.
    """
    text = _json_text(content, Path(path).name)
    with replacing(path) as temporary:
        # surrogateescape: paths in the content need not be UTF-8.
        temporary.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")


def _write_figures(
    start: str, predictions: Predictions, confusion: np.ndarray, synthetic: bool
) -> None:
    """The three figures of one evaluation; `start` is the path up to the part's name."""
    names = predictions.class_names
    # Here, so that matplotlib is loaded only when a figure is drawn.
    from rcmnet_jax.evaluation.plots import plot_confusion, plot_per_class, plot_reliability

    plot_confusion(confusion, names, f"{start}_confusion.png", synthetic=synthetic)
    plot_per_class(confusion, names, f"{start}_per_class.png", synthetic=synthetic)
    plot_reliability(
        predictions.labels,
        predictions.probabilities,
        f"{start}_reliability.png",
        synthetic=synthetic,
    )


def write_evaluation(
    directory: Path | str,
    labels: Any,
    probabilities: Any,
    *,
    files: Sequence[str],
    sha256: Sequence[str] | None,
    class_names: Sequence[str],
    groups: Sequence[Any] | None = None,
    synthetic: bool = False,
    meta: Mapping[str, Any],
    part: str = "test",
    samples: int = 2000,
    seed: int = 0,
) -> Evaluation:
    """Score predictions, and write the scores, the predictions and the figures.

    Writes ``<part>_predictions.csv``, ``<part>_confusion.png``, ``<part>_per_class.png``,
    ``<part>_reliability.png`` and, last, ``<part>_metrics.json`` with the table's sha256.

    Args:
        directory: where to; made if missing.
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        files: N distinct file names.
        sha256: N hashes of the files, or None.
        class_names: K names, in the order of the columns.
        groups: patient or slide of each image, for the bootstrap.
        synthetic: the images are drawn; every figure and file says so.
        meta: provenance, kept as given; ``meta["split"]["level"]`` decides the note on the split.
        part: name of the evaluated part, the prefix of the files.
        samples: bootstrap resamples.
        seed: of the bootstrap.

    Returns:
        The scores written.

    Raises:
        DataError: predictions of the wrong form, or meta that JSON cannot hold.
        UserError: a part that is not a file name, or a file that cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", part):
        raise UserError(f"part {part!r} must be letters, digits, _ and -, such as test or val")
    _json_text(meta, f"{part}_metrics.json")  # fails before anything is written
    predictions = Predictions.of(
        labels, probabilities, files=files, sha256=sha256, class_names=class_names
    )
    evaluation = evaluate_predictions(
        labels, probabilities, class_names, groups=groups, samples=samples, seed=seed
    )
    start = str(Path(directory) / part)
    write_predictions(f"{start}_predictions.csv", predictions)
    _write_figures(start, predictions, evaluation.confusion, synthetic)
    table = Path(f"{start}_predictions.csv").read_bytes()
    content = {
        "part": part,
        "synthetic": synthetic,
        "split_note": split_note(meta),
        "predictions_sha256": hashlib.sha256(table).hexdigest(),
        "bootstrap": {"samples": samples, "seed": seed},
        **evaluation.to_dict(),
        "meta": dict(meta),
    }
    write_json(f"{start}_metrics.json", content)
    return evaluation
