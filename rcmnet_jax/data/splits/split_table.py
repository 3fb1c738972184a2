"""A finished split, and the table of records it is made from."""

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np

from rcmnet_jax.errors import DataError

PARTS = ("train", "val", "test")
DROPPED = "dropped"
LEVELS = ("image", "slide", "patient", "lab", "fold")


@dataclasses.dataclass(frozen=True)
class Split:
    """The part of every record, in the order of the data set.

    Attributes:
        files: path of each record, (N,) of str.
        labels: class index, int32 (N,).
        part: "train", "val", "test" or "dropped", (N,) of str.
        reason: why a record is dropped, else "", (N,) of str.
        group: patient or slide id, else "", (N,) of str.
        class_names: names of the classes.
        protocol: "strict", "paper", "given", a name for folds, or "file" when read from a CSV.
        level: what is kept whole: one of `LEVELS`.
        seed: None when read from a CSV.
    """

    files: np.ndarray
    labels: np.ndarray
    part: np.ndarray
    reason: np.ndarray
    group: np.ndarray
    class_names: tuple[str, ...]
    protocol: str
    level: str
    seed: int | None

    def __len__(self) -> int:
        return len(self.files)

    def indices(self, part: str) -> np.ndarray:
        """Record numbers of one part, int64, ascending."""
        if part not in (*PARTS, DROPPED):
            raise DataError(f"unknown part {part!r}: choose from {', '.join(PARTS)}, {DROPPED}")
        return np.flatnonzero(self.part == part)

    @property
    def sha256(self) -> str:
        """A hash of who is where, the same for every order of the records."""
        digest = hashlib.sha256()
        rows = zip(self.files, self.labels, self.part, strict=True)
        for file, label, part in sorted(rows, key=lambda row: str(row[0])):
            digest.update(f"{file}\0{self.class_names[label]}\0{part}\n".encode())
        return digest.hexdigest()

    def counts(self) -> dict[str, dict[str, int]]:
        """Images by part and class name, the dropped included."""
        return {
            part: {
                name: int(np.sum((self.part == part) & (self.labels == number)))
                for number, name in enumerate(self.class_names)
            }
            for part in (*PARTS, DROPPED)
        }

    def table(self) -> str:
        """The counts as text, one line for each class."""
        counts = self.counts()
        parts = (*PARTS, DROPPED)
        width = max(len("class"), *(len(name) for name in self.class_names))
        lines = [f"{'class':<{width}}" + "".join(f"{part:>9}" for part in parts)]
        for name in self.class_names:
            lines.append(f"{name:<{width}}" + "".join(f"{counts[part][name]:>9}" for part in parts))
        totals = [sum(counts[part].values()) for part in parts]
        lines.append(f"{'total':<{width}}" + "".join(f"{total:>9}" for total in totals))
        return "\n".join(lines)


@dataclasses.dataclass
class SplitTable:
    """The records while a split is being made. `order` sorts them by file."""

    files: np.ndarray
    labels: np.ndarray
    sha256: np.ndarray
    groups: np.ndarray
    class_names: tuple[str, ...]
    level: str
    seed: int
    part: np.ndarray
    reason: list[str]
    order: np.ndarray

    @classmethod
    def of(cls, labels, files, sha256, class_names, groups, level, seed) -> "SplitTable":
        files = np.asarray(files, dtype=str)
        labels = np.asarray(labels, dtype=np.int32)
        sha256 = np.asarray(sha256, dtype=str)
        _check_columns(files, labels, sha256, class_names, groups)
        if groups is None:
            level, group_ids = "image", np.full(len(files), "", dtype=str)
        else:
            level, group_ids = level or "patient", np.asarray([g or "" for g in groups], dtype=str)
            if level not in LEVELS[1:]:
                raise DataError(
                    f"unknown group level {level!r}: choose from {', '.join(LEVELS[1:])}"
                )
            if np.any(group_ids == ""):
                raise DataError(
                    f"{np.sum(group_ids == '')} images have no {level} "
                    f"({files[group_ids == ''][0]}): fill in the column for all, or split by image"
                )
        return cls(
            files=files,
            labels=labels,
            sha256=sha256,
            groups=group_ids,
            class_names=tuple(class_names),
            level=level,
            seed=int(seed),
            part=np.full(len(files), "", dtype="<U7"),
            reason=[""] * len(files),
            order=np.argsort(files, kind="stable"),
        )

    def rank(self, names: Sequence[str], purpose: str) -> list[int]:
        """A random order of `names`, set by the seed and the names alone: positions, in order."""
        keys = [
            hashlib.sha256(f"{self.seed}\0{purpose}\0{name}".encode()).digest() for name in names
        ]
        return sorted(range(len(keys)), key=keys.__getitem__)

    def of_class(self, number: int) -> np.ndarray:
        """Records of a class with no part yet, by file."""
        open_records = self.order[self.part[self.order] == ""]
        return open_records[self.labels[open_records] == number]

    def drop(self, record: int, reason: str) -> None:
        self.part[record] = DROPPED
        self.reason[record] = reason

    def drop_copies(self, order: Iterable[int] | None = None) -> None:
        """Keeps the first of byte-identical images, by file or in another order."""
        first: dict[str, int] = {}
        for record in self.order if order is None else order:
            kept = first.setdefault(self.sha256[record], record)
            if kept != record:
                self.drop(record, f"duplicate of {self.files[kept]}")

    def truncate(self, number: int, size: int) -> None:
        """Drops images of a class at random until `size` are left."""
        records = self.of_class(number)
        shuffled = self.rank([self.files[record] for record in records], "truncate")
        for position in shuffled[size:]:
            self.drop(records[position], f"class cut to {size}")

    def split(self, protocol: str, part: np.ndarray | None = None) -> Split:
        """The finished split; `part` replaces the table's own, as the folds share a table."""
        part = self.part.copy() if part is None else part
        assert np.all(part != "")
        return Split(
            files=self.files,
            labels=self.labels,
            part=part,
            reason=np.asarray(self.reason, dtype=str),
            group=self.groups,
            class_names=self.class_names,
            protocol=protocol,
            level=self.level,
            seed=self.seed,
        )


def _check_columns(files, labels, sha256, class_names, groups) -> None:
    lengths = {len(files), len(labels), len(sha256)} | (
        {len(groups)} if groups is not None else set()
    )
    if len(lengths) != 1:
        raise DataError(f"the columns of the data set differ in length ({sorted(lengths)})")
    if len(files) == 0:
        raise DataError("there are no images to split: check the audit of the data set")
    if len(np.unique(files)) != len(files):
        raise DataError("two records have the same file: remove one of them")
    if labels.min() < 0 or labels.max() >= len(class_names):
        raise DataError(f"labels must lie between 0 and {len(class_names) - 1}")
    label_of: dict[str, int] = {}
    for file, label, content in zip(files, labels, sha256, strict=True):
        if label_of.setdefault(content, label) != label:
            raise DataError(f"{file} has an identical copy under another label: remove both")


def check_fractions(test_fraction: float, val_fraction: float) -> None:
    """Raises `DataError` unless 0 < test_fraction < 1 and 0 <= val_fraction < 1."""
    if not 0 < test_fraction < 1:
        raise DataError(f"test_fraction is {test_fraction}: it must lie between 0 and 1")
    if not 0 <= val_fraction < 1:
        raise DataError(f"val_fraction is {val_fraction}: it must lie between 0 (none) and 1")


def take(number: int, fraction: float) -> int:
    """floor(number * fraction), immune to 0.1 + 0.2 (4.999... counts as 5)."""
    return math.floor(number * fraction + 1e-9)
