"""What an audit makes of its rows: the oddities that can spoil a result."""

import collections
import dataclasses
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from rcmnet_jax.data.bit_depth import narrower_depth
from rcmnet_jax.data.records import AuditRow

# The classes of the PBC set and the prefixes of their file names (Acevedo et al. 2020).
PBC_PREFIXES: dict[str, tuple[str, ...]] = {
    "basophil": ("BA",),
    "eosinophil": ("EO",),
    "erythroblast": ("ERB",),
    "ig": ("IG", "MMY", "MY", "PMY"),
    "lymphocyte": ("LY",),
    "monocyte": ("MO",),
    "neutrophil": ("BNE", "SNE", "NEUTROPHIL"),
    "platelet": ("PLATELET",),
}
PBC_CLASSES = tuple(PBC_PREFIXES)
# Sizes of fewer files than this say nothing about a class.
_MIN_FOR_UNEVEN = 10
# A size twice as common in one class as overall is worth a warning.
_UNEVEN_FACTOR = 2.0


@dataclasses.dataclass(frozen=True)
class Finding:
    """One kind of oddity.

    Attributes:
        kind: a short key, such as "conflict".
        message: one line.
        count: files (or pairs) concerned.
        examples: every case, as text; the table shows the first few.
    """

    kind: str
    message: str
    count: int
    examples: tuple[str, ...] = ()


def find_oddities(rows: Sequence[AuditRow], class_names: Sequence[str]) -> tuple[Finding, ...]:
    """Looks through audit rows.

    Args:
        rows: of the audit.
        class_names: names of the classes.

    Returns:
        Findings, the most serious first; none for a clean set.
    """
    kept = [row for row in rows if row.status == "kept"]
    findings = [
        *_unusable(rows),
        *_conflicts(rows),
        *_empty_classes(kept, class_names),
        *_bit_depth(kept),
        *_spellings(kept),
        *_blank_groups(kept),
        *_divided_groups(kept),
        *_copies(kept),
        *_prefixes(kept),
        *_sizes(kept, class_names),
        *_modes(kept),
    ]
    in_no_class = [row for row in rows if row.status == "ignored"]
    if in_no_class:
        examples = tuple(f"{row.file}: {row.reason}" for row in in_no_class)
        findings.append(Finding("ignored", "in no class, not used", len(in_no_class), examples))
    return tuple(findings)


def _unusable(rows: Iterable[AuditRow]) -> Iterable[Finding]:
    bad = [row for row in rows if row.status == "dropped" and not row.reason.startswith("label")]
    if bad:
        examples = tuple(f"{row.file}: {row.reason}" for row in bad)
        yield Finding("unusable", "not a usable image, dropped", len(bad), examples)


def _conflicts(rows: Iterable[AuditRow]) -> Iterable[Finding]:
    groups = collections.defaultdict(list)
    for row in rows:
        if row.status == "dropped" and row.reason.startswith("label conflict"):
            groups[row.sha256].append(row.file)
    if groups:
        yield Finding(
            "conflict",
            "identical images under different labels, all of them dropped",
            len(groups),
            tuple(" = ".join(files) for files in groups.values()),
        )


def _empty_classes(kept: Sequence[AuditRow], class_names: Sequence[str]) -> Iterable[Finding]:
    empty = tuple(name for name in class_names if not any(row.label == name for row in kept))
    if empty:
        yield Finding("empty", "classes with no usable image", len(empty), empty)


def _bit_depth(kept: Sequence[AuditRow]) -> Iterable[Finding]:
    """16-bit files of a camera that has fewer bits."""
    wide = [row for row in kept if row.bits > 8]
    depth = narrower_depth(max((row.maximum for row in wide), default=0))
    if depth:
        yield Finding(
            "bit-depth",
            f"16-bit files whose values never exceed {2**depth - 1} of 65535, as a camera of "
            f"{depth} bits writes them: nearly black without --config.data.bit_depth={depth}",
            len(wide),
            tuple(f"{row.file}: at most {row.maximum}" for row in wide),
        )


def _spellings(kept: Sequence[AuditRow]) -> Iterable[Finding]:
    """Names that are the same but for case, spaces or leading zeros."""
    for column in ("label", "patient", "slide", "lab"):
        names: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for row in kept:
            if name := getattr(row, column):
                names[_spelled(name)][name] += 1
        alike = [found for found in names.values() if len(found) > 1]
        if alike:
            what = "classes" if column == "label" else f"{column}s"
            yield Finding(
                f"{column}-spelling",
                f"{what} whose names differ only in case, spaces or leading zeros",
                len(alike),
                tuple(" = ".join(f"{name!r} ({n})" for name, n in f.items()) for f in alike),
            )


def _spelled(name: str) -> str:
    """A name without what people vary by accident."""
    plain = re.sub(r"\s+", "", unicodedata.normalize("NFKC", name).casefold())
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)


def _blank_groups(kept: Sequence[AuditRow]) -> Iterable[Finding]:
    for column in ("patient", "slide"):
        blank = [row for row in kept if not getattr(row, column)]
        if 0 < len(blank) < len(kept):
            yield Finding(
                "blank-group",
                f"images without a {column}, where {len(kept) - len(blank)} have one",
                len(blank),
                tuple(row.file for row in blank),
            )


