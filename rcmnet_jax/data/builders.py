"""TFDS builders that need no TensorFlow: array_record files holding the images as they came.

Record i is row i of what the audit kept, sorted by file. The bytes are those of the user's
files, so decoding stays in one place (`rcmnet_jax.data.preprocess`) and nothing is compressed
twice. TFDS keeps "all" for itself, so the one split is called "cells"; sets larger than
`MAX_SPLIT_BYTES` are written as several ("cells_00000", ...), because beyond 1 GB a split without
TensorFlow fails in TFDS's shuffle buffer (tensorflow-datasets 4.9.10, core/shuffle.py).
"""

import contextlib
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from rcmnet_jax.data.audit import Audit, AuditRow
from rcmnet_jax.data.audit.findings import PBC_CLASSES
from rcmnet_jax.data.sources import Source
from rcmnet_jax.data.sources.source_file import SourceFile
from rcmnet_jax.data.storage import disk_full_is_an_error, make_directory, require_space
from rcmnet_jax.data.threads import ordered_map, progress_bar
from rcmnet_jax.errors import DataError

SPLIT = "cells"
MAX_SPLIT_BYTES = 512 * 2**20
AUDIT_JSON, AUDIT_CSV, AUDIT_TABLE = "audit.json", "audit.csv", "audit.txt"


class CellBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Writes what an audit kept. The subclasses differ in name, classes and description."""

    VERSION = tfds.core.Version("1.0.0")
    # No checksum files lie beside this module: TFDS need not look for them.
    code_path = None
    REQUIRED_CLASSES: tuple[str, ...] | None = None
    DESCRIPTION = ""
    CITATION = ""

    def __init__(
        self, *, source: Source, audit: Audit, config: str, data_dir: str, progress: bool = False
    ) -> None:
        """A builder for one audited source.

        Args:
            source: where the bytes are read from.
            audit: of that source; its kept rows become the records.
            config: name of the folder between data set and version.
            data_dir: the TFDS root.
            progress: show a progress bar on standard error.
        """
        self._source = source
        self._audit = audit
        self._progress = progress
        super().__init__(data_dir=data_dir, config=tfds.core.BuilderConfig(name=config))

    @classmethod
    def check_classes(cls, class_names: Sequence[str], path: Path) -> None:
        """Raises `DataError` unless the classes are those this data set must have."""
        if cls.REQUIRED_CLASSES is None or set(class_names) == set(cls.REQUIRED_CLASSES):
            return
        missing = sorted(set(cls.REQUIRED_CLASSES) - set(class_names))
        extra = sorted(set(class_names) - set(cls.REQUIRED_CLASSES))
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"also has {', '.join(extra)}"] if extra else []
        raise DataError(
            f"{path} {' and '.join(parts)}, so it is not the eight-class PBC set: "
            "use the data set 'cell_folder' for other classes"
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            citation=self.CITATION or None,
            # Records stay in the order of the audit: record i is kept row i.
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=list(self._audit.class_names)),
                    "file": tfds.features.Text(),
                    "sha256": tfds.features.Text(),
                    "width": np.int32,
                    "height": np.int32,
                    "patient": tfds.features.Text(),
                    "slide": tfds.features.Text(),
                    "lab": tfds.features.Text(),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        del dl_manager
        groups = _by_size(self._audit.kept)
        names = [SPLIT] if len(groups) == 1 else [f"{SPLIT}_{i:05d}" for i in range(len(groups))]
        return {
            name: self._generate_examples(rows) for name, rows in zip(names, groups, strict=True)
        }

    def _generate_examples(self, rows: Sequence[AuditRow]) -> Iterator[tuple[int, dict[str, Any]]]:
        files = {file.file: file for file in self._source.files}
        images = ordered_map(lambda row: self._read(files, row), rows, workers=2)
        with progress_bar(len(rows), "build", enabled=self._progress) as bar:
            for key, (row, image) in enumerate(zip(rows, images, strict=True)):
                columns = ("label", "file", "sha256", "width", "height", "patient", "slide", "lab")
                yield key, {"image": image, **{name: getattr(row, name) for name in columns}}
                bar.update()

    def _read(self, files: dict[str, SourceFile], row: AuditRow) -> bytes:
        data = self._source.read(files[row.file])
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise DataError(f"{row.file} changed while the data set was built: build it again")
        return data

    # TFDS prints "Downloading and preparing"; nothing is downloaded, and a library is quiet.
    def _log_download_bytes(self) -> None:
        pass

    def _log_download_done(self) -> None:
        pass


class Pbc(CellBuilder):
    """The peripheral blood cell set of Acevedo et al. 2020, or any part with its eight classes."""

    REQUIRED_CLASSES = PBC_CLASSES
    DESCRIPTION = "Single peripheral blood cells, eight classes, 17,092 images of 360x363 pixels."
    CITATION = (
        "Acevedo, Merino, Alferez, Molina, Boldu, Rodellar. A dataset of microscopic peripheral "
        "blood cell images for development of automatic recognition systems. Data in Brief 30 "
        "(2020) 105474. doi:10.17632/snkd93bnjr.1. CC BY 4.0."
    )


class Cart(CellBuilder):
    """Class folders of the user's for transfer, such as CAR-T cells and others."""

    DESCRIPTION = "Single cells in the user's own classes, such as CAR-T cells and others."


