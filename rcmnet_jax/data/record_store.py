"""Built data sets on disk: one folder of TFDS array_record files with its audit, whole or absent.

Record i is row i of what the audit kept, sorted by file, and holds the bytes of the user's file, so
that decoding stays in one place (`rcmnet_jax.data.preprocess`).
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from rcmnet_jax.data.audit import Audit, read_audit
from rcmnet_jax.data.builders import DATASETS
from rcmnet_jax.data.sources import Source
from rcmnet_jax.data.storage import disk_full_is_an_error, make_directory, require_space
from rcmnet_jax.errors import DataError

AUDIT_JSON, AUDIT_CSV, AUDIT_TABLE = "audit.json", "audit.csv", "audit.txt"


def build(
    name: str, source: Source, audit: Audit, directory: Path, *, progress: bool = True
) -> None:
    """Writes a data set and its audit into a folder that appears only when all is written.

    The caller holds the lock of that folder.

    Args:
        name: a key of `DATASETS`.
        source: where the bytes are read from.
        audit: of that source.
        directory: ``.../<name>/<config>/<version>``; replaced if it exists.
        progress: show a progress bar on standard error.

    Raises:
        DataError: nothing is kept of a class, or the disk is full.
    """
    config = directory.parent.name
    home = directory.parent.parent
    make_directory(directory.parent)
    for left_over in home.glob(f".building-{config}-*"):
        # We hold the lock, so whoever made this was killed.
        shutil.rmtree(left_over, ignore_errors=True)
    # TFDS holds a split in memory, then writes it once.
    needed = int(1.05 * sum(row.bytes for row in audit.kept)) + 2**20
    require_space(home, needed, f"the data set {name}")
    temporary = Path(tempfile.mkdtemp(dir=home, prefix=f".building-{config}-"))
    try:
        with disk_full_is_an_error(home, needed, f"the data set {name}"), _quiet_tfds():
            builder = DATASETS[name](
                source=source,
                audit=audit,
                in_parts=False,
                config=config,
                data_dir=os.fspath(temporary),
                progress=progress,
            )
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
            )
            written = Path(builder.data_dir)
            audit.to_json(written / AUDIT_JSON)
            audit.to_csv(written / AUDIT_CSV)
            (written / AUDIT_TABLE).write_text(audit.table() + "\n", encoding="utf-8")
        if directory.exists():
            shutil.rmtree(directory)
        os.rename(written, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_finished(directory: Path) -> Audit | None:
    """The audit of a finished build; None when there is none, or it is damaged."""
    if not (directory / "dataset_info.json").is_file():
        return None
    try:
        return read_audit(directory / AUDIT_JSON)
    except DataError:
        return None


def open_records(directory: Path) -> Any:
    """The TFDS random-access source over a built folder; the images stay encoded bytes.

    Args:
        directory: ``.../<name>/<config>/<version>``.

    Returns:
        A picklable sequence of dicts with the features of `CellBuilder`.
    """
    with _quiet_tfds():
        builder = tfds.builder_from_directory(os.fspath(directory))
        return builder.as_data_source(
            split="+".join(sorted(builder.info.splits)),
            decoders={"image": tfds.decode.SkipDecoding()},
        )


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keeps TFDS's bars and log lines off the terminal."""
    tfds.disable_progress_bar()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
