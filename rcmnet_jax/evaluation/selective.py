"""Which images a person should look at: risk against coverage, and a threshold for a review budget.

Images are ranked by the probability of their predicted class. Those below a threshold go to review,
the rest are accepted; the risk is the share of errors among the accepted (El-Yaniv and Wiener
2010). The threshold for a budget is chosen on validation images and then applied to the others, as
it would be in use.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.checks import check_predictions
from rcmnet_jax.evaluation.intervals import Proportion
from rcmnet_jax.evaluation.minimums import review_images, shortage


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
        """JSON-ready, with about `points` points of the curve."""
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
    """What the threshold of a review budget does to a set of images."""

    budget: float
    chosen_on: str
    threshold: float | None = None
    """Images whose confidence is lower go to review. None, and so are the counts, where there were
    too few images to choose it on."""
    reason: str | None = None
    """Why there is no threshold."""
    reviewed: Proportion | None = None
    errors_left: Proportion | None = None
    """Errors among the accepted images."""
    errors_caught: Proportion | None = None
    """Reviewed errors among all errors."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        counts = {
            "reviewed": self.reviewed,
            "errors_left": self.errors_left,
            "errors_caught": self.errors_caught,
        }
        return {
            "budget": self.budget,
            "threshold": self.threshold,
            "reason": self.reason,
            "chosen_on": self.chosen_on,
            **{name: None if count is None else count.to_dict() for name, count in counts.items()},
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
        UserError: no share, or fewer images than `review_images`.
    """
    if not 0 <= budget < 1:
        raise UserError(f"the review budget is a share of the images in [0, 1), not {budget}")
    confidence = np.sort(np.asarray(probabilities, np.float64).max(axis=1))
    too_few = review_shortage(len(confidence), budget)
    if too_few:
        raise UserError(f"{too_few}: validate on more images, or choose a larger budget")
    return float(confidence[int(budget * len(confidence))])


def review_shortage(count: int, budget: float) -> str | None:
    """Why `count` images are too few to choose the threshold of a budget on; None if they are not.

    Args:
        count: validation images at hand.
        budget: share of images that people can look at, in [0, 1).
    """
    return shortage(
        f"a threshold for a review budget of {100 * budget:g} %", count, review_images(budget)
    )


def review_at_budget(
    labels: Any, probabilities: Any, budget: float, *, validation: Any, chosen_on: str
) -> Review:
    """Chooses the threshold of a budget, and counts what it sends to review and lets through.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        budget: share of images that people can look at, in [0, 1).
        validation: (M, K) probabilities of the images to choose the threshold on.
        chosen_on: which images these are, for the record.

    Raises:
        DataError: predictions of the wrong form.
        UserError: the budget is no share.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    too_few = review_shortage(len(validation), budget)
    if too_few:
        return Review(budget, chosen_on, reason=too_few)
    threshold = review_threshold(validation, budget)
    wrong = probabilities.argmax(axis=1) != labels
    reviewed = probabilities.max(axis=1) < threshold
    count, accepted = len(labels), int((~reviewed).sum())
    return Review(
        budget,
        chosen_on,
        threshold,
        reviewed=Proportion.of(int(reviewed.sum()), count),
        errors_left=Proportion.of(int((wrong & ~reviewed).sum()), accepted),
        errors_caught=Proportion.of(int((wrong & reviewed).sum()), int(wrong.sum())),
    )
