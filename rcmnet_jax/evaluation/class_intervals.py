"""Bootstrap limits of what `Evaluation` gives as points: F1 and AUC of each class, and the ECE."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rcmnet_jax.evaluation import scores
from rcmnet_jax.evaluation.calibration import expected_calibration_error, reliability_bins
from rcmnet_jax.evaluation.checks import check_predictions
from rcmnet_jax.evaluation.intervals import Interval, Resampler


@dataclass(frozen=True)
class ClassIntervals:
    """One class; None in an interval where the score is not defined."""

    f1: Interval
    auc: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"f1": self.f1.to_dict(), "auc": self.auc.to_dict()}


def class_intervals(
    labels: Any,
    probabilities: Any,
    *,
    groups: Sequence[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> tuple[ClassIntervals, ...]:
    """Percentile bootstrap of F1 and one-vs-rest AUC, one pair a class.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        groups: patient or slide of each image, resampled whole.
        samples: resamples.
        seed: of the draws.
        confidence: in (0, 1).

    Returns:
        K pairs, in the order of the columns.

    Raises:
        DataError: predictions or groups of the wrong form.
        UserError: samples or confidence out of range.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    size = probabilities.shape[1]
    draw = Resampler(len(labels), groups, samples, seed)
    cell = labels * size + scores.predict(probabilities)
    observed = np.bincount(cell, minlength=size**2).reshape(size, size)
    f1 = scores.f1(draw.cells(cell, size**2).reshape(-1, size, size))
    areas = [scores.weighted_auc(labels, probabilities, weight) for weight in draw.weights()]
    auc = np.concatenate(areas, axis=1)
    f1_now, auc_now = scores.f1(observed), scores.one_vs_rest_auc(labels, probabilities)
    return tuple(
        ClassIntervals(
            f1=draw.interval(float(f1_now[k]), f1[:, k], confidence),
            auc=draw.interval(float(auc_now[k]), auc[k], confidence),
        )
        for k in range(size)
    )


def ece_interval(
    labels: Any,
    probabilities: Any,
    *,
    bins: int = 15,
    groups: Sequence[Any] | None = None,
    samples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Interval:
    """Percentile bootstrap of the expected calibration error in bins of equal width.

    The ECE is biased upwards in small samples (a perfectly honest model has one above 0), and the
    more so in resamples: the value may lie near the lower limit.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        bins: of equal width.
        groups: patient or slide of each image, resampled whole.
        samples: resamples.
        seed: of the draws.
        confidence: in (0, 1).

    Raises:
        DataError: predictions or groups of the wrong form.
        UserError: bins, samples or confidence out of range.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    draw = Resampler(len(labels), groups, samples, seed)
    edges = reliability_bins(labels, probabilities, bins).edges
    confident = probabilities.max(axis=1)
    index = np.searchsorted(edges[1:-1], confident, side="left")
    gap = (probabilities.argmax(axis=1) == labels) - confident
    # |sum of (right - confidence)| over a bin is count times |accuracy - confidence|.
    of_bin_MxN = (index == np.arange(bins)[:, None]) * gap
    drawn = [np.abs(of_bin_MxN @ w).sum(axis=0) / w.sum(axis=0) for w in draw.weights()]
    value = expected_calibration_error(labels, probabilities, bins)
    return draw.interval(value, np.concatenate(drawn), confidence)
