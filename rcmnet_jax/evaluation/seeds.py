"""Several training seeds: the summary of one network, and the comparison of two.

A test of one run against another speaks of those two runs: other seeds may give another answer.
Multi-reader studies in radiology have the same question, with readers for seeds and cases for
images, and `compare_seeds` uses their usual answer (Obuchowski & Rockette 1995; with readers nested
within tests, Hillis 2014, Statistics in Medicine 33:330).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation.checks import check_groups
from rcmnet_jax.evaluation.comparison import predicted_in_order_of
from rcmnet_jax.evaluation.intervals import check_confidence
from rcmnet_jax.evaluation.predictions import Predictions, read_predictions
from rcmnet_jax.evaluation.text_tables import align

Run = Predictions | Path | str


@dataclass(frozen=True)
class SeedSummary:
    """One score of several runs that differ in their seed only: mean, spread, interval of the mean.

    The interval is that of the mean over seeds on these test images: ``mean -+ t s / sqrt(n)``
    with n - 1 degrees of freedom. It says nothing about other images; the Wilson interval of each
    run's k/n does.
    """

    values: tuple[float, ...]
    mean: float
    sd: float | None
    """Sample standard deviation; None with one seed."""
    low: float | None
    high: float | None
    confidence: float

    @classmethod
    def of(cls, values: Sequence[float], confidence: float = 0.95) -> "SeedSummary":
        """Summarises one score of each seed.

        Raises:
            DataError: no values.
        """
        if not values:
            raise DataError("there are no runs to summarise: finish at least one seed")
        mean = statistics.fmean(values)
        if len(values) == 1:
            return cls(tuple(values), mean, None, None, None, confidence)
        sd = statistics.stdev(values)
        quantile = float(student_t.ppf(0.5 + confidence / 2, len(values) - 1))
        half = quantile * sd / math.sqrt(len(values))
        return cls(tuple(values), mean, sd, mean - half, mean + half, confidence)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "values": list(self.values)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SeedSummary":
        """The inverse of `to_dict`."""
        return cls(**{**values, "values": tuple(values["values"])})

    def text(self) -> str:
        """In percent, for a terminal."""
        if self.sd is None or self.low is None or self.high is None:
            return f"{100 * self.mean:.2f} %"
        return (
            f"{100 * self.mean:.2f} % mean of {len(self.values)} seeds, spread {100 * self.sd:.2f}"
            f" (95 % interval of the mean {100 * self.low:.2f} to {100 * self.high:.2f})"
        )


@dataclass(frozen=True)
class Difference:
    """A difference of means over seeds, with limits that hold for other seeds and other images."""

    value: float
    low: float | None
    """None, and so the others, where nothing varies and an error cannot be estimated."""
    high: float | None
    p_value: float | None
    """Two-sided, of no difference."""
    degrees: float | None
    """Degrees of freedom of Student's t; infinite where only images vary."""
    error_of_seeds: float
    """Standard error from what differs between seeds, the images' noise in one seed included."""
    error_of_images: float
    """Standard error from what all seeds share on these images."""


@dataclass(frozen=True)
class SeedsComparison:
    """Two networks, each trained with several seeds, on the same images; second minus first."""

    names: tuple[str, str]
    n: int
    groups: int | None
    right: tuple[tuple[int, ...], tuple[int, ...]]
    """Images that each seed gets right, of both networks."""
    accuracy: Difference
    balanced_accuracy: Difference
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "names": list(self.names),
            "n": self.n,
            "groups": self.groups,
            "right": [list(counts) for counts in self.right],
            "accuracy_difference": _json_ready(self.accuracy),
            "balanced_accuracy_difference": _json_ready(self.balanced_accuracy),
            "confidence": self.confidence,
        }

    def table(self) -> str:
        """The comparison for a terminal."""
        first, second = self.names
        rows = [["", "mean accuracy (%)", "k/n by seed"]]
        for name, right in zip(self.names, self.right, strict=True):
            counts = " ".join(f"{k}/{self.n}" for k in right)
            rows.append([name, f"{100 * float(np.mean(right)) / self.n:.2f}", counts])
        unit = "images" if self.groups is None else f"{self.groups} groups"
        return "\n".join(
            [
                *align(rows),
                "",
                f"{second} minus {first}, in points, over seeds and {unit}"
                f" ({100 * self.confidence:g} %):",
                *align(
                    [
                        ["  accuracy", *_shown(self.accuracy)],
                        ["  balanced accuracy", *_shown(self.balanced_accuracy)],
                    ]
                ),
            ]
        )


