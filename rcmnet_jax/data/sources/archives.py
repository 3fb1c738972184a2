"""Images in a zip file, read without extracting it."""

import dataclasses
import lzma
import re
import zipfile
import zlib
from pathlib import Path

from rcmnet_jax.data.sources.folders import Entry, sort_into_classes, without_system_files
from rcmnet_jax.data.sources.source_file import MAX_FILE_BYTES, IgnoredFile, SourceFile, is_text
from rcmnet_jax.errors import BadImageError, DataError

# A zip entry that inflates more than this many times is a zip bomb; images inflate 1-20 times.
MAX_COMPRESSION_RATIO = 200
# What a damaged or unusual entry raises when it is read.
_READ_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
)


@dataclasses.dataclass(frozen=True)
class ZipSource:
    """Images read straight out of a zip file; `read` may be called from several threads."""

    path: Path
    layout: str
    archive: zipfile.ZipFile
    prefix: str
    files: tuple[SourceFile, ...]
    class_names: tuple[str, ...]
    ignored: tuple[IgnoredFile, ...]
    notes: tuple[str, ...]
    fingerprint: str

    def read(self, file: SourceFile) -> bytes:
        """The bytes of one entry, never more than the size checked when the zip was opened.

        Raises:
            BadImageError: the entry is damaged or compressed in a way Python cannot read.
        """
        # ZipFile shares one handle under a lock of its own, so threads may read at once.
        try:
            return self.archive.read(self.prefix + file.file)
        except _READ_ERRORS as error:
            raise BadImageError(f"{file.file} in {self.path} cannot be read ({error})") from error


def open_zip(path: Path) -> ZipSource:
    """Lists the images of a zip.

    Raises:
        DataError: it is damaged, has no classes, or an entry that may do harm.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{path} is not a readable zip ({error}): download it again") from error
    entries: list[Entry] = []
    listed: list[str] = []
    for info in archive.infolist():
        _check_zip_entry(path, info)
        if info.is_dir():
            listed.append(info.filename.rstrip("/"))
        else:
            # The checksum is in the directory of the zip and stands for the content.
            entries.append((info.filename, info.file_size, f"{info.CRC:08x}"))
    entries, ignored = without_system_files(entries)
    folders = {name for name, _, _ in without_system_files((f, 0, "") for f in listed)[0]}
    # Many zips have no entries for folders, only files in them.
    for name, _, _ in entries:
        parts = name.split("/")[:-1]
        folders.update("/".join(parts[: depth + 1]) for depth in range(len(parts)))
    if len({name for name, _, _ in entries}) != len(entries):
        raise DataError(f"{path} holds two entries of one name: extract it and give the folder")
    listing = sort_into_classes(path, entries, sorted(folders))
    return ZipSource(
        path=path,
        layout="zip",
        archive=archive,
        prefix=f"{listing.prefix}/" if listing.prefix else "",
        files=listing.files,
        class_names=listing.class_names,
        ignored=tuple(sorted([*listing.ignored, *ignored])),
        notes=listing.notes,
        fingerprint=listing.fingerprint,
    )


def _check_zip_entry(path: Path, info: zipfile.ZipInfo) -> None:
    """Refuses entries that could leave a folder, hide something or exhaust the memory."""
    name = info.filename
    problem = None
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or "\\" in name:
        problem = "has an absolute or a Windows path"
    elif ".." in name.split("/"):
        problem = "has .. in its path"
    elif (info.external_attr >> 16) & 0o170000 == 0o120000:
        problem = "is a symbolic link"
    elif info.flag_bits & 0x1:
        problem = "is encrypted"
    elif not is_text(name):
        problem = "has control characters in its name"
    elif info.file_size > MAX_FILE_BYTES:
        problem = f"is larger than {MAX_FILE_BYTES >> 20} MiB"
    elif info.file_size > 2**20 and info.file_size > MAX_COMPRESSION_RATIO * info.compress_size:
        problem = f"inflates more than {MAX_COMPRESSION_RATIO} times (a zip bomb?)"
    if problem:
        raise DataError(
            f"{path}: entry {name!r} {problem}: make the zip again from the image folder, "
            "or extract it yourself and give the folder"
        )
