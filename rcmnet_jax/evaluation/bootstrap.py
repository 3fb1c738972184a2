"""Percentile bootstrap intervals, over images or over whole groups such as patients."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation import scores
from rcmnet_jax.evaluation.calibration import BINS, expected_calibration_error
from rcmnet_jax.evaluation.checks import check_groups, check_predictions
from rcmnet_jax.evaluation.intervals import Interval, check_confidence

# Named statistics have a vectorised path; a callable (labels, probabilities) -> float has not.
CONFUSION_STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "accuracy": scores.accuracy,
    "balanced_accuracy": scores.balanced_accuracy,
    "macro_f1": scores.macro_f1,
}
MEAN_STATISTICS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "nll": scores.negative_log_likelihood,
    "brier": scores.brier,
}
STATISTICS = (*CONFUSION_STATISTICS, *MEAN_STATISTICS, "macro_auc", "ece")

# Image weights held at a time: 4 MB of float64 stays in cache, and any N fits in memory.
_CHUNK = 1 << 19

Statistic = str | Callable[[np.ndarray, np.ndarray], float]


class Resampler:
    """Draws with replacement: images, or groups whole.

    Args:
        count: N, the number of images.
        groups: one identifier for each image, or None.
        samples: S, the number of resamples.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        UserError: no samples.
        DataError: groups that do not fit the images.
    """

    def __init__(self, count: int, groups: Sequence[Any] | None, samples: int, seed: int) -> None:
        if samples < 1:
            raise UserError(f"the bootstrap needs at least 1 sample, not {samples}; 2000 is usual")
        self.count, self.samples, self.seed = count, samples, seed
        self.unit = "images" if groups is None else "groups"
        self.group_of: np.ndarray = np.arange(count)
        self.size = count
        if groups is not None:
            self.group_of, self.size = check_groups(groups, count)

    def _draws(self, rng: np.random.Generator, samples: int) -> np.ndarray:
        """(size, samples): how often each unit was drawn."""
        drawn = rng.integers(self.size, size=(samples, self.size))
        flat = (drawn + np.arange(samples)[:, None] * self.size).ravel()
        counts = np.bincount(flat, minlength=samples * self.size)
        return counts.reshape(samples, self.size).T.astype(np.float64)

    def weights(self) -> Iterator[np.ndarray]:
        """Image weights in chunks of (N, s); the s add up to S."""
        rng = np.random.default_rng(self.seed)
        step = max(1, _CHUNK // self.count)
        for start in range(0, self.samples, step):
            yield self._draws(rng, min(step, self.samples - start))[self.group_of]

    def cells(self, cell_of: np.ndarray, num_cells: int) -> np.ndarray:
        """Resampled counts of images by cell, without touching single images.

        Args:
            cell_of: (N,) int in [0, num_cells), for instance the confusion matrix's cell.
            num_cells: M.

        Returns:
            (S, M) float64 whole numbers.
        """
        rng = np.random.default_rng(self.seed)
        if self.unit == "images":
            # N draws from the observed cells are multinomial: the same law as drawing images.
            share = np.bincount(cell_of, minlength=num_cells) / self.count
            return rng.multinomial(self.count, share, size=self.samples).astype(np.float64)
        flat = self.group_of * num_cells + cell_of
        table = np.bincount(flat, minlength=self.size * num_cells).astype(np.float64)
        return self._draws(rng, self.samples).T @ table.reshape(self.size, num_cells)

    def indices(self) -> Iterator[np.ndarray]:
        """S index vectors, for statistics that must see the images."""
        rng = np.random.default_rng(self.seed)
        members = np.split(
            np.argsort(self.group_of, kind="stable"), np.cumsum(np.bincount(self.group_of))[:-1]
        )
        for _ in range(self.samples):
            drawn = rng.integers(self.size, size=self.size)
            yield np.concatenate([members[unit] for unit in drawn])

    def interval(self, value: float, resampled: np.ndarray, confidence: float) -> Interval:
        """Percentile limits; none from a single unit, which would claim certainty."""
        check_confidence(confidence)
        defined = resampled[~np.isnan(resampled)]
        low, high = None, None
        if self.size > 1 and defined.size and not math.isnan(value):
            tail = (1 - confidence) / 2
            low, high = (float(q) for q in np.quantile(defined, [tail, 1 - tail]))
        shown = None if math.isnan(value) else float(value)
        return Interval(shown, low, high, confidence, int(defined.size), self.unit)


def bootstrap(
    labels: np.ndarray,
    probabilities: np.ndarray,
    statistic: Statistic,
    *,
    groups: Sequence[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap of a statistic (Efron 1979).

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        statistic: a name of `STATISTICS`, or a function of (labels, probabilities), NaN where it
            is undefined; a function is called once a sample.
        groups: one patient or slide identifier for each image; groups are then resampled whole.
        samples: number of resamples.
        seed: of the draws.
        confidence: in (0, 1).

    Returns:
        The observed value with its limits. One group alone has no limits.

    Raises:
        UserError: arguments out of range.
        DataError: unknown statistic, or predictions or groups of the wrong form.

    Note:
        Without any error every resample is perfect too, and the interval is [1, 1]; quote the
        Wilson interval of the accuracy then. The ECE is biased upwards in small samples, and more
        so in resamples: its value may lie near the lower limit.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    draw = Resampler(len(labels), groups, samples, seed)
    if callable(statistic):
        value = float(statistic(labels, probabilities))
        values = np.array([statistic(labels[i], probabilities[i]) for i in draw.indices()])
        return draw.interval(value, values.astype(np.float64), confidence)
    if statistic in CONFUSION_STATISTICS:
        score = CONFUSION_STATISTICS[statistic]
        observed, resampled = _confusions(labels, probabilities, draw)
        return draw.interval(float(score(observed)), score(resampled), confidence)
    if statistic in MEAN_STATISTICS:
        each = MEAN_STATISTICS[statistic](labels, probabilities)
        means = np.concatenate([each @ w / w.sum(axis=0) for w in draw.weights()])
        return draw.interval(float(each.mean()), means, confidence)
    if statistic == "macro_auc":
        value = float(scores.macro_auc(scores.one_vs_rest_auc(labels, probabilities)))
        areas = _areas(labels, probabilities, draw)
        return draw.interval(value, scores.macro_auc(areas.T), confidence)
    if statistic == "ece":
        value = expected_calibration_error(labels, probabilities)
        return draw.interval(value, _resampled_ece(labels, probabilities, draw), confidence)
    raise DataError(f"unknown statistic {statistic!r}; choose from {', '.join(STATISTICS)}")


def _confusions(
    labels: np.ndarray, probabilities: np.ndarray, draw: Resampler
) -> tuple[np.ndarray, np.ndarray]:
    """The observed (K, K) confusion matrix, and (S, K, K) resampled ones."""
    size = probabilities.shape[1]
    cell = labels * size + scores.predict(probabilities)
    observed = np.bincount(cell, minlength=size**2).reshape(size, size)
    return observed, draw.cells(cell, size**2).reshape(-1, size, size)


def _areas(labels: np.ndarray, probabilities: np.ndarray, draw: Resampler) -> np.ndarray:
    """(K, S) one-vs-rest AUC of each resample."""
    areas = [scores.weighted_auc(labels, probabilities, w) for w in draw.weights()]
    return np.concatenate(areas, axis=1)


def _resampled_ece(labels: np.ndarray, probabilities: np.ndarray, draw: Resampler) -> np.ndarray:
    """(S,) ECE of each resample, in `BINS` bins of equal width."""
    confident = probabilities.max(axis=1)
    inner_edges = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
    index = np.searchsorted(inner_edges, confident, side="left")
    gap = (probabilities.argmax(axis=1) == labels) - confident
    # |sum of (right - confidence)| over a bin is count times |accuracy - confidence|.
    gap_by_bin_MxN = (index == np.arange(BINS)[:, None]) * gap
    drawn = [np.abs(gap_by_bin_MxN @ w).sum(axis=0) / w.sum(axis=0) for w in draw.weights()]
    return np.concatenate(drawn)


@dataclass(frozen=True)
class ClassIntervals:
    """Intervals of one class; their numbers are None where the score is not defined."""

    f1: Interval
    auc: Interval


def class_intervals(
    labels: Any,
    probabilities: Any,
    *,
    groups: Sequence[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[ClassIntervals, ...]:
    """Percentile bootstrap of F1 and one-vs-rest AUC of each class.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        groups: patient or slide of each image, resampled whole.
        samples: number of resamples.
        seed: of the draws.
        confidence: in (0, 1).

    Returns:
        K pairs, in the order of the columns.

    Raises:
        DataError: predictions or groups of the wrong form.
        UserError: samples or confidence out of range.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    draw = Resampler(len(labels), groups, samples, seed)
    observed, resampled = _confusions(labels, probabilities, draw)
    f1, f1_drawn = scores.f1(observed), scores.f1(resampled)
    auc = scores.one_vs_rest_auc(labels, probabilities)
    auc_drawn = _areas(labels, probabilities, draw)
    return tuple(
        ClassIntervals(
            f1=draw.interval(float(f1[k]), f1_drawn[:, k], confidence),
            auc=draw.interval(float(auc[k]), auc_drawn[k], confidence),
        )
        for k in range(probabilities.shape[1])
    )