def compare_seeds(
    first: Sequence[Run],
    second: Sequence[Run],
    *,
    names: tuple[str, str] = ("A", "B"),
    groups: Sequence[Any] | None = None,
    confidence: float = 0.95,
) -> SeedsComparison:
    """Compares two networks over their seeds on the same test images, matched by file name.

    With r and r' seeds and accuracies Y, the difference of means has the variance::

        MS (1/r + 1/r') + max(Cov2 + Cov2' - 2 Cov3, 0)

    MS is the pooled variance of Y within a network; Cov2 the covariance over images of two seeds of
    one network, Cov3 of one seed of each. The first term is what seeds make (with the images' own
    noise for a single seed), the second what images make that all seeds share. It is compared with
    Student's t, of (variance)^2 / (first term^2 / (r + r' - 2)) degrees of freedom.

    Args:
        first: predictions of each seed, or the CSV files of them.
        second: the same of the other network; any number of seeds from two on.
        names: what to call the two in tables.
        groups: patient or slide of each image, in the order of the first run of `first`.
        confidence: of the limits, in (0, 1).

    Returns:
        The comparison; differences are second minus first.

    Raises:
        DataError: runs differ in images, labels or classes, or a file cannot be read.
        UserError: fewer than two seeds of a network, or confidence out of range.
    """
    if min(len(first), len(second)) < 2:
        raise UserError(
            f"seeds are compared from two of each network on, not {len(first)} of {names[0]} and"
            f" {len(second)} of {names[1]}: use compare for two runs"
        )
    check_confidence(confidence)
    runs = [
        (name, run if isinstance(run, Predictions) else read_predictions(run))
        for name, runs in zip(names, (first, second), strict=True)
        for run in runs
    ]
    reference_name, reference = runs[0]
    labels = reference.labels
    right_RxN = np.array(
        [
            predicted_in_order_of(reference, run, (reference_name, name)) == labels
            for name, run in runs
        ]
    )
    group_of, units = np.arange(len(labels)), len(labels)
    if groups is not None:
        group_of, units = check_groups(groups, len(labels))
    support = np.bincount(labels, minlength=len(reference.class_names))
    # An image's weight in the mean of recalls; in the accuracy all weigh the same.
    balancing = 1 / (np.count_nonzero(support) * support[labels])
    differences = {
        score: _difference(right_RxN, weights, center, len(first), group_of, units, confidence)
        for score, weights, center in (
            ("accuracy", np.full(len(labels), 1 / len(labels)), np.zeros_like(labels)),
            ("balanced_accuracy", balancing, labels),
        )
    }
    counts = right_RxN.sum(axis=1).tolist()
    return SeedsComparison(
        names=names,
        n=len(labels),
        groups=None if groups is None else units,
        right=(tuple(counts[: len(first)]), tuple(counts[len(first) :])),
        confidence=confidence,
        **differences,
    )


def _difference(
    right_RxN: np.ndarray,
    weights: np.ndarray,
    stratum_of: np.ndarray,
    firsts: int,
    group_of: np.ndarray,
    units: int,
    confidence: float,
) -> Difference:
    """The difference of a weighted mean of right answers, and its limits.

    Args:
        right_RxN: what each run gets right, the first network's runs first.
        weights: (N,) of each image; they add up to 1.
        stratum_of: (N,) images whose own mean is the expectation: their class, or one for all.
        firsts: runs of the first network.
        group_of: (N,) in [0, units), what varies together.
        units: how many of these.
        confidence: of the limits.
    """
    scores = right_RxN @ weights
    a, b = scores[:firsts], scores[firsts:]
    value = float(b.mean() - a.mean())
    seeds = len(scores) - 2
    squares = ((a - a.mean()) ** 2).sum() + ((b - b.mean()) ** 2).sum()
    of_seeds = float(squares / seeds * (1 / len(a) + 1 / len(b)))
    covariance = _covariance(right_RxN, weights, stratum_of, group_of, units)
    of_images = max(
        _mean_off_diagonal(covariance[:firsts, :firsts])
        + _mean_off_diagonal(covariance[firsts:, firsts:])
        - 2 * float(covariance[:firsts, firsts:].mean()),
        0.0,
    )
    variance = of_seeds + of_images
    spread = {"error_of_seeds": math.sqrt(of_seeds), "error_of_images": math.sqrt(of_images)}
    if variance == 0 or units < 2:
        return Difference(value, None, None, None, None, **spread)
    degrees = variance**2 * seeds / of_seeds**2 if of_seeds else math.inf
    error = math.sqrt(variance)
    half = float(student_t.ppf(0.5 + confidence / 2, degrees)) * error
    p_value = float(2 * student_t.sf(abs(value) / error, degrees))
    return Difference(value, value - half, value + half, p_value, degrees, **spread)


def _covariance(right_RxN, weights, stratum_of, group_of, units: int) -> np.ndarray:
    """(R, R) covariance over images of the runs' scores, from the influence of each unit."""
    strata = stratum_of.max() + 1
    size = np.bincount(stratum_of, minlength=strata)
    influence = []
    for right in right_RxN:
        mean = np.bincount(stratum_of, right, minlength=strata) / np.maximum(size, 1)
        influence.append(np.bincount(group_of, weights * (right - mean[stratum_of]), units))
    influence_RxU = np.array(influence)
    return influence_RxU @ influence_RxU.T * (units / max(units - 1, 1))


def _mean_off_diagonal(matrix: np.ndarray) -> float:
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1)))


def _shown(difference: Difference) -> list[str]:
    value = f"{100 * difference.value:+.2f}"
    if difference.low is None or difference.high is None or difference.p_value is None:
        return [value, "nothing varies", ""]
    limits = f"[{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    return [value, limits, f"p = {difference.p_value:.3g}"]


def _json_ready(difference: Difference) -> dict[str, Any]:
    content = asdict(difference)
    # JSON has no infinity.
    if content["degrees"] == math.inf:
        content["degrees"] = None
    return content
