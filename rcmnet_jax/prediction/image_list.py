"""What to predict: folders, image files, zip files, and lists of files."""

import lzma
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from rcmnet_jax.data.sources.folders import walk, without_system_files
from rcmnet_jax.data.sources.source_file import may_be_image, on_disk
from rcmnet_jax.data.tables import read_lines
from rcmnet_jax.errors import BadImageError, DataError

# A single-cell image is some 15 kB. Anything this large is not one, and is not read into memory.
LARGEST_FILE = 64 * 2**20
# What a damaged, encrypted or unusual entry of a zip raises.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, OSError, EOFError, RuntimeError)
LISTS = (".csv", ".tsv", ".txt")


Readers = dict[str, Callable[[], bytes]]


@dataclass(frozen=True)
class ImageList:
    """Images by name.

    Attributes:
      readers: name -> a function that gives the bytes, or raises `BadImageError`.
      ignored: how many files were found that are no images.
    """

    readers: Readers
    ignored: int

    def read(self, name: str) -> bytes:
        """The bytes of an image.

        Raises:
          BadImageError: it cannot be read.
        """
        return self.readers[name]()


def list_images(paths: Iterable[str | Path]) -> ImageList:
    """All images at some paths, sorted by name.

    Args:
      paths: each a folder, an image, a zip of images, or a CSV or text file with one image a line
        (a column ``file``, or the first one), relative to the list's own folder. Of one folder, zip
        or list, names are relative to it; of several paths they begin with the path.

    Raises:
      DataError: a path that does not exist or holds no images.
    """
    places = [Path(path).expanduser() for path in paths]
    if not places:
        raise DataError("there is nothing to predict: name a folder of images with --images")
    readers: Readers = {}
    ignored = 0
    for path in places:
        found, passed_over = _list_one(path)
        ignored += passed_over
        for name, reader in found.items():
            if len(places) > 1:
                name = str(path) if path.is_file() and len(found) == 1 else f"{path}/{name}"
            readers.setdefault(name, reader)
    return ImageList(dict(sorted(readers.items())), ignored)


def _list_one(path: Path) -> tuple[Readers, int]:
    if path.is_dir():
        entries, _, odd = walk(path)
        names = [name for name, _, _ in entries]
        readers: Readers = {name: partial(read_file, path / name) for name in names}
        ignored = len(odd)
    elif not path.exists():
        raise DataError(f"{path} does not exist: name a folder of images with --images")
    elif path.suffix.lower() in LISTS:
        return {name: partial(read_file, path.parent / name) for name in _listed(path)}, 0
    elif zipfile.is_zipfile(path):
        readers, ignored = _zip_readers(path)
    else:
        return {path.name: partial(read_file, path)}, 0
    images = {name: reader for name, reader in readers.items() if may_be_image(name)}
    if not images:
        raise DataError(f"there are no images in {path}: name a folder that has some")
    return images, ignored + len(readers) - len(images)


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file.

    Raises:
      BadImageError: it cannot be read, or is far too large for an image of a cell.
    """
    try:
        with Path(path).open("rb") as stream:
            return _bounded(stream)
    except OSError as error:
        raise BadImageError(f"cannot be read ({error.strerror or error})") from error


def _bounded(stream: IO[bytes]) -> bytes:
    data = stream.read(LARGEST_FILE + 1)
    if len(data) > LARGEST_FILE:
        raise BadImageError(f"larger than {LARGEST_FILE // 2**20} MiB: no single cell")
    return data


def _zip_readers(path: Path) -> tuple[Readers, int]:
    """The user's own entries, read into memory and never extracted, and how many others."""
    archive = zipfile.ZipFile(path)
    files = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    own = {name for name, _, _ in without_system_files((name, 0, "") for name in files)[0]}

    def read(info: zipfile.ZipInfo) -> bytes:
        try:
            with archive.open(info) as stream:
                return _bounded(stream)
        except ZIP_ERRORS as error:
            raise BadImageError(f"cannot be read from the zip ({error})") from error

    readers: Readers = {name: partial(read, info) for name, info in files.items() if name in own}
    return readers, len(files) - len(own)


def _listed(path: Path) -> list[str]:
    """The file names of a list, in their order."""
    rows = [fields for _, fields in read_lines(path, "the list") if fields]
    header = [cell.lower() for cell in rows[0]] if rows else []
    column = header.index("file") if "file" in header else 0
    names = [row[column].replace("\\", "/") for row in rows if len(row) > column]
    names = [name for name in names[1 if "file" in header else 0 :] if name]
    names = [on_disk(path.parent, name) for name in names]
    missing = [name for name in names if not (path.parent / name).is_file()]
    if not names:
        raise DataError(
            f"{path} names no images: write one file name a line, under the header file"
        )
    if missing:
        raise DataError(
            f"{path} names {missing[0]}, which does not exist in {path.parent}"
            f" ({len(missing)} of {len(names)} do not): give names relative to the list"
        )
    return names