def _divided_groups(kept: Sequence[AuditRow]) -> Iterable[Finding]:
    """Patients or slides that the given split has in several parts."""
    for column in ("patient", "slide"):
        parts: dict[str, set[str]] = collections.defaultdict(set)
        for row in kept:
            if row.part and getattr(row, column):
                parts[getattr(row, column)].add(row.part)
        divided = {name: found for name, found in parts.items() if len(found) > 1}
        if divided:
            yield Finding(
                "divided-group",
                f"{column}s in several parts of the given split",
                len(divided),
                tuple(f"{name}: {', '.join(sorted(f))}" for name, f in sorted(divided.items())),
            )


def _copies(kept: Sequence[AuditRow]) -> Iterable[Finding]:
    copies = [row for row in kept if row.duplicate_of]
    if copies:
        yield Finding(
            "duplicate",
            "copies of another image of the same class, kept here: the strict split drops them, "
            "the paper's keeps each with its original",
            len(copies),
            tuple(f"{row.file} = {row.duplicate_of}" for row in copies),
        )


def _prefixes(kept: Sequence[AuditRow]) -> Iterable[Finding]:
    """Names of the PBC set that contradict, or subdivide, their class."""
    class_of = {prefix: name for name, prefixes in PBC_PREFIXES.items() for prefix in prefixes}
    wrong = [
        row
        for row in kept
        if row.label in PBC_PREFIXES and class_of.get(row.prefix, row.label) != row.label
    ]
    if wrong:
        yield Finding(
            "prefix",
            "the name says another class than the folder (kept: look at them)",
            len(wrong),
            tuple(f"{row.file}: {row.prefix} means {class_of[row.prefix]}" for row in wrong),
        )
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for row in kept:
        if row.prefix in class_of:
            counts[row.label][row.prefix] += 1
    divided = {label: found for label, found in counts.items() if len(found) > 1}
    if divided:
        yield Finding(
            "sub-labels",
            "classes that the file names divide further",
            len(divided),
            tuple(f"{label}: {_tally(found)}" for label, found in sorted(divided.items())),
        )


def _sizes(kept: Sequence[AuditRow], class_names: Sequence[str]) -> Iterable[Finding]:
    sizes = collections.Counter((row.width, row.height) for row in kept)
    if len(sizes) < 2:
        return
    total = collections.Counter(row.label for row in kept)
    (common, _), *rest = sizes.most_common()
    by_size: dict[tuple[int, int], collections.Counter[str]] = collections.defaultdict(
        collections.Counter
    )
    for row in kept:
        by_size[(row.width, row.height)][row.label] += 1
    yield Finding(
        "size",
        f"sizes (width x height) other than the most common {common[0]}x{common[1]}",
        len(kept) - sizes[common],
        tuple(f"{size[0]}x{size[1]} ({count}): {_tally(by_size[size])}" for size, count in rest),
    )
    uneven = []
    for size, count in rest:
        if count < _MIN_FOR_UNEVEN:
            continue
        overall = count / len(kept)
        shares = {name: by_size[size][name] / total[name] for name in class_names if total[name]}
        if min(shares.values()) == 0 or max(shares.values()) > _UNEVEN_FACTOR * overall:
            absent = [name for name in class_names if not by_size[size][name]]
            text = f"{size[0]}x{size[1]}: {_tally(by_size[size])}"
            uneven.append(text + (f"; none in {', '.join(absent)}" if absent else ""))
    if uneven:
        guessed = sum(found.most_common(1)[0][1] for found in by_size.values()) / len(kept)
        chance = max(total.values()) / len(kept)
        yield Finding(
            "size-by-class",
            "sizes spread unevenly over the classes: a size-aware model could cheat (the size "
            f"alone tells the class of {guessed:.1%}, the largest class is {chance:.1%})",
            len(uneven),
            tuple(uneven),
        )


def _modes(kept: Sequence[AuditRow]) -> Iterable[Finding]:
    tests: tuple[tuple[str, str, Callable[[AuditRow], str]], ...] = (
        ("mode", "not plain RGB, converted", lambda row: row.mode if row.mode != "RGB" else ""),
        ("alpha", "transparent, laid over white", lambda row: "yes" if row.transparent else ""),
        (
            "orientation",
            "turned as EXIF says",
            lambda row: f"orientation {row.orientation}" if row.orientation != 1 else "",
        ),
        (
            "frames",
            "several images (pages, channels) in one file, only page 0 used",
            lambda row: f"{row.frames} images" if row.frames > 1 else "",
        ),
    )
    for kind, message, test in tests:
        found = [(row, test(row)) for row in kept if test(row)]
        if found:
            tally = _tally(collections.Counter(value for _, value in found))
            examples = tuple(f"{row.file}: {value}" for row, value in found)
            yield Finding(kind, f"{message} ({tally})", len(found), examples)
    formats = collections.Counter(row.format for row in kept)
    if len(formats) > 1:
        by_class: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for row in kept:
            by_class[row.label][row.format] += 1
        yield Finding(
            "format",
            "several file formats, whose compression a model can see",
            len(formats),
            tuple(f"{label}: {_tally(found)}" for label, found in sorted(by_class.items())),
        )


def _tally(counts: collections.Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
