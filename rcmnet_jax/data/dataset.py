"""A prepared data set: audited, written as TFDS array_record files, ready to split and read."""

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.data.audit import Audit, AuditRow, audit_source, read_audit
from rcmnet_jax.data.sources import Layout, Source, open_source
from rcmnet_jax.data.storage import exclusive_lock, resolve_data_dir
from rcmnet_jax.errors import ConfigError, DataError

DATASET_NAMES = ("pbc", "cart", "cell_folder", "synthetic_smear")
SYNTHETIC = "synthetic_smear"
# The version of the record format, as in `builders.CellBuilder.VERSION`.
RECORD_VERSION = "1.0.0"


@dataclasses.dataclass(frozen=True)
class SyntheticOptions:
    """What `synthetic_smear` draws; see `rcmnet_jax.synthetic`.

    Attributes:
        kind: "pbc" (eight classes) or "cart" (two).
        per_class: images of each class.
        seed: the same seed draws the same images.
        height, width: in pixels; native (363x360 or 384x384) when None.
    """

    kind: str = "pbc"
    per_class: int = 60
    seed: int = 0
    height: int | None = None
    width: int | None = None


@dataclasses.dataclass(frozen=True)
class Records:
    """The columns of a data set, record i at position i of each.

    Attributes:
        file: (N,) of str.
        label: class index, int32 (N,).
        sha256: of the file's bytes, (N,) of str.
        width, height: in pixels after the EXIF rotation, int32 (N,).
        patient, slide, lab: (N,) of str, "" where unknown.
    """

    file: np.ndarray
    label: np.ndarray
    sha256: np.ndarray
    width: np.ndarray
    height: np.ndarray
    patient: np.ndarray
    slide: np.ndarray
    lab: np.ndarray


@dataclasses.dataclass(frozen=True)
class CellDataset:
    """A built data set. Opening it reads the audit, not the images; it can be pickled.

    Attributes:
        name: "pbc", "cart", "cell_folder" or "synthetic_smear".
        class_names: sorted; `records.label` counts from here.
        records: the columns.
        data_sha256: a hash of all files, labels and contents.
        synthetic: the cells are drawn.
        directory: of the TFDS files.
        audit_path: the audit, JSON; a CSV and a text table lie beside it.
    """

    name: str
    class_names: tuple[str, ...]
    records: Records
    data_sha256: str
    synthetic: bool
    directory: Path
    audit_path: Path

    def __len__(self) -> int:
        return len(self.records.file)

    def __getstate__(self) -> dict[str, Any]:
        # Not the open readers: they are opened again where they are needed.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @functools.cached_property
    def _source(self) -> Any:
        from rcmnet_jax.data.builders import open_records

        source = open_records(self.directory)
        if len(source) != len(self):
            raise DataError(
                f"{self.directory} holds {len(source)} records, its audit {len(self)}: "
                "delete the folder, and it is built again"
            )
        return source

    def source(self) -> Any:
        """The TFDS data source: ``len``, ``[i]`` -> dict, images as encoded bytes; for Grain."""
        return self._source

    def read(self, index: int) -> bytes:
        """The bytes of one image file, as the user has it; safe to call from several threads.

        Raises:
            DataError: the built files are gone or damaged.
        """
        try:
            return self._source[int(index)]["image"]
        except RuntimeError as error:
            # What array_record raises for a missing or cut file.
            raise DataError(
                f"record {index} in {self.directory} cannot be read ({error}): "
                "delete the folder, and it is built again"
            ) from error

    @property
    def audit(self) -> Audit:
        """The audit, read from its file."""
        return read_audit(self.audit_path)

    def groups(self, level: str = "auto") -> tuple[np.ndarray | None, str]:
        """What a split must keep whole.

        Args:
            level: "patient", "slide", "lab", "image", or "auto": the patient where every record
                has one, else the slide, else the image.

        Returns:
            Ids, (N,) of str, or None for "image"; and the level.

        Raises:
            DataError: unknown level.
        """
        levels = ("auto", "patient", "slide", "lab", "image")
        if level not in levels:
            raise DataError(f"unknown level {level!r}: choose from {', '.join(levels)}")
        for candidate in levels[1:4]:
            ids = getattr(self.records, candidate)
            if level == candidate:
                return ids, candidate
            if level == "auto" and candidate != "lab" and np.all(ids != ""):
                return ids, candidate
        return None, "image"

    @property
    def split_columns(self) -> dict[str, Any]:
        """The arguments that `make_split`, `make_folds` and `read_split_csv` share."""
        return {
            "labels": self.records.label,
            "files": self.records.file,
            "sha256": self.records.sha256,
            "class_names": self.class_names,
        }


