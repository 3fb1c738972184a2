"""Are the probabilities honest? Reliability bins, expected calibration error, temperature."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.checks import check_labels, check_predictions, check_scores

Scheme = Literal["width", "mass"]

# Outside this range the fit says "almost certain" or "almost uniform", not a temperature.
TEMPERATURE_BOUNDS = (0.05, 20.0)


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """Confidence against accuracy, bin by bin; empty bins hold NaN."""

    scheme: str
    edges: np.ndarray
    """(M + 1,) limits of the bins, each (low, high]."""
    count: np.ndarray
    """(M,) images."""
    correct: np.ndarray
    """(M,) images classified correctly."""
    confidence: np.ndarray
    """(M,) mean probability of the predicted class."""
    accuracy: np.ndarray
    """(M,) correct / count."""

    @property
    def ece(self) -> float:
        """sum_m count_m / N |accuracy_m - confidence_m| (Guo et al. 2017, Eq. 3)."""
        filled = self.count > 0
        gap = np.abs(self.accuracy[filled] - self.confidence[filled])
        return float((self.count[filled] * gap).sum() / self.count.sum())


def reliability_bins(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 15, scheme: Scheme = "width"
) -> ReliabilityBins:
    """Group the images by the probability of their predicted class.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        bins: number of bins M.
        scheme: ``"width"``: equal widths over [0, 1], as Guo et al. 2017. ``"mass"``: limits at the
            quantiles of the confidence, so that bins hold about equal numbers (Nguyen and O'Connor
            2015); images of equal confidence share a bin, so there may be fewer bins than asked.

    Returns:
        The bins. The order of the images does not matter.

    Raises:
        UserError: no bins, or an unknown scheme.
        DataError: predictions of the wrong form.
    """
    labels, probabilities = check_predictions(labels, probabilities)
    if bins < 1:
        raise UserError(f"reliability needs at least 1 bin, not {bins}; 15 is usual")
    confidence = probabilities.max(axis=1)
    hit = probabilities.argmax(axis=1) == labels
    if scheme == "width":
        edges = np.linspace(0.0, 1.0, bins + 1)
    elif scheme == "mass":
        inner = np.quantile(confidence, np.linspace(0.0, 1.0, bins + 1)[1:-1])
        # A limit at the maximum would leave an empty last bin.
        edges = np.r_[0.0, np.unique(inner[inner < confidence.max()]), 1.0]
    else:
        raise UserError(f"unknown binning {scheme!r}; choose width or mass")
    index = np.searchsorted(edges[1:-1], confidence, side="left")  # bins are (low, high]
    size = len(edges) - 1
    count = np.bincount(index, minlength=size)
    safe = np.where(count > 0, count, 1)

    def average(values: np.ndarray) -> np.ndarray:
        sums = np.bincount(index, weights=values, minlength=size)
        return np.where(count > 0, sums / safe, np.nan)

    correct = np.bincount(index[hit], minlength=size)
    return ReliabilityBins(scheme, edges, count, correct, average(confidence), average(hit))


def expected_calibration_error(
    labels: np.ndarray, probabilities: np.ndarray, bins: int = 15, scheme: Scheme = "width"
) -> float:
    """ECE of the top label (Guo et al. 2017, Eq. 3); arguments as in `reliability_bins`."""
    return reliability_bins(labels, probabilities, bins, scheme).ece


def apply_temperature(logits: Any, temperature: float) -> np.ndarray:
    """softmax(logits / temperature), in float64 (Guo et al. 2017, Eq. 9).

    Args:
        logits: (N, K).
        temperature: > 0; above 1 softens, below 1 sharpens, and the predicted class stays.

    Returns:
        (N, K) float64 probabilities.

    Raises:
        UserError: the temperature is not a positive number.
        DataError: logits of the wrong form.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise UserError(f"temperature must be a positive number, not {temperature}; 1 is none")
    logits = check_scores(logits, "logits", np.arange(len(logits)))
    scaled = logits / temperature
    weight = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def fit_temperature(logits: Any, labels: Any) -> float:
    """The temperature with the lowest negative log-likelihood (Guo et al. 2017, section 4.2).

    In b = 1 / T the mean NLL is convex, with slope mean(E_p[z] - z_label) and curvature
    mean(Var_p[z]): Newton's method, kept inside a bracket that the sign of the slope halves.

    Args:
        logits: (N, K), of validation images: never of the test set that is then scored.
        labels: (N,) int in [0, K).

    Returns:
        T in `TEMPERATURE_BOUNDS`. A bound itself where the optimum lies outside, for instance
        when every image is right; 1 where the logits say nothing.

    Raises:
        DataError: logits or labels of the wrong form.
    """
    logits = check_scores(logits, "logits", labels)
    labels = check_labels(labels, logits.shape[1])
    logits = logits - logits.max(axis=1, keepdims=True)
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

    def slope(b: float) -> tuple[float, float]:
        p = apply_temperature(logits, 1 / b)
        mean = (p * logits).sum(axis=1)
        variance = (p * (logits - mean[:, None]) ** 2).sum(axis=1)
        return float((mean - own).mean()), float(variance.mean())

    if not np.any(logits):
        return 1.0
    low, high = 1 / TEMPERATURE_BOUNDS[1], 1 / TEMPERATURE_BOUNDS[0]
    if slope(low)[0] >= 0:
        return TEMPERATURE_BOUNDS[1]
    if slope(high)[0] <= 0:
        return TEMPERATURE_BOUNDS[0]
    b = 1.0
    for _ in range(100):
        first, second = slope(b)
        low, high = (b, high) if first < 0 else (low, b)
        step = b - first / second if second > 0 else low
        new = step if low < step < high else (low + high) / 2
        if abs(new - b) <= 1e-12 * b:
            break
        b = new
    return 1 / b
