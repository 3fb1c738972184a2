"""Confidence intervals: Wilson for proportions, the percentile bootstrap for everything else.

The Wilson interval and the bootstrap over images take images as independent. Cells of one patient
are not: give `groups` where a manifest knows them, and whole patients are resampled.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError, UserError
from rcmnet_jax.evaluation import scores
from rcmnet_jax.evaluation.checks import check_groups, check_predictions

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
STATISTICS = (*CONFUSION_STATISTICS, *MEAN_STATISTICS, "macro_auc")

# Weights of so many image-samples at a time: 4 MB of float64 stays in cache, any N fits in memory.
_CHUNK = 1 << 19

Statistic = str | Callable[[np.ndarray, np.ndarray], float]


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, not {confidence}; 0.95 is usual")


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion.

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n) with p = k/n, z the normal quantile
    (Wilson 1927). Unlike p -+ z s it stays inside [0, 1] and is not empty at k = 0 or k = n.

    Args:
        k: successes, 0 <= k <= n.
        n: trials; with none the interval is all of [0, 1].
        confidence: in (0, 1).

    Returns:
        Lower and upper limit.

    Raises:
        UserError: counts or confidence out of range.
    """
    _check_confidence(confidence)
    if not 0 <= k <= n:
        raise UserError(f"a proportion needs 0 <= k <= n, not {k}/{n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = k / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends are exactly 0 and 1 in the algebra; rounding would leave 1e-17.
    low = 0.0 if k == 0 else (centre - spread) / scale
    high = 1.0 if k == n else (centre + spread) / scale
    return low, high


@dataclass(frozen=True)
class Proportion:
    """k of n, with its Wilson limits."""

    k: int
    n: int
    low: float
    high: float
    confidence: float = 0.95

    @classmethod
    def of(cls, k: int, n: int, confidence: float = 0.95) -> "Proportion":
        """The proportion of two counts; see `wilson`."""
        low, high = wilson(int(k), int(n), confidence)
        return cls(int(k), int(n), low, high, confidence)

    @property
    def value(self) -> float | None:
        """k / n, or None for 0/0."""
        return self.k / self.n if self.n else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the value."""
        return {"value": self.value, **asdict(self)}


@dataclass(frozen=True)
class Interval:
    """A statistic with bootstrap limits; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float
    samples: int
    """Resamples in which the statistic was defined."""
    unit: str
    """What was resampled: "images" or "groups"."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


class Resampler:
    """Draws with replacement: images, or groups whole.

    Args:
        count: N, the number of images.
        groups: one identifier for each image, or None.
        samples: S, the number of resamples.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        UserError: no samples, or groups that do not fit the images.
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
        _check_confidence(confidence)
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
        UserError: unknown statistic, or arguments out of range.
        DataError: predictions or groups of the wrong form.

    Note:
        With no error at all every resample is perfect too, and the interval is [1, 1]; the Wilson
        interval of the accuracy is the one to quote then.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    num_classes = probabilities.shape[1]
    draw = Resampler(len(labels), groups, samples, seed)
    if callable(statistic):
        value = float(statistic(labels, probabilities))
        values = np.array([statistic(labels[i], probabilities[i]) for i in draw.indices()])
        return draw.interval(value, values.astype(np.float64), confidence)
    if statistic in CONFUSION_STATISTICS:
        score = CONFUSION_STATISTICS[statistic]
        cell = labels * num_classes + scores.predict(probabilities)
        observed = np.bincount(cell, minlength=num_classes**2).reshape(num_classes, num_classes)
        resampled = draw.cells(cell, num_classes**2).reshape(-1, num_classes, num_classes)
        return draw.interval(float(score(observed)), score(resampled), confidence)
    if statistic in MEAN_STATISTICS:
        each = MEAN_STATISTICS[statistic](labels, probabilities)
        means = np.concatenate([each @ w / w.sum(axis=0) for w in draw.weights()])
        return draw.interval(float(each.mean()), means, confidence)
    if statistic == "macro_auc":
        value = float(scores.macro_auc(scores.one_vs_rest_auc(labels, probabilities)))
        areas = [scores.weighted_auc(labels, probabilities, w) for w in draw.weights()]
        return draw.interval(value, scores.macro_auc(np.concatenate(areas, 1).T), confidence)
    raise DataError(f"unknown statistic {statistic!r}; choose from {', '.join(STATISTICS)}")
