"""The images of a data set: one row a file, as the audit writes them, and columns of those kept."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rcmnet_jax.data.splits import (
    GROUP_LEVELS,
    Split,
    choose_groups,
    make_given_split,
    make_split,
)


@dataclasses.dataclass(frozen=True)
class AuditRow:
    """One file. Width and height are after the EXIF rotation; 0 where it cannot be decoded.

    Attributes:
        status: "kept", "dropped", or "ignored" (in no class, so there is no label).
        reason: why it is not kept.
        prefix: letters before the first underscore of the name ("BNE"), which are labels in PBC.
        duplicate_of: the first file with the same bytes, else "".
        part: "train", "val" or "test" where the source says so; fold: the same.
        bits: of a channel in the file.
        maximum: the largest value where there are more than 8 bits, else 0.
    """

    file: str
    label: str
    status: str
    reason: str = ""
    sha256: str = ""
    bytes: int = 0
    width: int = 0
    height: int = 0
    mode: str = ""
    format: str = ""
    orientation: int = 1
    frames: int = 1
    transparent: bool = False
    prefix: str = ""
    duplicate_of: str = ""
    patient: str = ""
    slide: str = ""
    lab: str = ""
    part: str = ""
    fold: str = ""
    bits: int = 8
    maximum: int = 0


@dataclasses.dataclass(frozen=True)
class Records:
    """The columns of a data set, record i at position i of each.

    Attributes:
        file: path relative to the source, (N,) of str.
        label: class index, int32 (N,).
        sha256: of the file's bytes, (N,) of str.
        width, height: in pixels after the EXIF rotation, int32 (N,).
        patient, slide, lab, fold: (N,) of str, "" where unknown.
        part: "train", "val" or "test" where the source says so, else "", (N,) of str.
    """

    file: np.ndarray
    label: np.ndarray
    sha256: np.ndarray
    width: np.ndarray
    height: np.ndarray
    patient: np.ndarray
    slide: np.ndarray
    lab: np.ndarray
    part: np.ndarray
    fold: np.ndarray

    @classmethod
    def from_rows(cls, rows: Sequence[AuditRow], class_names: Sequence[str]) -> "Records":
        """The columns of some rows, in their order."""
        number = {name: i for i, name in enumerate(class_names)}
        text = {
            name: np.asarray([getattr(row, name) for row in rows], dtype=str)
            for name in ("file", "sha256", "patient", "slide", "lab", "part", "fold")
        }
        return cls(
            label=np.asarray([number[row.label] for row in rows], dtype=np.int32),
            width=np.asarray([row.width for row in rows], dtype=np.int32),
            height=np.asarray([row.height for row in rows], dtype=np.int32),
            **text,
        )

    def groups(self, level: str = "auto") -> tuple[np.ndarray | None, str]:
        """Ids of the groups that a split keeps whole, see `choose_groups`."""
        ids = {level: getattr(self, level) for level in GROUP_LEVELS}
        return choose_groups(ids, level, files=self.file)

    def split(self, class_names: Sequence[str], *, group_by: str = "auto", **options: Any) -> Split:
        """The split of the records: the one they come with, else one made here.

        Args:
            class_names: names of the classes.
            group_by: what must not be divided, see `choose_groups`.
            **options: protocol, seed, test_fraction and val_fraction of `make_split`.
        """
        columns = self.split_columns(class_names)
        groups, level = self.groups(group_by)
        if np.any(self.part != "") and options.get("protocol") != "paper":
            options.pop("protocol", None)
            return make_given_split(
                **columns, parts=self.part, groups=groups, level=level, **options
            )
        return make_split(**columns, groups=groups, level=level, **options)

    def split_columns(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The arguments that `make_split`, `make_folds` and `read_split_csv` share."""
        return {
            "labels": self.label,
            "files": self.file,
            "sha256": self.sha256,
            "class_names": tuple(class_names),
        }
