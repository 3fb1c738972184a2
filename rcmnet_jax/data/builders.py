"""The data sets as TFDS builders, registered with TFDS when `rcmnet_jax.data` is imported.

```python
import rcmnet_jax.data
import tensorflow_datasets as tfds

train = tfds.data_source("pbc", split="train", builder_kwargs={"source": "PBC_dataset_normal_DIB"})
builder = tfds.builder("cell_folder", source="cells.csv", seed=1)
builder.download_and_prepare()
validation = builder.as_data_source("validation")
same = tfds.builder_from_directory(builder.data_dir)  # needs neither the source nor this package
```

The files are array_record, so nothing needs TensorFlow.
"""

import abc
import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from rcmnet_jax.data.audit import Audit, audit_source
from rcmnet_jax.data.audit.findings import PBC_CLASSES
from rcmnet_jax.data.preprocess import decode_image
from rcmnet_jax.data.records import AuditRow, Records
from rcmnet_jax.data.sources import Source, open_source
from rcmnet_jax.data.sources.source_file import SourceFile
from rcmnet_jax.data.threads import ordered_map, progress_bar
from rcmnet_jax.errors import DataError

RECORD_VERSION = "1.0.0"
# "all" is TFDS's own name.
WHOLE = "cells"
PARTS = {"train": "train", "val": "validation", "test": "test"}
# Without TensorFlow, TFDS 4.9.10 fails on splits beyond 1 GB, in the buffer of its shuffler.
MAX_SPLIT_BYTES = 512 * 2**20
_COLUMNS = ("label", "file", "sha256", "width", "height", "patient", "slide", "lab")


