"""Whole patients or slides into parts, with every class in the proportions asked for."""

import hashlib
from collections.abc import Sequence

import numpy as np

from rcmnet_jax.errors import DataError

# Groups tried in all, over restarts: 32 restarts for a few hundred patients, one for thousands.
_EFFORT = 6_000
_MAX_RESTARTS = 32
_MAX_SWEEPS = 20


def assign_groups(
    groups: np.ndarray,
    labels: np.ndarray,
    class_names: Sequence[str],
    fractions: Sequence[float],
    *,
    seed: int,
    level: str,
    part_names: Sequence[str],
    every_class_everywhere: bool = True,
) -> np.ndarray:
    """Gives every record a part, records of one group all the same.

    Greedy from several random orders, then single moves while they help; the best result by
    the squared deviation from the wanted share of every class in every part, a class missing
    from a part weighing more than anything else.

    Args:
        groups: group of each record, (N,) of str.
        labels: class index of each record, (N,).
        class_names: names of the classes.
        fractions: wanted share of each part, summing to 1.
        seed: sets the random orders.
        level: "patient" or "slide", for messages.
        part_names: for messages.
        every_class_everywhere: raise unless each class is in each part.

    Returns:
        Part number of each record, int64 (N,).

    Raises:
        DataError: a class has fewer groups than there are parts, or no assignment was found.
    """
    names, group_of = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), len(class_names)))
    np.add.at(counts, (group_of, labels), 1)
    if every_class_everywhere:
        _check_enough_groups(counts, class_names, level, part_names)
    elif len(names) < len(fractions):
        raise DataError(f"{len(names)} {level}s cannot fill {len(fractions)} parts")
    target = np.asarray(fractions)
    # Shares of each class, so that a rare class weighs as much as a common one.
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    best, best_cost = None, np.inf
    for restart in range(max(1, min(_MAX_RESTARTS, _EFFORT // len(names)))):
        order = _order(names, counts.sum(axis=1), seed, restart)
        part_of = _improve(_greedy(order, shares, target), order, shares, target)
        cost = _cost(_part_shares(part_of, shares, len(target)), target, shares)
        if cost < best_cost - 1e-12:
            best, best_cost = part_of, cost
    assert best is not None
    if every_class_everywhere:
        present = _part_shares(best, shares, len(target)) > 0
        for part, number in np.argwhere(~present):
            raise DataError(
                f"no division by {level} puts class {class_names[number]!r} into every part "
                f"({part_names[part]} lacks it): leave out the validation part, add {level}s, "
                "or split by image"
            )
    return best[group_of]


def _check_enough_groups(counts, class_names, level, part_names) -> None:
    for number, name in enumerate(class_names):
        found = int(np.sum(counts[:, number] > 0))
        if found < len(part_names):
            raise DataError(
                f"class {name!r} comes from {found} {level}(s), fewer than the {len(part_names)} "
                f"parts ({', '.join(part_names)}): add {level}s, leave out the validation part "
                "(val_fraction=0), or split by image"
            )


def _order(names: np.ndarray, sizes: np.ndarray, seed: int, restart: int) -> np.ndarray:
    """Large groups first, as they are the hardest to place; the rest of the order is random."""
    keys = [
        hashlib.sha256(f"{seed}\0groups\0{restart}\0{name}".encode()).digest() for name in names
    ]
    # Sizes within a factor of two count as equal, so that the seed has a say.
    magnitude = np.floor(np.log2(np.maximum(sizes, 1)))
    return np.asarray(sorted(range(len(names)), key=lambda i: (-magnitude[i], keys[i])))


def _greedy(order: np.ndarray, shares: np.ndarray, target: np.ndarray) -> np.ndarray:
    part_of = np.full(len(shares), -1)
    filled = np.zeros((len(target), shares.shape[1]))
    for group in order:
        # The change of `_cost` that this group would make in each part.
        excess = (shares[group] + 2 * (filled - target[:, None])) / target[:, None]
        part = int(np.argmin(np.round(excess @ shares[group], 12)))
        part_of[group] = part
        filled[part] += shares[group]
    return part_of


def _improve(
    part_of: np.ndarray, order: np.ndarray, shares: np.ndarray, target: np.ndarray
) -> np.ndarray:
    """Moves one group at a time to the part where the cost is lowest, until nothing helps."""
    filled = _part_shares(part_of, shares, len(target))
    cost = _cost(filled, target, shares)
    for _ in range(_MAX_SWEEPS):
        moved = False
        for group in order:
            here = part_of[group]
            for there in range(len(target)):
                if there == here:
                    continue
                trial = filled.copy()
                trial[here] -= shares[group]
                trial[there] += shares[group]
                trial_cost = _cost(trial, target, shares)
                if trial_cost < cost - 1e-9:
                    filled, cost, here, moved = trial, trial_cost, there, True
            part_of[group] = here
        if not moved:
            break
    return part_of


def _part_shares(part_of: np.ndarray, shares: np.ndarray, parts: int) -> np.ndarray:
    filled = np.zeros((parts, shares.shape[1]))
    np.add.at(filled, part_of, shares)
    return filled


def _cost(filled: np.ndarray, target: np.ndarray, shares: np.ndarray) -> float:
    exists = shares.sum(axis=0) > 0
    missing = np.sum(filled[:, exists] < 1e-9)
    # Divided by the target: being 5 % off hurts a small part more than the large one.
    return float(1e3 * missing + np.sum((filled - target[:, None]) ** 2 / target[:, None]))
