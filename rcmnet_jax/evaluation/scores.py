"""Classification scores as plain numpy functions.

Scores of a confusion matrix take it as (..., K, K), so that the bootstrap scores two thousand
resampled matrices with the functions that score the observed one.

Rules for undefined values, everywhere in this package:

- predictions: the largest probability; of equal ones the class of lowest index.
- 0/0 as a precision, recall or F1 of one class is NaN here and None in reports. Where a mean needs
  a number the rules are scikit-learn's: a class that is present but never predicted counts as 0
  in macro-F1 (``zero_division=0``), a class neither present nor predicted is left out of macro-F1,
  and a class without images is left out of the balanced accuracy.
- one-vs-rest AUC needs images of the class and others; else NaN, and left out of the macro mean.
"""

import numpy as np

# As scikit-learn's log_loss in float64: a probability of exactly 0 costs 36 nats, not infinity.
_SMALLEST = float(np.finfo(np.float64).eps)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Quotient, NaN where the denominator is 0."""
    defined = denominator > 0
    return np.where(defined, numerator / np.where(defined, denominator, 1), np.nan)


def _mean_defined(values: np.ndarray) -> np.ndarray:
    """Mean over the last axis without NaN; NaN where nothing is defined (nanmean would warn)."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=-1), defined.sum(axis=-1))


def predict(probabilities: np.ndarray) -> np.ndarray:
    """(N, K) -> (N,) the most probable class; ties go to the lowest index."""
    return np.argmax(probabilities, axis=1)


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Counts of (true, predicted).

    Args:
        labels: (N,) int in [0, K).
        predicted: (N,) int in [0, K).
        num_classes: K.

    Returns:
        (K, K) int64; rows are the true class, columns the predicted one.
    """
    cells = np.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def recall(confusion: np.ndarray) -> np.ndarray:
    """(..., K, K) -> (..., K): TP / (TP + FN); NaN for a class without images."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def precision(confusion: np.ndarray) -> np.ndarray:
    """(..., K, K) -> (..., K): TP / (TP + FP); NaN for a class never predicted."""
    return _ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-2))


def f1(confusion: np.ndarray) -> np.ndarray:
    """(..., K, K) -> (..., K): 2 TP / (2 TP + FP + FN); NaN if neither present nor predicted."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _ratio(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def accuracy(confusion: np.ndarray) -> np.ndarray:
    """(..., K, K) -> (...): the share of images on the diagonal."""
    hits = np.trace(confusion, axis1=-2, axis2=-1)
    return _ratio(hits, confusion.sum(axis=(-2, -1)))


def balanced_accuracy(confusion: np.ndarray) -> np.ndarray:
    """(..., K, K) -> (...): mean recall of the classes that have images."""
    return _mean_defined(recall(confusion))


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """(..., K, K) -> (...): mean F1 of the classes that are present or predicted."""
    return _mean_defined(f1(confusion))


def top_k_correct(labels: np.ndarray, probabilities: np.ndarray, k: int) -> np.ndarray:
    """Whether the true class is among the k most probable.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K).
        k: at least 1; more than K means K.

    Returns:
        (N,) bool. Equal probabilities rank by class index, so k=1 agrees with `predict`.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)
    index = np.arange(probabilities.shape[1])
    ahead = (probabilities > own) | ((probabilities == own) & (index < labels[:, None]))
    return ahead.sum(axis=1) < min(k, probabilities.shape[1])


def one_vs_rest_auc(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Area under the ROC curve of each class against all others.

    AUC = P(s+ > s-) + P(s+ = s-) / 2, the Mann-Whitney statistic (Hanley and McNeil 1982).

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K).

    Returns:
        (K,) float64; NaN for a class with no images or nothing but its own.
    """
    return weighted_auc(labels, probabilities, np.ones((len(labels), 1)))[:, 0]


def weighted_auc(
    labels: np.ndarray, probabilities: np.ndarray, weights_NxS: np.ndarray
) -> np.ndarray:
    """One-vs-rest AUC under S sets of image weights, as a bootstrap draws them.

    Args:
        labels: (N,) int in [0, K).
        probabilities: (N, K).
        weights_NxS: how often each image counts in each sample.

    Returns:
        (K, S) float64; NaN where a class or its rest has no weight.
    """
    num_classes = probabilities.shape[1]
    result = np.empty((num_classes, weights_NxS.shape[1]))
    for k in range(num_classes):
        order = np.argsort(probabilities[:, k], kind="stable")
        ranked = probabilities[order, k]
        own = labels[order] == k
        total = weights_NxS[order]
        positive = np.where(own[:, None], total, 0)
        negative = total - positive
        starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
        if len(starts) < len(ranked):  # pool equal scores, so that ties count a half
            positive = np.add.reduceat(positive, starts, axis=0)
            negative = np.add.reduceat(negative, starts, axis=0)
        below = np.cumsum(negative, axis=0) - negative / 2
        wins = np.einsum("us,us->s", positive, below)
        result[k] = _ratio(wins, positive.sum(axis=0) * negative.sum(axis=0))
    return result


def macro_auc(auc: np.ndarray) -> np.ndarray:
    """(..., K) -> (...): mean of the defined one-vs-rest areas."""
    return _mean_defined(auc)


def negative_log_likelihood(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) -log of the true class's probability, in nats, clipped at 2.2e-16."""
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return -np.log(np.clip(own, _SMALLEST, 1.0))


def brier(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """(N,) squared distance to the one-hot label, summed over the classes (Brier 1950): 0 to 2."""
    return ((probabilities - np.eye(probabilities.shape[1])[labels]) ** 2).sum(axis=1)