class CellBuilder(tfds.core.GeneratorBasedBuilder):
    """Builder of a folder of class folders, a zip of one, or a CSV manifest.

    The splits are ``train``, ``validation`` and ``test``: those that the source
    comes with, else those of `make_split`, sorted by file, without copies. An element is a dict of:

    * ``image``: uint8 (H, W, 3) RGB, upright, at the size of the file.
    * ``label``: int, the class; names in ``builder.info.features["label"].names``.
    * ``file``: path relative to the source; ``sha256``: of the file's bytes.
    * ``width``, ``height``: in pixels.
    * ``patient``, ``slide``, ``lab``: as the manifest has them, else "".

    With ``decoders={"image": tfds.decode.SkipDecoding()}`` the image is the bytes of a JPEG or PNG:
    the user's file where that is an upright 8-bit RGB image, else a PNG of the decoded pixels.
    """

    VERSION = tfds.core.Version(RECORD_VERSION)
    # No checksum files lie beside this module: TFDS need not look for them.
    code_path = None
    REQUIRED_CLASSES: tuple[str, ...] | None = None
    CITATION = ""

    @property
    @abc.abstractmethod
    def DESCRIPTION(self) -> str:
        """What the images are; abstract, so that TFDS does not list this class."""

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | Source,
        protocol: str = "strict",
        seed: int = 0,
        test_fraction: float = 0.2,
        val_fraction: float = 0.1,
        group_by: str = "auto",
        in_parts: bool = True,
        audit: Audit | None = None,
        progress: bool = False,
        config: str | None = None,
        file_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        """A builder for one source.

        Args:
            source: a path, or what `open_source` returns.
            protocol, seed, test_fraction, val_fraction: of the split, see `make_split`.
            group_by: what the split keeps whole, see `choose_groups`.
            in_parts: False writes all that the audit keeps, copies included, to one split
                ``cells`` (several beyond `MAX_SPLIT_BYTES`) with every file's own bytes.
            audit: of the source, when there is one already.
            progress: show progress bars on standard error.
            config: folder between name and version; by default it follows from the images and
                the split, so that each combination has its own.
            file_format: array_record by default, which needs no TensorFlow.
            **kwargs: ``data_dir`` and ``version``, as for every TFDS builder.

        Raises:
            DataError: the source cannot be used, or does not have the classes of this data set.
        """
        self._source: Source = (
            open_source(source) if isinstance(source, str | os.PathLike) else source
        )
        check_classes(self.name, self._source.class_names, self._source.path)
        self._audit, self._progress = audit, progress
        self._split: dict[str, Any] = {
            "protocol": protocol,
            "seed": seed,
            "test_fraction": test_fraction,
            "val_fraction": val_fraction,
        }
        self._group_by, self._in_parts = group_by, in_parts
        if config is None:
            identity = repr((self._source.fingerprint, self._split, group_by, in_parts))
            config = hashlib.sha256(identity.encode()).hexdigest()[:16]
        super().__init__(
            config=tfds.core.BuilderConfig(name=config),
            file_format=file_format or "array_record",
            **kwargs,
        )

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            citation=self.CITATION or None,
            # Records stay in the order of the audit.
            disable_shuffling=True,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=list(self._source.class_names)),
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
        audit = self._audit or audit_source(self._source, progress=self._progress)
        for label in audit.class_names:
            if not any(row.label == label for row in audit.kept):
                raise DataError(
                    f"class {label!r} in {audit.source} has no usable image (see `rcmnet data "
                    "audit`): add images or remove the class"
                )
        rows = self._divide(audit) if self._in_parts else _by_size(audit.kept)
        return {name: self._generate_examples(chosen) for name, chosen in rows.items()}

    def _divide(self, audit: Audit) -> dict[str, list[AuditRow]]:
        """The kept rows of each part of the split, by its name in TFDS."""
        records = Records.from_rows(audit.kept, audit.class_names)
        split = records.split(audit.class_names, group_by=self._group_by, **self._split)
        divided = {}
        for part, name in PARTS.items():
            rows = [audit.kept[i] for i in split.indices(part)]
            if sum(row.bytes for row in rows) > 1.9 * MAX_SPLIT_BYTES:
                raise DataError(
                    f"the {name} part is beyond 1 GB, the most that TFDS writes without "
                    "TensorFlow: use rcmnet_jax.data.prepare_dataset, which has no such limit"
                )
            if rows:
                divided[name] = rows
        return divided

    def _generate_examples(self, rows: Sequence[AuditRow]) -> Iterator[tuple[int, dict[str, Any]]]:
        files = {file.file: file for file in self._source.files}
        images = ordered_map(lambda row: self._read(files, row), rows, workers=2)
        with progress_bar(len(rows), "build", enabled=self._progress) as bar:
            for key, (row, image) in enumerate(zip(rows, images, strict=True)):
                yield key, {"image": image, **{name: getattr(row, name) for name in _COLUMNS}}
                bar.update()

    def _read(self, files: dict[str, SourceFile], row: AuditRow) -> bytes:
        """The bytes to store of one image."""
        data = self._source.read(files[row.file])
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise DataError(f"{row.file} changed while the data set was built: build it again")
        plain = (row.mode, row.orientation, row.transparent) == ("RGB", 1, False)
        if not self._in_parts or (plain and row.format in ("JPEG", "PNG")):
            return data
        # TFDS reads no TIFF, EXIF or 16-bit grey; PNG keeps every pixel as this package decodes it.
        file = io.BytesIO()
        Image.fromarray(decode_image(data)).save(file, "PNG")
        return file.getvalue()

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
    builder.name: builder for builder in (Pbc, Cart, CellFolder, SyntheticSmear)
}


def check_classes(name: str, class_names: Sequence[str], path: Path) -> None:
    """Checks that images have the classes that a data set must have.

    Raises:
        DataError: the classes differ.
    """
    required = DATASETS[name].REQUIRED_CLASSES
    if required is None or set(class_names) == set(required):
        return
    missing, extra = (
        sorted(set(required) - set(class_names)),
        sorted(set(class_names) - set(required)),
    )
    parts = [f"lacks {', '.join(missing)}"] if missing else []
    parts += [f"also has {', '.join(extra)}"] if extra else []
    raise DataError(
        f"{path} {' and '.join(parts)}, so it is not the eight-class PBC set: "
        "use the data set 'cell_folder' for other classes"
    )


def _by_size(rows: Sequence[AuditRow]) -> dict[str, list[AuditRow]]:
    """Consecutive rows, in splits of at most `MAX_SPLIT_BYTES`."""
    groups: list[list[AuditRow]] = [[]]
    size = 0
    for row in rows:
        if groups[-1] and size + row.bytes > MAX_SPLIT_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += row.bytes
    if len(groups) == 1:
        return {WHOLE: groups[0]}
    return {f"{WHOLE}_{i:05d}": group for i, group in enumerate(groups)}