def prepare_dataset(
    name: str,
    source: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    layout: Layout = "auto",
    synthetic: SyntheticOptions | None = None,
    progress: bool = True,
    workers: int | None = None,
    min_classes: int = 2,
) -> CellDataset:
    """Builds a data set, or opens it when the same source was built before.

    A source counts as the same when its file names, labels, sizes and times are.

    Args:
        name: one of `DATASET_NAMES`.
        source: folder, zip or CSV manifest; none for `synthetic_smear`.
        data_dir: where to build; $RCMNET_DATA_DIR or ~/.cache/rcmnet_jax/data when None.
        layout: what `source` is, see `open_source`.
        synthetic: what to draw, for `synthetic_smear`.
        progress: show progress bars on standard error.
        workers: threads; one for each core when None.
        min_classes: the fewest classes that the source may have: 2 to train, 1 to score.

    Returns:
        The data set. Look at ``dataset.audit.table()`` after a first build.

    Raises:
        DataError: the source cannot be used, or the disk is full.
        ConfigError: unknown name, or options that contradict it.
    """
    if name not in DATASET_NAMES:
        raise ConfigError(f"unknown data set {name!r}: choose from {', '.join(DATASET_NAMES)}")
    home = resolve_data_dir(data_dir) / name
    if name == SYNTHETIC:
        if source is not None:
            raise ConfigError(f"{name} is drawn, so it takes no source: use cell_folder for images")
        return _prepare_synthetic(home, synthetic or SyntheticOptions(), progress, workers)
    if source is None:
        raise ConfigError(f"{name} needs a source: the path of a folder, a zip or a CSV manifest")
    if synthetic is not None:
        raise ConfigError(f"synthetic options belong to {SYNTHETIC}, not to {name}")
    opened = open_source(source, layout=layout, min_classes=min_classes)
    return _open_or_build(name, home / opened.fingerprint[:16], opened, progress, workers)


def _prepare_synthetic(
    home: Path, options: SyntheticOptions, progress: bool, workers: int | None
) -> CellDataset:
    from rcmnet_jax.synthetic import write_synthetic_folder
    from rcmnet_jax.synthetic.draw_folder import DRAWING_VERSION

    digest = hashlib.sha256(repr((options, DRAWING_VERSION)).encode()).hexdigest()[:16]
    images = home / f"images-{digest}"
    with exclusive_lock(home / f".images-{digest}.lock"):
        try:
            write_synthetic_folder(
                images, **dataclasses.asdict(options), progress=progress, workers=workers or 2
            )
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise ConfigError(f"{SYNTHETIC}: {error}") from error
    # The images are a function of the options: their times must not cause a new build.
    return _open_or_build(SYNTHETIC, home / digest, open_source(images), progress, workers)


def _open_or_build(
    name: str, config: Path, source: Source, progress: bool, workers: int | None
) -> CellDataset:
    from rcmnet_jax.data import builders

    builders.DATASETS[name].check_classes(source.class_names, source.path)
    directory = config / RECORD_VERSION
    # Finished folders are opened without the lock, so that a lab can share them read-only.
    audit = _finished_audit(directory)
    if audit is None:
        with exclusive_lock(config.parent / f".{config.name}.lock"):
            audit = _finished_audit(directory)
            if audit is None:
                audit = audit_source(source, progress=progress, workers=workers)
                builders.build(name, source, audit, directory, progress=progress)
    return CellDataset(
        name=name,
        class_names=audit.class_names,
        records=_columns(audit.kept, audit.class_names),
        data_sha256=audit.data_sha256,
        synthetic=name == SYNTHETIC,
        directory=directory,
        audit_path=directory / builders.AUDIT_JSON,
    )


def _finished_audit(directory: Path) -> Audit | None:
    """The audit of a finished build; None when there is none, or it is damaged."""
    from rcmnet_jax.data import builders

    if not builders.is_built(directory):
        return None
    try:
        return read_audit(directory / builders.AUDIT_JSON)
    except DataError:
        return None


def _columns(rows: Sequence[AuditRow], class_names: tuple[str, ...]) -> Records:
    number = {name: i for i, name in enumerate(class_names)}
    text = {
        name: np.asarray([getattr(row, name) for row in rows], dtype=str)
        for name in ("file", "sha256", "patient", "slide", "lab")
    }
    return Records(
        label=np.asarray([number[row.label] for row in rows], dtype=np.int32),
        width=np.asarray([row.width for row in rows], dtype=np.int32),
        height=np.asarray([row.height for row in rows], dtype=np.int32),
        **text,
    )
