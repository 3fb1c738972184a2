"""Whether probabilities can be taken at their word: reliability bins, ECE, temperature scaling."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation.checks import check_labels, check_predictions, check_scores
from rcmnet_jax.evaluation.minimums import TEMPERATURE_IMAGES, shortage

Scheme = Literal["width", "mass"]

# Bins of every calibration error that is reported.
BINS = 15
# Outside this range the fit says "almost certain" or "almost uniform", not a temperature.
TEMPERATURE_BOUNDS = (0.05, 20.0)
# Of one degree of freedom, for the likelihood ratio of a temperature against 1.
_CHI_SQUARE_95 = 3.841


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
    labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS, scheme: Scheme = "width"
) -> ReliabilityBins:
    """Group the images by the probability of their predicted class.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K), rows sum to 1.
        bins: number of bins M.
        scheme: ``"width"``: equal widths over [0, 1], as Guo et al. 2017. ``"mass"``: limits at the
            quantiles of the confidence, so that bins hold about equal numbers (Nguyen and O'Connor
            2015); images of equal confidence share a bin, so there may be fewer than `bins`.

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
    labels: np.ndarray, probabilities: np.ndarray, bins: int = BINS, scheme: Scheme = "width"
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


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature, or why there is none."""

    temperature: float | None
    """None where there were too few images to fit one; 1 where no other is shown to be better."""
    images: int
    """Images it was fitted on."""
    reason: str | None = None
    """Why the temperature is None or was left at 1; None for a fitted one."""


def fit_temperature(logits: Any, labels: Any) -> TemperatureFit:
    """The temperature with the lowest negative log-likelihood (Guo et al. 2017, section 4.2).

    In b = 1 / T the mean NLL is convex, with slope mean(E_p[z] - z_label): the fit is its root.
    The temperature stays 1 unless the likelihood ratio of the fit against 1 speaks for it at the
    5 % level. Without that test half of the fits to honest probabilities make them worse.

    Args:
        logits: (N, K), of validation images: never of the test set that is then scored.
        labels: (N,) int in [0, K).

    Returns:
        The fit: T in `TEMPERATURE_BOUNDS`, a bound itself where the optimum lies outside; 1 where
        all images are right or nothing shows that another T is better; None for fewer than
        `TEMPERATURE_IMAGES` images.

    Raises:
        DataError: logits or labels of the wrong form.
    """
    logits = check_scores(logits, "logits", labels)
    labels = check_labels(labels, logits.shape[1])
    count = len(labels)
    too_few = shortage("a temperature", count, TEMPERATURE_IMAGES)
    if too_few:
        return TemperatureFit(None, count, too_few)
    if (logits.argmax(axis=1) == labels).all():
        # The best temperature would be 0, and right answers alone are no evidence of certainty.
        reason = f"all {count} validation images are right, which does not show how sure to be"
        return TemperatureFit(1.0, count, reason)
    temperature = _most_likely_temperature(logits, labels)
    gain = _log_likelihood(logits, labels, temperature) - _log_likelihood(logits, labels, 1.0)
    if 2 * gain < _CHI_SQUARE_95:
        reason = f"{count} validation images do not show that another temperature is better"
        return TemperatureFit(1.0, count, reason)
    return TemperatureFit(temperature, count)


def _most_likely_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    logits = logits - logits.max(axis=1, keepdims=True)
    if not np.any(logits):
        return 1.0
    own = np.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

    def slope(b: float) -> float:
        expected = (apply_temperature(logits, 1 / b) * logits).sum(axis=1)
        return float((expected - own).mean())

    coldest, hottest = TEMPERATURE_BOUNDS
    if slope(1 / hottest) >= 0:
        return hottest
    if slope(1 / coldest) <= 0:
        return coldest
    # Here, since every prediction imports this module and none fits: half a second.
    from scipy.optimize import brentq

    return 1 / brentq(slope, 1 / hottest, 1 / coldest, xtol=1e-14)


def _log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Sum over the images, in nats."""
    scaled = logits / temperature
    own = np.take_along_axis(scaled, labels[:, None], axis=1)[:, 0]
    return float((own - np.logaddexp.reduce(scaled, axis=1)).sum())
