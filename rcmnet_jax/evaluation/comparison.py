"""Two runs compared on the same test images.

The exact McNemar test says whether their accuracy differs; the paired bootstrap gives the size of
the difference, of accuracy and of balanced accuracy, with limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation.bootstrap import Resampler
from rcmnet_jax.evaluation.intervals import Interval, Proportion
from rcmnet_jax.evaluation.predictions import Predictions, read_predictions
from rcmnet_jax.evaluation.text_tables import align, percent_floor, show_range


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p-value of equal error rates on the same images.

    Of the images that just one run gets right, each run should have half: p = min(1, 2 P(X <= min))
    with X binomial(only_a + only_b, 1/2) (McNemar 1947, in its exact form).

    Args:
        only_a: images that only the first run gets right.
        only_b: images that only the second run gets right.

    Returns:
        The p-value; 1 where the runs never differ.

    Raises:
        UserError: a negative count.
    """
    if only_a < 0 or only_b < 0:
        raise UserError(f"McNemar's test needs counts >= 0, not {only_a} and {only_b}")
    # Here, since every training run imports this module and none compares: half a second.
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(only_a, only_b), only_a + only_b, 0.5)))


@dataclass(frozen=True)
class Comparison:
    """Two runs on the same images; differences are second minus first."""

    names: tuple[str, str]
    n: int
    groups: int | None
    accuracy: tuple[Proportion, Proportion]
    balanced_accuracy: tuple[float, float]
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    p_value: float
    """Exact McNemar, two-sided."""
    accuracy_difference: Interval
    balanced_accuracy_difference: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "names": list(self.names),
            "n": self.n,
            "groups": self.groups,
            "accuracy": [p.to_dict() for p in self.accuracy],
            "balanced_accuracy": list(self.balanced_accuracy),
            "both_right": self.both_right,
            "only_first": self.only_first,
            "only_second": self.only_second,
            "both_wrong": self.both_wrong,
            "mcnemar_p": self.p_value,
            "accuracy_difference": self.accuracy_difference.to_dict(),
            "balanced_accuracy_difference": self.balanced_accuracy_difference.to_dict(),
        }

    def table(self) -> str:
        """The comparison for a terminal."""
        first, second = self.names
        level = f"{100 * self.accuracy_difference.confidence:g} %"
        rows = [["", "accuracy (%)", "k/n", level, "balanced (%)"]]
        for name, p, balanced in zip(
            self.names, self.accuracy, self.balanced_accuracy, strict=True
        ):
            shown = percent_floor(p.k / p.n)
            limits = show_range(p.low, p.high, percent=True)
            rows.append([name, shown, f"{p.k}/{p.n}", limits, percent_floor(balanced)])
        unit = "images" if self.groups is None else f"{self.groups} groups"
        lines = [
            f"{self.n} images, the same for both",
            "",
            *align(rows),
            "",
            f"{second} minus {first}, in points (paired bootstrap over {unit}, {level}):",
            *align(
                [
                    ["  accuracy", *_points(self.accuracy_difference)],
                    ["  balanced accuracy", *_points(self.balanced_accuracy_difference)],
                ]
            ),
            f"right in both {self.both_right}, in {first} only {self.only_first}, "
            f"in {second} only {self.only_second}, in neither {self.both_wrong}",
            f"exact McNemar p = {self.p_value:.3g}: " + self._verdict(),
        ]
        if self.groups is not None:
            lines.append("McNemar takes images as independent; within a group they are not.")
        return "\n".join(lines)

    def _verdict(self) -> str:
        if self.p_value >= 0.05:
            return "no difference in accuracy is shown (5 % level)"
        better = self.names[0] if self.only_first > self.only_second else self.names[1]
        return f"{better} is more accurate on these images (5 % level)"


def _points(interval: Interval) -> list[str]:
    """A difference in percentage points and its limits."""
    value = "-" if interval.value is None else f"{100 * interval.value:+.2f}"
    if interval.low is None or interval.high is None:
        return [value, "-"]
    return [value, f"[{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"]


