"""Prediction of a folder of images: in parallel, resumable, bad files named and passed over."""

import contextlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rcmnet_jax.data.bit_depth import narrower_depth
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.data.threads import progress_bar
from rcmnet_jax.errors import UserError
from rcmnet_jax.files import replacing
from rcmnet_jax.inference.gate import STATUSES
from rcmnet_jax.prediction.classifier import Classifier, ReadImage
from rcmnet_jax.prediction.image_list import ImageList, list_images
from rcmnet_jax.prediction.prediction_table import (
    Partial,
    Row,
    columns,
    read_csv,
    rows_of,
    write_csv,
)
from rcmnet_jax.prediction.summary import read_roles, summarize

logger = logging.getLogger(__name__)


def predict_folder(
    classifier: Classifier,
    images: str | Path | Sequence[str | Path],
    out: str | Path,
    *,
    roles: str | Path | None = None,
    top_k: int = 3,
    workers: int | None = None,
    restart: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Predicts every image of a folder, a zip, a list or several paths, and writes the table.

    Writes ``out`` (CSV), ``<out>_summary.json`` and, where files could not be read,
    ``<out>_bad_files.csv``. Killed and started again it goes on; run again it takes the rows of
    files whose content and model are the same, and predicts the rest.

    Args:
      classifier: the model.
      images: what `rcmnet_jax.prediction.image_list.list_images` takes; one path or several.
      out: the CSV file.
      roles: a CSV of class and role for the differential count, see `read_roles`.
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
    listed = list_images([images] if isinstance(images, str | Path) else images)
    out = Path(out)
    if out.is_dir():
        raise UserError(f"{out} is a folder: name a CSV file, e.g. {out / 'predictions.csv'}")
    names = classifier.network.class_names
    role_by_class = None if roles is None else read_roles(Path(roles), names)
    top_k = max(1, min(top_k, len(names)))
    header = columns(names, top_k)
    identity = _identity(classifier, header)
    partial_path = out.with_name(f".{out.name}.partial")
    if restart:
        partial_path.unlink(missing_ok=True)
    partial = Partial(partial_path, identity)
    with contextlib.closing(partial):
        known = dict(partial.rows)
        earlier = {} if restart else _summary_of(out)
        if earlier.get("identity") == identity:
            known = read_csv(out, header) | known
        started = time.perf_counter()
        rows, bad, reused, maximum = _predict(
            classifier, listed, known, partial, top_k, workers, progress
        )
        if reused and earlier.get("identity") == identity:
            maximum = max(maximum, earlier.get("largest_16_bit_value", 0))
        _warn_of_depth(maximum, classifier.network.preprocess)
        seconds = time.perf_counter() - started
        summary = {
            "images": len(rows),
            "bad_files": len(bad),
            "ignored_files": listed.ignored,
            "reused_rows": reused,
            "largest_16_bit_value": maximum,
            "calibrated": classifier.network.temperature is not None,
            "not_fitted": classifier.not_fitted,
            **summarize(rows, names, role_by_class),
            "seconds": round(seconds, 2),
            "images_per_second": round((len(rows) - reused) / seconds, 1),
            "identity": identity,
        }
        _write(out, header, rows, bad, summary)
        partial.finish()
    return summary


def _predict(
    classifier: Classifier,
    listed: ImageList,
    known: Mapping[str, Row],
    partial: Partial,
    top_k: int,
    workers: int | None,
    progress: bool,
) -> tuple[list[Row], list[ReadImage], int, int]:
    """Rows in the order of the files, bad files, how many rows were there before, and `maximum`.

    The last is the largest value in the files of 16 bits that were decoded, 0 without any.
    """
    files = list(listed.readers)
    done: dict[str, Row] = {}
    bad: list[ReadImage] = []
    reused = maximum = 0
    digests = {file: row["sha256"] for file, row in known.items()}
    with progress_bar(len(files), "predict", enabled=progress) as bar:
        for group, outputs in classifier.stream(listed.read, files, known=digests, workers=workers):
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
                maximum = max(maximum, image.maximum)
                if image.error:
                    bad.append(image)
                elif image.pixels is None:
                    done[image.file] = known[image.file]
                    reused += 1
            bar.update(len(group))
    return [done[file] for file in files if file in done], bad, reused, maximum


def _warn_of_depth(maximum: int, preprocess: Preprocess) -> None:
    depth = narrower_depth(maximum)
    if depth and not preprocess.bit_depth:
        logger.warning(
            "the 16-bit files never exceed %d of 65535, as a camera of %d bits writes them, and"
            " were read nearly black: predict again with --bit-depth %d",
            *(2**depth - 1, depth, depth),
        )


def _identity(classifier: Classifier, header: list[str]) -> dict[str, Any]:
    """What must be the same for an earlier row to hold."""
    network = classifier.network
    return {
        "weights_sha256": classifier.weights_sha256,
        "preprocess": network.preprocess.to_dict(),
        "normalization": [list(network.mean), list(network.std)],
        "temperature": network.temperature,
        "gate": None if network.gate is None else network.gate.to_dict(),
        "columns": header,
        "statuses": list(STATUSES),
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
