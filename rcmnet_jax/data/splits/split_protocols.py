"""Which image trains, validates or tests: made once, written as a CSV one can commit.

Splits depend on the files and the seed alone: not on the order of the files, the machine, or a
library's random generator, since every draw sorts by a hash of the seed and the file's name.

Two protocols:

``strict``
    Every image is used, but extra copies of byte-identical images. Classes keep their
    proportions. With patient or slide ids, all images of one are in the same part.
``paper``
    Zhang et al. 2022, Table 1: every class is cut at random to the smallest, then 80 % train and
    20 % test of each class (1,214 -> 971 and 243 on PBC), by image, whatever the patients.
    Copies stay, on one side. Validation, which the paper lacks, is held out of train.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from rcmnet_jax.data.splits.grouping import assign_groups
from rcmnet_jax.data.splits.split_table import Split, SplitTable, check_fractions, take
from rcmnet_jax.errors import DataError

Protocol = Literal["strict", "paper"]
PROTOCOLS = ("strict", "paper")


def make_split(
    labels: Sequence[int] | np.ndarray,
    *,
    files: Sequence[str] | np.ndarray,
    sha256: Sequence[str] | np.ndarray,
    class_names: Sequence[str],
    protocol: Protocol = "strict",
    seed: int = 0,
    groups: Sequence[str | None] | np.ndarray | None = None,
    level: str | None = None,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
    per_class: int | None = None,
    train_per_class: int | None = None,
) -> Split:
    """Divides the records into train, val and test.

    Args:
        labels: class index of each record, (N,).
        files: path of each record, unique, (N,).
        sha256: content hash of each record, (N,).
        class_names: names of the classes.
        protocol: "strict" or "paper", see the module.
        seed: another seed gives another split.
        groups: patient or slide id of each record; the paper's protocol ignores them.
        level: what `groups` are, "patient" (the default), "slide" or "lab".
        test_fraction: fraction of each class to test on.
        val_fraction: fraction of what is left to validate on; 0 for none.
        per_class: cut every class at random to at most this many images (exactly this many in
            the paper's protocol, where the default is the smallest class).
        train_per_class: in the paper's protocol, train and validation images of each class
            together, in place of the fraction.

    Returns:
        The split, in the order given.

    Raises:
        DataError: too few images or groups in a class, or arguments that contradict each other.
    """
    table = SplitTable.of(labels, files, sha256, class_names, groups, level, seed)
    if protocol not in PROTOCOLS:
        raise DataError(f"unknown split protocol {protocol!r}: choose from {', '.join(PROTOCOLS)}")
    check_fractions(test_fraction, val_fraction)
    if protocol == "paper":
        # The groups are forgotten, as nothing keeps them whole.
        table = dataclasses.replace(table, level="image", groups=np.full(len(table.files), ""))
        _split_paper(table, test_fraction, val_fraction, per_class, train_per_class)
    else:
        if train_per_class is not None:
            raise DataError("train_per_class belongs to protocol 'paper': use per_class instead")
        table.drop_copies()
        if per_class is not None:
            for number in range(len(table.class_names)):
                table.truncate(number, per_class)
        if table.level == "image":
            _split_images(table, test_fraction, val_fraction)
        else:
            _split_groups(table, test_fraction, val_fraction)
    return table.split(protocol)


def _sizes(table: SplitTable, number: int, count: int, test: float, val: float) -> tuple[int, int]:
    """Validation and test images of a class of `count`, at least one each where wanted."""
    train = take(count, 1 - test)
    n_test = max(1, count - train)
    n_val = max(1, take(count - n_test, val)) if val else 0
    if count - n_test - n_val < 1:
        raise DataError(
            f"class {table.class_names[number]!r} has {count} usable images, too few for "
            f"{'train, val and test' if val else 'train and test'}: add images or leave the "
            "class out"
        )
    return n_val, n_test


def _split_images(table: SplitTable, test_fraction: float, val_fraction: float) -> None:
    for number in range(len(table.class_names)):
        records = table.of_class(number)
        n_val, n_test = _sizes(table, number, len(records), test_fraction, val_fraction)
        shuffled = records[table.rank(list(table.files[records]), "split")]
        table.part[shuffled] = "train"
        table.part[shuffled[:n_test]] = "test"
        table.part[shuffled[n_test : n_test + n_val]] = "val"


def _split_groups(table: SplitTable, test_fraction: float, val_fraction: float) -> None:
    fractions = {"test": test_fraction, "val": (1 - test_fraction) * val_fraction}
    fractions = {part: share for part, share in fractions.items() if share > 0}
    fractions["train"] = 1 - sum(fractions.values())
    records = table.order[table.part[table.order] == ""]
    assigned = assign_groups(
        table.groups[records],
        table.labels[records],
        table.class_names,
        list(fractions.values()),
        seed=table.seed,
        level=table.level,
        part_names=list(fractions),
    )
    table.part[records] = np.asarray(list(fractions))[assigned]


def _split_paper(
    table: SplitTable,
    test_fraction: float,
    val_fraction: float,
    per_class: int | None,
    train_per_class: int | None,
) -> None:
    available = [len(table.of_class(number)) for number in range(len(table.class_names))]
    size = min(available) if per_class is None else per_class
    smallest = table.class_names[int(np.argmin(available))]
    if size > min(available):
        raise DataError(
            f"per_class is {size}, but {smallest!r} has {min(available)} images: "
            f"set it to {min(available)} or less"
        )
    n_train = take(size, 1 - test_fraction) if train_per_class is None else train_per_class
    n_val = take(n_train, val_fraction)
    if val_fraction and n_val == 0:
        n_val = 1
    if n_train - n_val < 1 or size - n_train < 1:
        raise DataError(
            f"{size} images a class leave {n_train - n_val} to train, {n_val} to validate and "
            f"{size - n_train} to test on: add images to {smallest!r} or change the fractions"
        )
    for number in range(len(table.class_names)):
        table.truncate(number, size)
        _fill(table, number, {"test": size - n_train, "val": n_val, "train": n_train - n_val})
    for part, expected in (("train", n_train - n_val), ("val", n_val), ("test", size - n_train)):
        found = np.bincount(table.labels[table.part == part], minlength=len(table.class_names))
        assert np.all(found == expected), (part, found, expected)


def _fill(table: SplitTable, number: int, room: dict[str, int]) -> None:
    """Fills the parts of one class exactly, copies of an image all in one part."""
    copies: dict[str, list[int]] = {}
    for record in table.of_class(number):
        copies.setdefault(table.sha256[record], []).append(record)
    units = list(copies.values())
    shuffled = [units[i] for i in table.rank([table.files[unit[0]] for unit in units], "split")]
    # At random first. Should copies be left over at the end with places in two parts, then the
    # largest units first: the single images fill what is left, to the last place.
    for order in (shuffled, sorted(shuffled, key=len, reverse=True)):
        places = dict(room)
        part_of: list[tuple[list[int], str]] = []
        for unit in order:
            part = next((part for part, free in places.items() if free >= len(unit)), None)
            if part is None:
                break
            places[part] -= len(unit)
            part_of.append((unit, part))
        else:
            for unit, part in part_of:
                table.part[unit] = part
            return
    raise DataError(
        f"class {table.class_names[number]!r} has too many identical copies for exact counts: "
        "remove the duplicates the audit names, or use protocol 'strict'"
    )
