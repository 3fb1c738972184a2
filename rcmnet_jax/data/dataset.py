"""A prepared data set: audited, written as TFDS array_record files, ready to split and read."""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.data import record_store
from rcmnet_jax.data.audit import Audit, audit_source, read_audit
from rcmnet_jax.data.builders import DATASETS, RECORD_VERSION, check_classes
from rcmnet_jax.data.records import Records
from rcmnet_jax.data.sources import Layout, open_source
from rcmnet_jax.data.splits import Split
from rcmnet_jax.data.storage import exclusive_lock, resolve_data_dir
from rcmnet_jax.errors import ConfigError, DataError

DATASET_NAMES = tuple(DATASETS)
# The name under which drawn cells are opened; results on them are marked as synthetic.
SYNTHETIC = "synthetic_smear"


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
        # Open readers are left behind and opened again where they are needed.
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @functools.cached_property
    def _source(self) -> Any:
        source = record_store.open_records(self.directory)
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
        """What a split must keep whole, see `rcmnet_jax.data.splits.choose_groups`."""
        return self.records.groups(level)

    def split(self, *, group_by: str = "auto", **options: Any) -> Split:
        """The split that the images come with, else one made here, see `Records.split`."""
        return self.records.split(self.class_names, group_by=group_by, **options)

    @property
    def split_columns(self) -> dict[str, Any]:
        """The arguments that `make_split`, `make_folds` and `read_split_csv` share."""
        return self.records.split_columns(self.class_names)


def prepare_dataset(
    name: str,
    source: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    layout: Layout = "auto",
    progress: bool = True,
    workers: int | None = None,
    min_classes: int = 2,
) -> CellDataset:
    """Builds a data set, or opens it when the same source was built before.

    A source counts as the same when its file names, labels, sizes and times are.

    Args:
        name: one of `DATASET_NAMES`. "pbc" requires the eight PBC classes, "synthetic_smear" marks
            the cells as drawn (see `rcmnet_jax.synthetic.write_synthetic_folder`).
        source: folder, zip or CSV manifest.
        data_dir: where to build; $RCMNET_DATA_DIR or ~/.cache/rcmnet_jax/data when None.
        layout: what `source` is, see `open_source`.
        progress: show progress bars on standard error.
        workers: threads; one for each core when None.
        min_classes: the fewest classes that the source may have: 2 to train, 1 to score.

    Returns:
        The data set. Look at ``dataset.audit.table()`` after a first build.

    Raises:
        DataError: the source cannot be used, or the disk is full.
        ConfigError: unknown name, or no source.
    """
    if name not in DATASETS:
        raise ConfigError(f"unknown data set {name!r}: choose from {', '.join(DATASETS)}")
    if not os.fspath(source):
        raise ConfigError(f"{name} needs a source: the path of a folder, a zip or a CSV manifest")
    opened = open_source(source, layout=layout, min_classes=min_classes)
    check_classes(name, opened.class_names, opened.path)
    config = resolve_data_dir(data_dir) / name / opened.fingerprint[:16]
    directory = config / RECORD_VERSION
    # Finished folders are opened without the lock, so that a lab can share them read-only.
    audit = record_store.read_finished(directory)
    if audit is None:
        with exclusive_lock(config.parent / f".{config.name}.lock"):
            audit = record_store.read_finished(directory)
            if audit is None:
                audit = audit_source(opened, progress=progress, workers=workers)
                record_store.build(name, opened, audit, directory, progress=progress)
    return CellDataset(
        name=name,
        class_names=audit.class_names,
        records=Records.from_rows(audit.kept, audit.class_names),
        data_sha256=audit.data_sha256,
        synthetic=name == SYNTHETIC,
        directory=directory,
        audit_path=directory / record_store.AUDIT_JSON,
    )
