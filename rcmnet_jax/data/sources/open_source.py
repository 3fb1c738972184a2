"""Where images come from: class folders, a zip of class folders, or a CSV manifest.

Every file that is found is either in ``files`` or in ``ignored`` with a reason; nothing is
skipped silently. ``SourceFile.file`` is relative to the folder that holds the class folders, so
a folder, the same folder inside a wrapper, and its zip give the same names, and therefore the
same splits.
"""

import dataclasses
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from rcmnet_jax.data.sources.archives import open_zip
from rcmnet_jax.data.sources.folders import (
    fingerprint_of,
    sort_into_classes,
    walk,
)
from rcmnet_jax.data.sources.manifests import read_manifest
from rcmnet_jax.data.sources.source_file import MAX_FILE_BYTES, IgnoredFile, SourceFile
from rcmnet_jax.errors import BadImageError, DataError

Layout = Literal["auto", "folder", "zip", "manifest"]
LAYOUTS = ("auto", "folder", "zip", "manifest")


class Source(Protocol):
    """What the audit and the builders need to know of a place with images."""

    @property
    def path(self) -> Path: ...
    @property
    def layout(self) -> str: ...
    @property
    def files(self) -> tuple[SourceFile, ...]: ...
    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def ignored(self) -> tuple[IgnoredFile, ...]: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> str: ...
    def read(self, file: SourceFile) -> bytes: ...


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Images that lie in a folder as files, found as class folders or named by a manifest."""

    path: Path
    layout: str
    root: Path
    files: tuple[SourceFile, ...]
    class_names: tuple[str, ...]
    ignored: tuple[IgnoredFile, ...]
    notes: tuple[str, ...]
    fingerprint: str

    def read(self, file: SourceFile) -> bytes:
        """The bytes of one file.

        Raises:
            BadImageError: the file is gone, unreadable or far too large for an image.
        """
        path = self.root / file.file
        try:
            with path.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise BadImageError(f"{path} cannot be read ({error.strerror})") from error
        if len(data) > MAX_FILE_BYTES:
            raise BadImageError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return data


def open_source(
    path: str | os.PathLike[str], *, layout: Layout = "auto", min_classes: int = 2
) -> Source:
    """Lists the images at a path, without decoding any.

    Args:
        path: a folder of class folders (also inside wrapper folders, as
            ``PBC_dataset_normal_DIB/basophil/...``), a zip of the same, or a CSV manifest with
            the columns file and label and optionally patient, slide and lab.
        layout: "folder", "zip", "manifest", or "auto" to tell by the path.
        min_classes: the fewest classes that the images may have: 2 to train, 1 to score.

    Returns:
        A source with sorted ``files``, ``class_names``, ``ignored``, ``notes``, a
        ``fingerprint`` of names, labels, sizes and times, and ``read(file) -> bytes``.

    Raises:
        DataError: the path is missing, has no images, an empty class, too few classes, or
            names files outside the folder.
    """
    path = Path(path).expanduser()
    if layout not in LAYOUTS:
        raise DataError(f"unknown layout {layout!r}: choose from {', '.join(LAYOUTS)}")
    try:
        exists = path.exists()
    except OSError as error:
        raise DataError(
            f"{path} cannot be opened ({error.strerror}): check the path and its permissions"
        ) from error
    if not exists:
        raise DataError(
            f"{path} does not exist: give a folder of class folders, a zip of them, "
            "or a CSV manifest"
        )
    if layout == "auto":
        layout = _guess_layout(path)
    openers: dict[str, Callable[[Path], Source]] = {
        "folder": _open_folder,
        "zip": open_zip,
        "manifest": _open_manifest,
    }
    source = openers[layout](path)
    if len(source.class_names) < min_classes:
        raise DataError(
            f"{path} has one class only ({source.class_names[0]!r}): a classifier needs two or "
            "more; give the folder that holds the class folders"
        )
    return source


def _guess_layout(path: Path) -> Layout:
    if path.is_dir():
        return "folder"
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return "manifest"
    if zipfile.is_zipfile(path):
        return "zip"
    raise DataError(
        f"{path} is neither a folder, a zip nor a CSV manifest: give the folder that holds the "
        "class folders"
    )


def _open_folder(path: Path) -> FileSource:
    if not path.is_dir():
        raise DataError(f"{path} is not a folder: leave out layout, or give a folder")
    root = path.resolve()
    entries, folders, ignored = walk(root)
    listing = sort_into_classes(path, entries, folders)
    return FileSource(
        path=path,
        layout="folder",
        root=root / listing.prefix,
        files=listing.files,
        class_names=listing.class_names,
        ignored=tuple(sorted([*listing.ignored, *ignored])),
        notes=listing.notes,
        fingerprint=listing.fingerprint,
    )


def _open_manifest(path: Path) -> FileSource:
    if not path.is_file():
        raise DataError(f"{path} is not a file: give the CSV manifest itself")
    manifest = read_manifest(path)
    class_names = tuple(sorted({file.label for file in manifest.files}))
    stamps = []
    for file in manifest.files:
        status = (manifest.root / file.file).stat()
        stamps.append((repr(file), status.st_size, str(status.st_mtime_ns)))
    return FileSource(
        path=path,
        layout="manifest",
        root=manifest.root,
        files=manifest.files,
        class_names=class_names,
        ignored=(),
        notes=manifest.notes,
        fingerprint=fingerprint_of(stamps),
    )
