"""Class folders: from paths below a root to labelled files, the same for disk and zip."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from rcmnet_jax.data.sources.source_file import IgnoredFile, SourceFile, is_text
from rcmnet_jax.errors import DataError

SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
MACOS_METADATA = "__MACOSX"

# Paths below a root, with size and a stamp that changes when the content does.
Entry = tuple[str, int, str]


def walk(root: Path) -> tuple[list[Entry], list[str], list[IgnoredFile]]:
    """All files below a folder, all folders, and what is neither a file nor a folder."""
    entries: list[Entry] = []
    folders: list[str] = []
    ignored: list[IgnoredFile] = []
    # Links to folders are followed, as people do link their class folders; never in a circle.
    seen: set[str] = set()
    stack = [(os.fspath(root), "")]
    while stack:
        directory, relative = stack.pop()
        if os.path.realpath(directory) in seen:
            ignored.append(IgnoredFile(relative, "a link to a folder listed already"))
            continue
        seen.add(os.path.realpath(directory))
        try:
            children = sorted(os.scandir(directory), key=lambda child: child.name)
        except OSError as error:
            raise DataError(
                f"{directory} cannot be listed ({error.strerror}): check its permissions"
            ) from error
        for child in children:
            name = f"{relative}/{child.name}" if relative else child.name
            if not is_text(name):
                ignored.append(
                    IgnoredFile(ascii(name), "the name has control characters or is not UTF-8")
                )
            elif child.is_dir():
                folders.append(name)
                stack.append((child.path, name))
            elif child.is_file():
                status = child.stat()
                entries.append((name, status.st_size, str(status.st_mtime_ns)))
            else:
                ignored.append(IgnoredFile(name, "not a regular file (a broken link or a device)"))
    return entries, folders, ignored


@dataclasses.dataclass(frozen=True)
class ClassListing:
    prefix: str
    files: tuple[SourceFile, ...]
    class_names: tuple[str, ...]
    ignored: list[IgnoredFile]
    fingerprint: str


def sort_into_classes(path: Path, entries: list[Entry], folders: Iterable[str]) -> ClassListing:
    """Takes the folders below the innermost wrapper for classes, and checks that they are."""
    folders = set(folders)
    prefix = _wrapper(folders)
    start = len(prefix) + 1 if prefix else 0
    classes = {
        folder[start:]
        for folder in folders
        if folder.startswith(prefix)
        and "/" not in folder[start:]
        and len(folder) > start
        and not _is_metadata(folder[start:])
    }
    _check_not_split(path, prefix, classes, folders)
    files: list[SourceFile] = []
    ignored: list[IgnoredFile] = []
    metadata: dict[str, int] = {}
    stamps: list[Entry] = []
    for name, size, stamp in entries:
        relative = name[start:]
        first = relative.split("/")[0]
        if prefix and not name.startswith(prefix + "/"):
            relative, first = name, name.split("/")[0]
            if _is_metadata(first) and "/" in name:
                metadata[first] = metadata.get(first, 0) + 1
            else:
                ignored.append(IgnoredFile(name, "beside the class folders, not in one"))
        elif "/" not in relative:
            ignored.append(IgnoredFile(name, "beside the class folders, not in one"))
        elif first in classes:
            files.append(SourceFile(relative, first))
            stamps.append((relative, size, stamp))
        else:
            metadata[first] = metadata.get(first, 0) + 1
    for folder, count in metadata.items():
        ignored.append(IgnoredFile(f"{folder}/", f"system folder with {count} files, not a class"))
    if not files:
        zips = sorted(name for name, _, _ in entries if name.lower().endswith(".zip"))
        raise DataError(
            f"{path} has no class folders with images: "
            + (f"give {zips[0]}, the zip in it, extracted if need be; " if zips else "")
            + "it must hold one folder of images for each class; else give a CSV manifest with "
            "the columns file and label"
        )
    for empty in sorted(classes - {file.label for file in files}):
        raise DataError(
            f"the class folder {empty!r} in {path} is empty: add its images or remove the folder"
        )
    class_names = tuple(sorted(classes))
    return ClassListing(prefix, tuple(sorted(files)), class_names, ignored, fingerprint_of(stamps))


def _is_metadata(name: str) -> bool:
    return name == MACOS_METADATA or name.startswith(".")


def _wrapper(folders: set[str]) -> str:
    """The path of the folder that holds the class folders: "" or e.g. "PBC_dataset_normal_DIB"."""
    children: dict[str, list[str]] = {}
    for folder in folders:
        parent, _, name = folder.rpartition("/")
        if not _is_metadata(name):
            children.setdefault(parent, []).append(folder)
    prefix = ""
    # A single folder is a wrapper only if it holds folders in turn; else it is the only class.
    while len(children.get(prefix, ())) == 1 and children.get(children[prefix][0]):
        prefix = children[prefix][0]
    return prefix


def _check_not_split(path: Path, prefix: str, classes: set[str], folders: set[str]) -> None:
    start = f"{prefix}/" if prefix else ""
    if not classes or not {name.lower() for name in classes} <= SPLIT_FOLDERS:
        return
    if any(folder.startswith(f"{start}{name}/") for folder in folders for name in classes):
        raise DataError(
            f"{path} is divided into {', '.join(sorted(classes))}: give one of these folders, "
            "or a CSV manifest of all, and let the split be made here"
        )


def fingerprint_of(stamps: Iterable[Entry]) -> str:
    digest = hashlib.sha256()
    for entry in sorted(stamps):
        digest.update(repr(entry).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
