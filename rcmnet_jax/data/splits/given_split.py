"""Splits that the user's folders or manifest already have: train, val and test."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from rcmnet_jax.data.splits.folds import hold_out
from rcmnet_jax.data.splits.split_table import Split, SplitTable, check_fractions
from rcmnet_jax.errors import DataError

logger = logging.getLogger(__name__)
# Of identical copies the one is kept whose part a result depends on most.
_KEEP_FIRST = ("test", "val", "train")


def make_given_split(
    labels: Sequence[int] | np.ndarray,
    *,
    files: Sequence[str] | np.ndarray,
    sha256: Sequence[str] | np.ndarray,
    class_names: Sequence[str],
    parts: Sequence[str] | np.ndarray,
    seed: int = 0,
    groups: Sequence[str | None] | np.ndarray | None = None,
    level: str | None = None,
    test_fraction: float = 0.2,
    val_fraction: float = 0.1,
) -> Split:
    """Keeps the parts that come with the images; a part that is missing is held out of train.

    Args:
        labels, files, sha256, class_names, seed, groups, level: as in `make_split`.
        parts: "train", "val" or "test" for each record, (N,).
        test_fraction: of the images given for training, where no test part is given.
        val_fraction: the same for the validation part; 0 for none.

    Returns:
        The split, its protocol "given". Extra copies of identical images are dropped, from
        train before val before test. Its level is "image" where a group lies in two of the parts.

    Raises:
        DataError: an unknown part, or a class without training images.
    """
    check_fractions(test_fraction, val_fraction)
    table = SplitTable.of(labels, files, sha256, class_names, groups, level, seed)
    given = np.asarray(parts, dtype="<U7")
    unknown = sorted(set(given.tolist()) - set(_KEEP_FIRST))
    if unknown:
        raise DataError(f"unknown part {unknown[0]!r}: choose from train, val, test")
    order = sorted(table.order.tolist(), key=lambda record: _KEEP_FIRST.index(given[record]))
    table.drop_copies(order)
    if table.level != "image":
        shared = _in_two_parts(table.groups, given)
        if shared:
            logger.warning(
                "the given split has %s %s in two parts: its scores are an upper bound",
                *(table.level, shared[0]),
            )
            blank = np.full(len(given), "")
            table = dataclasses.replace(table, level="image", groups=blank)
    part = np.where(table.part == "", given, table.part)
    if not np.any(part == "test"):
        hold_out(table, part, test_fraction, "given", name="test")
    if not np.any(part == "val"):
        hold_out(table, part, val_fraction, "given")
    for number, name in enumerate(table.class_names):
        if not np.any((part == "train") & (table.labels == number)):
            raise DataError(f"the given split has no training images of class {name!r}: add some")
    return table.split("given", part)


def _in_two_parts(groups: np.ndarray, parts: np.ndarray) -> list[str]:
    """Groups with images in more than one part, sorted."""
    found: dict[str, set[str]] = {}
    for group, part in zip(groups.tolist(), parts.tolist(), strict=True):
        found.setdefault(group, set()).add(part)
    return sorted(group for group, where in found.items() if len(where) > 1)