class CellFolder(CellBuilder):
    """Any class folders, zip of them, or CSV manifest."""

    DESCRIPTION = "Single cells in the user's own classes."


class SyntheticSmear(CellBuilder):
    """Drawn cells, synthetic in every name: for tests, demos and first steps."""

    DESCRIPTION = "Synthetic drawings of blood cells. Not a single real cell is in this set."


DATASETS: dict[str, type[CellBuilder]] = {
    "pbc": Pbc,
    "cart": Cart,
    "cell_folder": CellFolder,
    "synthetic_smear": SyntheticSmear,
}


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
    kept = audit.kept
    for label in audit.class_names:
        if not any(row.label == label for row in kept):
            raise DataError(
                f"class {label!r} in {audit.source} has no usable image (see `rcmnet data audit`): "
                "add images or remove the class"
            )
    config = directory.parent.name
    home = directory.parent.parent
    make_directory(directory.parent)
    for left_over in home.glob(f".building-{config}-*"):
        # We hold the lock, so whoever made this was killed.
        shutil.rmtree(left_over, ignore_errors=True)
    # TFDS holds a split in memory, then writes it once.
    needed = int(1.05 * sum(row.bytes for row in kept)) + 2**20
    require_space(home, needed, f"the data set {name}")
    temporary = Path(tempfile.mkdtemp(dir=home, prefix=f".building-{config}-"))
    try:
        with disk_full_is_an_error(home, needed, f"the data set {name}"), _quiet_tfds():
            builder = DATASETS[name](
                source=source,
                audit=audit,
                config=config,
                data_dir=os.fspath(temporary),
                progress=progress,
            )
            builder.download_and_prepare(
                file_format="array_record",
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


def is_built(directory: Path) -> bool:
    """Whether a folder holds a finished data set. Folders only appear once they are finished."""
    return (directory / "dataset_info.json").is_file() and (directory / AUDIT_JSON).is_file()


def _by_size(rows: Sequence[AuditRow]) -> list[list[AuditRow]]:
    """Consecutive rows, in groups of at most `MAX_SPLIT_BYTES`."""
    groups: list[list[AuditRow]] = [[]]
    size = 0
    for row in rows:
        if groups[-1] and size + row.bytes > MAX_SPLIT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += row.bytes
    return groups


@contextlib.contextmanager
def _quiet_tfds() -> Iterator[None]:
    """Keeps TFDS's bars and notes about its own workings off the terminal."""
    tfds.disable_progress_bar()
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
