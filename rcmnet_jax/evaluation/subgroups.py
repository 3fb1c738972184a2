"""Scores of subgroups: images of each lab, slide, stain or other column of a manifest."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.bootstrap import bootstrap
from rcmnet_jax.evaluation.checks import check_predictions
from rcmnet_jax.evaluation.intervals import Interval, Proportion

# More values than this are identifiers, not groups that a table can show.
MAX_VALUES = 40
UNKNOWN = "(not given)"


@dataclass(frozen=True)
class Subgroup:
    """The scores of the images that share a value."""

    value: str
    n: int
    classes: int
    """Classes that have images here."""
    accuracy: Proportion
    balanced_accuracy: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "value": self.value,
            "n": self.n,
            "classes": self.classes,
            "accuracy": self.accuracy.to_dict(),
            "balanced_accuracy": self.balanced_accuracy.to_dict(),
        }


def subgroup_table(
    labels: Any,
    probabilities: Any,
    column: Sequence[str],
    *,
    groups: Sequence[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
) -> tuple[Subgroup, ...] | None:
    """Scores by the value of a column, the largest subgroup first.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        column: N values; empty ones are one subgroup of their own.
        groups: patient or slide of each image, for the bootstrap.
        samples: resamples.
        seed: of the draws.

    Returns:
        The rows; None where the column has one value only, or more than `MAX_VALUES`.

    Raises:
        DataError: predictions of the wrong form, or not one value an image.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    if len(column) != len(labels):
        raise DataError(f"{len(column)} values of a column for {len(labels)} images")
    values = np.array([str(value).strip() or UNKNOWN for value in column])
    counts = Counter(values.tolist())
    if not 2 <= len(counts) <= MAX_VALUES:
        return None
    rows = []
    for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        here = np.flatnonzero(values == value)
        right = probabilities[here].argmax(axis=1) == labels[here]
        rows.append(
            Subgroup(
                value=value,
                n=count,
                classes=len(set(labels[here].tolist())),
                accuracy=Proportion.of(int(right.sum()), count),
                balanced_accuracy=bootstrap(
                    labels[here],
                    probabilities[here],
                    "balanced_accuracy",
                    groups=None if groups is None else [groups[int(i)] for i in here],
                    samples=samples,
                    seed=seed,
                ),
            )
        )
    return tuple(rows)
