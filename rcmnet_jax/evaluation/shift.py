"""How far another set of images is from home, measured without its labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rcmnet_jax.evaluation.scores import one_vs_rest_auc
from rcmnet_jax.logistic import cross_validated

# On hundreds of features a linear model separates two small sets by chance alone.
_MOST_FEATURES = 32


def restrict(probabilities: np.ndarray, classes: Sequence[int]) -> np.ndarray:
    """Forced choice: probabilities of some classes, scaled to add up to 1.

    Args:
        probabilities: (N, K), rows sum to 1.
        classes: indices of the classes allowed.

    Returns:
        (N, K), zero elsewhere; uniform over the classes where all of them had exactly zero.
    """
    allowed = np.zeros(probabilities.shape[1], bool)
    allowed[list(classes)] = True
    kept = np.where(allowed, probabilities, 0.0)
    total = kept.sum(axis=1, keepdims=True)
    return np.where(total > 0, kept / np.maximum(total, 1e-300), allowed / allowed.sum())


def domain_auc(home_NxD: np.ndarray, other_MxD: np.ndarray, *, seed: int = 0) -> float:
    """How well a linear model on the network's features tells the two sets apart.

    A classifier two-sample test (Lopez-Paz and Oquab 2017) on the first principal components,
    cross-validated: 0.5 where the sets cannot be told apart, 1 where every image can.

    Args:
        home_NxD: features of home images, of the classes that the other set has.
        other_MxD: features of the other images.
        seed: of the folds.

    Returns:
        Area under the ROC curve.
    """
    x = np.concatenate([home_NxD, other_MxD]).astype(np.float64)
    labels = np.repeat([0, 1], [len(home_NxD), len(other_MxD)])
    x = x - x.mean(axis=0)
    _, _, axes = np.linalg.svd(x, full_matrices=False)
    scores = np.exp(cross_validated(x @ axes[:_MOST_FEATURES].T, labels, 2, seed=seed))
    return float(one_vs_rest_auc(labels, scores)[1])


def colour_shift(home_moments: tuple[Any, Any], other_moments: tuple[Any, Any]) -> dict[str, Any]:
    """Difference of the channel means in home deviations, and the ratio of the deviations."""
    (home_mean, home_std), (mean, std) = home_moments, other_moments
    return {
        "mean_in_home_deviations": ((mean - home_mean) / home_std).tolist(),
        "ratio_of_deviations": (std / home_std).tolist(),
    }