def predicted_in_order_of(
    first: Predictions, second: Predictions, names: tuple[str, str]
) -> np.ndarray:
    """(N,) class predicted by the second run, in the first run's order of images and classes.

    Raises:
        DataError: other images, other contents, other classes or other labels.
    """
    same = "evaluate both runs on the same split and data folder"
    if set(first.class_names) != set(second.class_names):
        odd = sorted(set(first.class_names) ^ set(second.class_names))
        raise DataError(f"the runs have different classes ({', '.join(odd)} in one only); {same}")
    where = {file: i for i, file in enumerate(second.files)}
    missing = [file for file in first.files if file not in where]
    extra = len(second.files) - (len(first.files) - len(missing))
    if missing or extra:
        known = set(first.files)
        example = missing[0] if missing else next(f for f in second.files if f not in known)
        raise DataError(
            f"the runs were scored on different images: {len(missing)} only in {names[0]}, {extra} "
            f"only in {names[1]} (such as {example}); {same}"
        )
    order = np.array([where[file] for file in first.files])
    for file, here, i in zip(first.files, first.sha256, order, strict=True):
        there = second.sha256[i]
        if here and there and here != there:
            raise DataError(f"{file} changed between the runs (its sha256 differs); {same}")
    to_first = np.array([first.class_names.index(name) for name in second.class_names])
    differ = np.flatnonzero(to_first[second.labels[order]] != first.labels)
    if differ.size:
        raise DataError(
            f"{differ.size} images have another label in {names[1]} than in {names[0]} (such as "
            f"{first.files[differ[0]]}); {same}"
        )
    return to_first[second.predicted[order]]


def _balanced(cells: np.ndarray) -> tuple[float, float]:
    """Balanced accuracy of both runs from (K, 2, 2) counts; classes without images are left out."""
    support = cells.sum(axis=(1, 2))
    present = support > 0
    recall_a = cells[:, 1].sum(axis=1)[present] / support[present]
    recall_b = cells[:, :, 1].sum(axis=1)[present] / support[present]
    return float(recall_a.mean()), float(recall_b.mean())


def _balanced_difference(cells: np.ndarray) -> np.ndarray:
    """(..., K, 2, 2) counts by class, first right, second right -> (...) balanced difference."""
    support = cells.sum(axis=(-2, -1))
    present = support > 0
    gain = np.where(present, (cells[..., 0, 1] - cells[..., 1, 0]) / np.maximum(support, 1), 0.0)
    return gain.sum(axis=-1) / present.sum(axis=-1)


def compare(
    first: Predictions | Path | str,
    second: Predictions | Path | str,
    *,
    names: tuple[str, str] = ("A", "B"),
    groups: Sequence[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two runs on the same test images, matched by file name.

    Args:
        first: predictions, or the CSV file of them.
        second: the same images; their order and the order of the classes may differ.
        names: what to call the two in tables.
        groups: patient or slide of each image, in the order of `first`.
        samples: resamples of the paired bootstrap.
        seed: of the bootstrap.
        confidence: of the intervals, in (0, 1).

    Returns:
        The comparison; differences are second minus first.

    Raises:
        DataError: the runs differ in images, labels or classes, or a file cannot be read.
        UserError: samples or confidence out of range.
    """
    a, b = (x if isinstance(x, Predictions) else read_predictions(x) for x in (first, second))
    right_a = a.predicted == a.labels
    right_b = predicted_in_order_of(a, b, names) == a.labels
    # Both statistics see an image only as (class, right in a, right in b): resample those counts.
    cell = (a.labels * 2 + right_a) * 2 + right_b
    shape = (-1, len(a.class_names), 2, 2)
    cells = np.bincount(cell, minlength=4 * shape[1]).reshape(shape)[0]
    draw = Resampler(len(cell), groups, samples, seed)
    resampled = draw.cells(cell, 4 * shape[1]).reshape(shape)
    moved = (resampled[..., 0, 1] - resampled[..., 1, 0]).sum(axis=-1)
    (wrong, only_b), (only_a, right) = cells.sum(axis=0).tolist()
    return Comparison(
        names=names,
        n=len(cell),
        groups=None if groups is None else draw.size,
        accuracy=(
            Proportion.of(right + only_a, len(cell), confidence),
            Proportion.of(right + only_b, len(cell), confidence),
        ),
        balanced_accuracy=_balanced(cells),
        both_right=right,
        only_first=only_a,
        only_second=only_b,
        both_wrong=wrong,
        p_value=mcnemar(only_a, only_b),
        accuracy_difference=draw.interval(
            (only_b - only_a) / len(cell), moved / resampled.sum(axis=(1, 2, 3)), confidence
        ),
        balanced_accuracy_difference=draw.interval(
            float(_balanced_difference(cells)), _balanced_difference(resampled), confidence
        ),
    )
