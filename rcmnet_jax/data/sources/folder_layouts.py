"""What the folders around the images mean: classes, and above them parts, folds or patients."""

import re
from collections.abc import Collection, Iterable

from rcmnet_jax.errors import DataError

_PART_NAMES = {
    "train": re.compile(r"(?:train|training)(?:[ _.-].*|\d*)", re.IGNORECASE),
    "val": re.compile(r"(?:val|valid|validation|dev)(?:[ _.-].*|\d*)", re.IGNORECASE),
    "test": re.compile(r"(?:test|testing|holdout)(?:[ _.-].*|\d*)", re.IGNORECASE),
}
_LEVEL_NAMES = {
    "fold": re.compile(r"(?:fold|cv|split|k)[ _.-]?\d+", re.IGNORECASE),
    "slide": re.compile(r"(?:slide|smear|film)[ _.-]?\w+", re.IGNORECASE),
    "lab": re.compile(r"(?:lab|site|cent(?:er|re)|hospital|clinic)[ _.-]?\w+", re.IGNORECASE),
}
# P01, patient_3, case-12, 0017: names of people and slides, hardly of cells.
_ID = re.compile(r"[a-z]{0,9}[ _.-]*\d[\w .-]*", re.IGNORECASE)


def part_of(name: str) -> str | None:
    """ "train", "val" or "test" for a word that means one, else None."""
    for part, pattern in _PART_NAMES.items():
        if pattern.fullmatch(name):
            return part
    return None


def levels_above_classes(
    path: object, folders: Collection[str], with_images: set[str]
) -> list[str]:
    """What each level of folders above the class folders is.

    Folders that share two or more names of subfolders are no classes: the classes are below them.
    So are folders called train and test, whatever is in them.

    Args:
        path: of the source, for messages.
        folders: all folders, as paths below the one whose subfolders may be the classes.
        with_images: those of them that hold images directly.

    Returns:
        "part", "fold", "patient", "slide" or "lab" for each level, from above; empty where the
        first level is the classes.

    Raises:
        DataError: the names do not tell which of two levels is the classes.
    """
    levels: list[str] = []
    while len(levels) < 3:
        depth = len(levels)
        below: dict[str, set[str]] = {}
        for folder in folders:
            names = folder.split("/")
            if len(names) == depth + 1:
                below.setdefault(names[depth], set())
            elif len(names) > depth + 1:
                below.setdefault(names[depth], set()).add(names[depth + 1])
        level = _meaning(path, below)
        if level is None or any(folder.count("/") == depth for folder in with_images):
            break
        levels.append(level)
    return levels


def _meaning(path: object, below: dict[str, set[str]]) -> str | None:
    """What the folders of one level are, by their names and those below; None: the classes."""
    nested = {name: inner for name, inner in below.items() if inner}
    if nested and all(map(part_of, below)):
        return "part"
    shared = _in_several(nested.values())
    if len(below) < 2 or len(shared) < 2:
        return None
    for level, pattern in _LEVEL_NAMES.items():
        if all(map(pattern.fullmatch, below)):
            return level
    above_ids, below_ids = (all(map(_ID.fullmatch, names)) for names in (below, shared))
    above_ids = above_ids or any(map(part_of, below))
    if below_ids and not above_ids:
        # Classes over patients or slides.
        return None
    if below_ids:
        raise DataError(
            f"{path}: neither its folders ({_some(below)}) nor those below ({_some(shared)}) look"
            " like classes: give a CSV manifest with the columns file, label and patient"
        )
    return "patient"


def _in_several(groups: Iterable[set[str]]) -> set[str]:
    """Names that two or more of some sets have."""
    seen: set[str] = set()
    several: set[str] = set()
    for group in groups:
        several |= seen & group
        seen |= group
    return several


def describe(levels: list[str], names: list[Collection[str]], classes: Collection[str]) -> str:
    """One line for the audit: what each level was taken for."""
    use = {
        "part": "taken as the split",
        "fold": "taken as folds, which the split keeps whole",
    }
    shown = [
        f"{_some(found)}: {use.get(level, f'taken as {level}s, which the split keeps whole')}"
        for level, found in zip(levels, names, strict=True)
    ]
    return f"not classes: {'; '.join(shown)}; the classes are the folders below: {_some(classes)}"


def _some(names: Collection[str]) -> str:
    first = sorted(names)[:4]
    return ", ".join(first) + (", ..." if len(names) > 4 else "")
