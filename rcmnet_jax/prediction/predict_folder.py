"""Prediction of a folder of images: in parallel, resumable, bad files named and passed over."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rcmnet_jax.data.sources.folders import walk
from rcmnet_jax.data.threads import progress_bar
from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.files import replacing
from rcmnet_jax.prediction.classifier import Classifier, ReadImage
from rcmnet_jax.prediction.prediction_table import (
    Partial,
    Row,
    columns,
    read_csv,
    rows_of,
    write_csv,
)
from rcmnet_jax.prediction.summary import summarize

logger = logging.getLogger(__name__)

# Files that nobody takes for images; they are counted, not called bad.
TEXTS = (".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".md", ".html", ".log", ".ini", ".yaml")
OTHER_ENDINGS = frozenset((*TEXTS, ".yml", ".xls", ".xlsx", ".pdf", ".db", ".zip", ".partial"))


def predict_folder(
    classifier: Classifier,
    images: str | Path,
    out: str | Path,
    *,
    top_k: int = 3,
    workers: int | None = None,
    restart: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Predicts every image below a folder and writes the table.

    Writes ``out`` (CSV), ``<out>_summary.json`` and, where files could not be read,
    ``<out>_bad_files.csv``. Killed and started again it goes on; run again it takes the rows of
    files whose content and model are the same, and predicts the rest.

    Args:
      classifier: the model.
      images: a folder, or one image.
      out: the CSV file.
      top_k: how many classes to name, best first.
      workers: decoding threads; one for each core when None.
      restart: predict everything again.
      progress: show a progress bar on standard error.

    Returns:
      The summary; ``bad_files`` counts what could not be read.

    Raises:
      DataError: there are no images.
      UserError: the table cannot be written.
    """
    root, files, ignored = _list(Path(images))
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a CSV file, e.g. {out / 'predictions.csv'}")
    names = classifier.restored.class_names
    top_k = max(1, min(top_k, len(names)))
    header = columns(names, top_k)
    identity = _identity(classifier, header)
    partial_path = out.with_name(f".{out.name}.partial")
    if restart:
        partial_path.unlink(missing_ok=True)
    partial = Partial(partial_path, identity)
    with contextlib.closing(partial):
        known = dict(partial.rows)
        if not restart and _summary_of(out).get("identity") == identity:
            known = read_csv(out, header) | known
        started = time.perf_counter()
        rows, bad, reused = _predict(
            classifier, root, files, known, partial, top_k, workers, progress
        )
        seconds = time.perf_counter() - started
        summary = {
            "images": len(rows),
            "bad_files": len(bad),
            "ignored_files": ignored,
            "reused_rows": reused,
            "calibrated": classifier.restored.temperature is not None,
            **summarize(rows, names),
            "seconds": round(seconds, 2),
            "images_per_second": round((len(rows) - reused) / seconds, 1),
            "identity": identity,
        }
        _write(out, header, rows, bad, summary)
        partial.finish()
    return summary


def _predict(
    classifier: Classifier,
    root: Path,
    files: list[str],
    known: Mapping[str, Row],
    partial: Partial,
    top_k: int,
    workers: int | None,
    progress: bool,
) -> tuple[list[Row], list[ReadImage], int]:
    """Rows in the order of the files, bad files, and how many rows were there before."""
    done: dict[str, Row] = {}
    bad: list[ReadImage] = []
    reused = 0
    digests = {file: row["sha256"] for file, row in known.items()}
    with progress_bar(len(files), "predict", enabled=progress) as bar:
        for group, outputs in classifier.stream(root, files, known=digests, workers=workers):
            good = [image for image in group if image.pixels is not None]
            if outputs is not None:
                verdicts = classifier.judge(outputs)
                rows = rows_of(
                    [image.file for image in good],
                    [image.sha256 for image in good],
                    verdicts,
                    top_k,
                )
                partial.append(rows)
                done |= {row["file"]: row for row in rows}
            for image in group:
                if image.error:
                    bad.append(image)
                elif image.pixels is None:
                    done[image.file] = known[image.file]
                    reused += 1
            bar.update(len(group))
    return [done[file] for file in files if file in done], bad, reused


def _list(images: Path) -> tuple[Path, list[str], int]:
    """The folder that names are relative to, the names, and how many files are passed over."""
    if images.is_file():
        return images.parent, [images.name], 0
    if not images.is_dir():
        raise DataError(f"{images} does not exist: name a folder of images with --images")
    entries, _, odd = walk(images)
    names = sorted(name for name, _, _ in entries)
    files = [name for name in names if _may_be_image(name)]
    if not files:
        raise DataError(f"there are no images below {images}: name a folder that has some")
    return images, files, len(names) - len(files) + len(odd)


def _may_be_image(name: str) -> bool:
    return Path(name).suffix.lower() not in OTHER_ENDINGS


def _identity(classifier: Classifier, header: list[str]) -> dict[str, Any]:
    """What must be the same for an earlier row to hold."""
    restored = classifier.restored
    return {
        "weights_sha256": classifier.weights_sha256,
        "preprocess": restored.preprocess.to_dict(),
        "normalization": [list(restored.mean), list(restored.std)],
        "temperature": restored.temperature,
        "gate": None if restored.gate is None else restored.gate.to_dict(),
        "columns": header,
    }


def _summary_path(out: Path) -> Path:
    return out.with_name(f"{out.stem}_summary.json")


def _summary_of(out: Path) -> dict[str, Any]:
    """The summary of an earlier prediction; empty where there is none."""
    try:
        summary = json.loads(_summary_path(out).read_text())
    except (OSError, ValueError):
        return {}
    return summary if isinstance(summary, dict) else {}


def _write(
    out: Path, header: list[str], rows: list[Row], bad: list[ReadImage], summary: dict[str, Any]
) -> None:
    bad_path = out.with_name(f"{out.stem}_bad_files.csv")
    if bad:
        write_csv(bad_path, ["file", "reason"], ({"file": b.file, "reason": b.error} for b in bad))
    else:
        bad_path.unlink(missing_ok=True)
    write_csv(out, header, rows)
    with replacing(_summary_path(out)) as temporary:
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
