"""Cross-validation: stratified folds by image, patient or slide, and one patient at a time."""

from collections.abc import Sequence

import numpy as np

from rcmnet_jax.data.splits.grouping import assign_groups
from rcmnet_jax.data.splits.split_table import Split, SplitTable, check_fractions, take
from rcmnet_jax.errors import DataError


def make_folds(
    labels: Sequence[int] | np.ndarray,
    *,
    files: Sequence[str] | np.ndarray,
    sha256: Sequence[str] | np.ndarray,
    class_names: Sequence[str],
    folds: int = 5,
    seed: int = 0,
    groups: Sequence[str | None] | np.ndarray | None = None,
    level: str | None = None,
    val_fraction: float = 0.1,
) -> list[Split]:
    """Stratified k-fold: every image is tested exactly once.

    Args:
        labels, files, sha256, class_names, groups, level: as in `make_split`.
        folds: how many, at least 2.
        seed: another seed gives other folds.
        val_fraction: fraction of each fold's training images to validate on; 0 for none.

    Returns:
        One split for each fold, its test part being the fold. Copies are dropped from all.

    Raises:
        DataError: a class has fewer images (or groups) than folds.
    """
    if folds < 2:
        raise DataError(f"folds is {folds}: it must be 2 or more")
    check_fractions(1 / folds, val_fraction)
    table = SplitTable.of(labels, files, sha256, class_names, groups, level, seed)
    table.drop_copies()
    records = table.order[table.part[table.order] == ""]
    if table.level == "image":
        fold_of = _image_folds(table, folds)
    else:
        fold_of = np.full(len(table.files), -1)
        fold_of[records] = assign_groups(
            table.groups[records],
            table.labels[records],
            table.class_names,
            [1 / folds] * folds,
            seed=seed,
            level=table.level,
            part_names=[f"fold {fold + 1}" for fold in range(folds)],
        )
    splits = []
    for fold in range(folds):
        part = table.part.copy()
        part[records] = np.where(fold_of[records] == fold, "test", "train")
        hold_out(table, part, val_fraction, f"fold {fold}")
        splits.append(table.split(f"fold {fold + 1} of {folds}", part))
    return splits


def make_leave_one_group_out(
    labels: Sequence[int] | np.ndarray,
    *,
    files: Sequence[str] | np.ndarray,
    sha256: Sequence[str] | np.ndarray,
    class_names: Sequence[str],
    groups: Sequence[str | None] | np.ndarray,
    level: str | None = None,
    seed: int = 0,
    val_fraction: float = 0.0,
) -> list[Split]:
    """Tests on one patient (or slide, or lab) at a time, training on all others.

    Args:
        labels, files, sha256, class_names, groups, level: as in `make_split`.
        seed: for the validation part.
        val_fraction: fraction of the other groups to validate on; 0 (the default) for none.

    Returns:
        One split for each group, in the order of the group names.

    Raises:
        DataError: one group only, or a class that one group alone has.
    """
    check_fractions(0.5, val_fraction)
    table = SplitTable.of(labels, files, sha256, class_names, groups, level, seed)
    table.drop_copies()
    records = table.order[table.part[table.order] == ""]
    names = np.unique(table.groups[records])
    if len(names) < 2:
        raise DataError(f"there is one {table.level} only: leave-one-out needs two or more")
    splits = []
    for name in names:
        part = table.part.copy()
        part[records] = np.where(table.groups[records] == name, "test", "train")
        _check_trainable(table, part, f"{table.level} {name}")
        hold_out(table, part, val_fraction, f"without {name}")
        splits.append(table.split(f"{table.level} {name} left out", part))
    return splits


def _image_folds(table: SplitTable, folds: int) -> np.ndarray:
    fold_of = np.full(len(table.files), -1)
    start = 0
    for number, name in enumerate(table.class_names):
        records = table.of_class(number)
        if len(records) < folds:
            raise DataError(
                f"class {name!r} has {len(records)} usable images for {folds} folds: "
                "add images or use fewer folds"
            )
        shuffled = records[table.rank(list(table.files[records]), "folds")]
        # Each class starts where the last one ended, so that the remainders even out.
        fold_of[shuffled] = (start + np.arange(len(shuffled))) % folds
        start = (start + len(shuffled)) % folds
    return fold_of


def hold_out(
    table: SplitTable, part: np.ndarray, fraction: float, purpose: str, *, name: str = "val"
) -> None:
    """Turns a fraction of train into another part, by class, whole groups where there are groups.

    Args:
        table: the records.
        part: of each record, changed in place.
        fraction: of the training images of each class; 0 changes nothing.
        purpose: makes the draw different from others of the same seed.
        name: of the other part.

    Raises:
        DataError: a class has too few images or groups.
    """
    if not fraction:
        return
    if table.level != "image":
        train = table.order[part[table.order] == "train"]
        assigned = assign_groups(
            table.groups[train],
            table.labels[train],
            table.class_names,
            [fraction, 1 - fraction],
            seed=table.seed,
            level=table.level,
            part_names=[name, "train"],
        )
        part[train[assigned == 0]] = name
        return
    for number, class_name in enumerate(table.class_names):
        in_train = (part[table.order] == "train") & (table.labels[table.order] == number)
        train = table.order[in_train]
        count = max(1, take(len(train), fraction))
        if len(train) - count < 1:
            raise DataError(
                f"class {class_name!r} has {len(train)} images to train on, too few to hold out "
                f"{name}: add images or set {name}_fraction=0"
            )
        shuffled = train[table.rank(list(table.files[train]), f"{name} {purpose}")]
        part[shuffled[:count]] = name


def _check_trainable(table: SplitTable, part: np.ndarray, held_out: str) -> None:
    for number, name in enumerate(table.class_names):
        if not np.any((part == "train") & (table.labels == number)):
            raise DataError(
                f"class {name!r} comes from {held_out} alone, so nothing is left to train on: "
                f"leave the class out or add {table.level}s"
            )
