"""Class folders: from paths below a root to labelled files, the same for disk and zip."""

import dataclasses
import hashlib
import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from rcmnet_jax.data.sources.folder_layouts import describe, levels_above_classes, part_of
from rcmnet_jax.data.sources.source_file import (
    IgnoredFile,
    SourceFile,
    is_system_name,
    is_text,
)
from rcmnet_jax.errors import DataError

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")
# Paths below a root, with size and a stamp that changes when the content does.
Entry = tuple[str, int, str]


def walk(root: Path) -> tuple[list[Entry], list[str], list[IgnoredFile]]:
    """Lists all files and folders below a folder; what is not the user's is set aside.

    Links to folders are followed, as people do link their class folders, but never in a circle.

    Returns:
        Files, folders, and what is ignored: system folders (with the number of files in them),
        links that lead nowhere, devices, names that no CSV can hold.

    Raises:
        DataError: a folder cannot be listed.
    """
    entries: list[Entry] = []
    folders: list[str] = []
    ignored: list[IgnoredFile] = []
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
            found = _look(child, name)
            if isinstance(found, IgnoredFile):
                ignored.append(found)
            elif found is None:
                folders.append(name)
                stack.append((child.path, name))
            else:
                entries.append((name, *found))
    return entries, folders, ignored


def _look(child: os.DirEntry, name: str) -> tuple[int, str] | IgnoredFile | None:
    """Size and stamp of a file, None for a folder, or why a name is passed over."""
    if not is_text(name):
        return IgnoredFile(ascii(name), "the name has control characters or is not UTF-8")
    try:
        if is_system_name(child.name):
            if not child.is_dir():
                return IgnoredFile(name, "a system or hidden file")
            count = sum(len(files) for _, _, files in os.walk(child.path))
            return IgnoredFile(f"{name}/", _system_folder(count))
        if child.is_dir():
            return None
        if child.is_file():
            status = child.stat()
            return status.st_size, str(status.st_mtime_ns)
    except OSError as error:
        return IgnoredFile(name, f"cannot be looked up ({error.strerror})")
    return IgnoredFile(name, "not a regular file (a broken link or a device)")


def _system_folder(count: int) -> str:
    return f"a system or hidden folder with {count} file{'' if count == 1 else 's'}"


def without_system_files(entries: Iterable[Entry]) -> tuple[list[Entry], list[IgnoredFile]]:
    """Sets system files aside by the rule of `walk`, for a listing that was not made by it."""
    kept: list[Entry] = []
    ignored: list[IgnoredFile] = []
    counts: dict[str, int] = {}
    for entry in entries:
        parts = entry[0].split("/")
        hidden = next((i for i, part in enumerate(parts) if is_system_name(part)), None)
        if hidden is None:
            kept.append(entry)
        elif hidden == len(parts) - 1:
            ignored.append(IgnoredFile(entry[0], "a system or hidden file"))
        else:
            folder = "/".join(parts[: hidden + 1])
            counts[folder] = counts.get(folder, 0) + 1
    ignored += [IgnoredFile(f"{name}/", _system_folder(count)) for name, count in counts.items()]
    return kept, ignored


@dataclasses.dataclass(frozen=True)
class ClassListing:
    """Labelled files, and the folder below the source that their paths start from."""

    prefix: str
    files: tuple[SourceFile, ...]
    class_names: tuple[str, ...]
    ignored: list[IgnoredFile]
    notes: tuple[str, ...]
    fingerprint: str


def sort_into_classes(path: Path, entries: list[Entry], folders: Iterable[str]) -> ClassListing:
    """Finds the level of folders that is the classes, and labels the files by it.

    Args:
        path: of the source, for messages.
        entries: all files.
        folders: all folders.

    Raises:
        DataError: there are no two classes, or one is empty.
    """
    folders = set(folders)
    prefix = _wrapper(folders)
    start = len(prefix) + 1 if prefix else 0
    inside = {_label(f[start:]) for f in folders if len(f) > start and f.startswith(prefix)}
    images = (name[start:] for name, _, _ in entries if name.lower().endswith(_IMAGE_SUFFIXES))
    holders = {name.rpartition("/")[0] for name in images}
    levels = levels_above_classes(path, inside, holders - {""})
    depth = len(levels)
    classes = {f.split("/")[depth] for f in inside if f.count("/") == depth}
    files: list[SourceFile] = []
    ignored: list[IgnoredFile] = []
    stamps: list[Entry] = []
    for name, size, stamp in entries:
        parts = name[start:].split("/")
        if (prefix and not name.startswith(f"{prefix}/")) or len(parts) < depth + 2:
            ignored.append(IgnoredFile(name, "beside the class folders, not in one"))
            continue
        relative = name[start:]
        known = {
            level: part_of(part) if level == "part" else _label(part)
            for level, part in zip(levels, parts, strict=False)
        }
        files.append(SourceFile(relative, _label(parts[depth]), **known))
        stamps.append((relative, size, stamp))
    if not files:
        raise DataError(_no_images(path, entries))
    for empty in sorted(classes - {file.label for file in files}):
        raise DataError(
            f"the class folder {empty!r} in {path} is empty: add its images or remove the folder"
        )
    class_names = tuple(sorted(classes))
    names = [{f.split("/")[i] for f in inside if f.count("/") >= i} for i in range(depth)]
    notes = (describe(levels, list(names), class_names),) if levels else ()
    return ClassListing(
        prefix, tuple(sorted(files)), class_names, ignored, notes, fingerprint_of(stamps)
    )


def _label(folder: str) -> str:
    """The name of a class or group in Unicode's composed form, which macOS does not store."""
    return unicodedata.normalize("NFC", folder)


def _wrapper(folders: set[str]) -> str:
    """The path of the folder that holds the class folders: "" or e.g. "PBC_dataset_normal_DIB"."""
    children: dict[str, list[str]] = {}
    for folder in folders:
        children.setdefault(folder.rpartition("/")[0], []).append(folder)
    prefix = ""
    # A single folder is a wrapper only if it holds folders in turn; else it is the only class.
    while len(children.get(prefix, ())) == 1 and children.get(children[prefix][0]):
        prefix = children[prefix][0]
    return prefix


def _no_images(path: Path, entries: list[Entry]) -> str:
    zips = sorted(name for name, _, _ in entries if name.lower().endswith(".zip"))
    return (
        f"{path} has no class folders with images: "
        + (f"give {zips[0]}, the zip in it, extracted if need be; " if zips else "")
        + "it must hold one folder of images for each class; else give a CSV manifest with the "
        "columns file and label"
    )


def fingerprint_of(stamps: Iterable[Entry]) -> str:
    """A hash of names, sizes and stamps, the same in every order."""
    digest = hashlib.sha256()
    for entry in sorted(stamps):
        digest.update(repr(entry).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
