"""One file of a source, and one that was left out."""

import dataclasses
import unicodedata
from pathlib import Path, PurePosixPath

# A single-cell image is some 15 kB. Anything this large is not one, and is not read into memory.
MAX_FILE_BYTES = 512 * 2**20
# Folders and files that systems and programs leave among a user's own, in lower case.
_SYSTEM_NAMES = frozenset(
    {
        *("__macosx", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "lost+found"),
        *("__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    }
)
# Endings of files that lie beside images and are none.
_OTHER_ENDINGS = frozenset(
    {
        *(".csv", ".tsv", ".txt", ".json", ".jsonl", ".xml", ".md", ".html", ".log", ".ini"),
        *(".yaml", ".yml", ".xls", ".xlsx", ".pdf", ".db", ".zip", ".partial"),
    }
)


@dataclasses.dataclass(frozen=True, order=True)
class SourceFile:
    """An image file as the user has it, not decoded yet.

    Attributes:
        file: path relative to the folder of class folders (or of the manifest), with slashes.
        label: the class name, in Unicode's composed form.
        patient, slide, lab: what a manifest or a folder says, else None.
        part: "train", "val" or "test" where a manifest or a folder says so, else None.
        fold: name of the fold of a cross-validation, else None.
    """

    file: str
    label: str
    patient: str | None = dataclasses.field(default=None, compare=False)
    slide: str | None = dataclasses.field(default=None, compare=False)
    lab: str | None = dataclasses.field(default=None, compare=False)
    part: str | None = dataclasses.field(default=None, compare=False)
    fold: str | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, order=True)
class IgnoredFile:
    """Something found that is in no class: named in the audit, with the reason."""

    file: str
    reason: str


def is_text(name: str) -> bool:
    """Whether a file name survives CSV and UTF-8: no control characters, no undecodable bytes."""
    # Not str.isprintable: macOS puts a narrow no-break space into the names of screenshots.
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def is_system_name(name: str) -> bool:
    """Whether a folder or file is a system's or a program's, not the user's: hidden, thumbnails."""
    return name.startswith((".", "~$")) or name.lower() in _SYSTEM_NAMES


def may_be_image(name: str) -> bool:
    """Whether a file among images is opened as one: all but texts and tables, also without ending.

    Where files have no class to belong to, as in prediction and explanation.
    """
    return PurePosixPath(name).suffix.lower() not in _OTHER_ENDINGS


def on_disk(root: Path, name: str) -> str:
    """A name in the Unicode form in which the disk has it; the name itself where it has none.

    macOS stores names decomposed, most else composed.
    """
    forms = (name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))
    return next((form for form in forms if (root / form).is_file()), name)
