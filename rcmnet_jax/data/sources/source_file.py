"""One file of a source, and one that was left out."""

import dataclasses
import unicodedata

# A single-cell image is some 15 kB. Anything this large is not one, and is not read into memory.
MAX_FILE_BYTES = 512 * 2**20


@dataclasses.dataclass(frozen=True, order=True)
class SourceFile:
    """An image file as the user has it, not decoded yet.

    Attributes:
        file: path relative to the folder of class folders (or of the manifest), with slashes.
        label: the class name.
        patient, slide, lab: what a manifest says, else None.
    """

    file: str
    label: str
    patient: str | None = dataclasses.field(default=None, compare=False)
    slide: str | None = dataclasses.field(default=None, compare=False)
    lab: str | None = dataclasses.field(default=None, compare=False)


@dataclasses.dataclass(frozen=True, order=True)
class IgnoredFile:
    """Something found that is in no class: named in the audit, with the reason."""

    file: str
    reason: str


def is_text(name: str) -> bool:
    """Whether a file name survives CSV and UTF-8: no control characters, no undecodable bytes."""
    # Not str.isprintable: macOS puts a narrow no-break space into the names of screenshots.
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
