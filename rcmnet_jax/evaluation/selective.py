"""Which images should a person look at? Risk against coverage, and a threshold for a budget.

Images are ranked by the probability of their predicted class. Those below a threshold go to review,
the rest are accepted; the risk is the share of errors among the accepted (El-Yaniv and Wiener
2010). The threshold for a budget comes from validation images and is then applied to the others,
as it would be in use.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.checks import check_predictions
from rcmnet_jax.evaluation.intervals import Proportion


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The curve, from the most confident image to all of them; equal confidences are one step."""

    coverage: np.ndarray
    """(M,) share accepted, ascending, the last 1."""
    risk: np.ndarray
    """(M,) share of errors among the accepted."""
    threshold: np.ndarray
    """(M,) lowest confidence accepted."""
    area: float
    """Mean risk over all coverages (AURC); lower is better."""
    best_area: float
    """The same if every error had less confidence than every right answer."""

    def to_dict(self, points: int = 101) -> dict[str, Any]:
        """JSON-ready; the curve thinned to about so many points."""
        keep = np.unique(np.linspace(0, len(self.coverage) - 1, points).round().astype(int))
        return {
            "aurc": self.area,
            "aurc_of_perfect_ranking": self.best_area,
            "coverage": self.coverage[keep].tolist(),
            "risk": self.risk[keep].tolist(),
            "threshold": self.threshold[keep].tolist(),
        }


@dataclass(frozen=True)
class Review:
    """What a threshold does to a set of images."""

    budget: float
    threshold: float
    """Images whose confidence is lower go to review."""
    chosen_on: str
    reviewed: Proportion
    errors_left: Proportion
    """Errors among the accepted images."""
    errors_caught: Proportion
    """Reviewed errors among all errors."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "budget": self.budget,
            "threshold": self.threshold,
            "chosen_on": self.chosen_on,
            "reviewed": self.reviewed.to_dict(),
            "errors_left": self.errors_left.to_dict(),
            "errors_caught": self.errors_caught.to_dict(),
        }


def risk_coverage(labels: Any, probabilities: Any) -> RiskCoverage:
    """The risk-coverage curve of the largest probability.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.

    Returns:
        The curve and its area. Within a group of equal confidences errors count evenly.

    Raises:
        DataError: predictions of the wrong form.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    confidence = probabilities.max(axis=1)
    wrong = probabilities.argmax(axis=1) != labels
    value, inverse, count = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.bincount(inverse, weights=wrong, minlength=len(value))
    accepted = np.cumsum(count)
    return RiskCoverage(
        coverage=accepted / len(labels),
        risk=np.cumsum(errors) / accepted,
        threshold=-value,
        area=_area(np.repeat(errors / count, count)),
        best_area=_area(np.sort(wrong)),
    )


def _area(wrong_in_order: np.ndarray) -> float:
    """Mean over n = 1..N of the share of errors among the first n."""
    ranks = np.arange(1, len(wrong_in_order) + 1)
    return float((np.cumsum(wrong_in_order) / ranks).mean())


def review_threshold(probabilities: Any, budget: float) -> float:
    """The confidence below which at most a share `budget` of these images lies.

    Args:
        probabilities: (N, K), of validation images.
        budget: share of images that people can look at, in [0, 1).

    Raises:
        UserError: no share, or no images.
    """
    if not 0 <= budget < 1:
        raise UserError(f"the review budget is a share of the images in [0, 1), not {budget}")
    confidence = np.sort(np.asarray(probabilities, np.float64).max(axis=1))
    if not len(confidence):
        raise UserError("a review threshold needs images to be chosen on")
    return float(confidence[int(budget * len(confidence))])


def apply_review(
    labels: Any, probabilities: Any, threshold: float, *, budget: float, chosen_on: str
) -> Review:
    """Counts what a threshold sends to review and what it lets through.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        threshold: from `review_threshold`.
        budget: that it was chosen for.
        chosen_on: which images it was chosen on, for the record.

    Raises:
        DataError: predictions of the wrong form.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    wrong = probabilities.argmax(axis=1) != labels
    reviewed = probabilities.max(axis=1) < threshold
    count, accepted = len(labels), int((~reviewed).sum())
    return Review(
        budget=budget,
        threshold=threshold,
        chosen_on=chosen_on,
        reviewed=Proportion.of(int(reviewed.sum()), count),
        errors_left=Proportion.of(int((wrong & ~reviewed).sum()), accepted),
        errors_caught=Proportion.of(int((wrong & reviewed).sum()), int(wrong.sum())),
    )
