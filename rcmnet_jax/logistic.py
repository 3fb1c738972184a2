"""Multinomial logistic regression with cross-validation, on scipy alone.

For questions about the data: whether the border of an image predicts its class, or features predict
the laboratory. Results for users come from the networks, not from here.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Logistic:
    """A fitted model: standardise, multiply, softmax."""

    mean_D: np.ndarray
    scale_D: np.ndarray
    weight_DxK: np.ndarray
    bias_K: np.ndarray

    def log_probabilities(self, x_NxD: np.ndarray) -> np.ndarray:
        """(N, K) log-probabilities."""
        from scipy.special import log_softmax

        z = (x_NxD - self.mean_D) / self.scale_D
        return log_softmax(z @ self.weight_DxK + self.bias_K, axis=1)


def fit_logistic(
    x_NxD: np.ndarray, labels_N: np.ndarray, num_classes: int, *, penalty: float = 1e-3
) -> Logistic:
    """Fits by L-BFGS; every class has the same total weight, so chance is 1 / K for all.

    Args:
        x_NxD: features, standardised here; constant ones do no harm.
        labels_N: int in [0, K).
        num_classes: K.
        penalty: factor of half the squared weights, added to the mean loss.

    Returns:
        The model. Without images of a class its probability tends to zero.
    """
    x = np.asarray(x_NxD, np.float64)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    scale = np.where(spread > 1e-9, spread, 1.0)
    z = (x - mean) / scale
    count = np.bincount(labels_N, minlength=num_classes)
    weight = 1 / (np.count_nonzero(count) * np.maximum(count, 1))[labels_N]
    target = np.eye(num_classes)[labels_N]
    shape = (z.shape[1] + 1, num_classes)
    # Here, since every training run imports this module and few fit: half a second.
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        theta = flat.reshape(shape)
        log_p = log_softmax(z @ theta[:-1] + theta[-1], axis=1)
        slope = weight[:, None] * (np.exp(log_p) - target)
        gradient = np.vstack([z.T @ slope + penalty * theta[:-1], slope.sum(axis=0)])
        value = -(weight * (target * log_p).sum(axis=1)).sum()
        return value + 0.5 * penalty * (theta[:-1] ** 2).sum(), gradient.ravel()

    found = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B")
    theta = found.x.reshape(shape)
    return Logistic(mean, scale, theta[:-1], theta[-1])


def cross_validated(
    x_NxD: np.ndarray,
    labels_N: np.ndarray,
    num_classes: int,
    *,
    groups_N: np.ndarray | None = None,
    folds: int = 5,
    seed: int = 0,
    penalty: float = 1e-3,
) -> np.ndarray:
    """Log-probabilities of every image from a model fitted without it and its group.

    Args:
        x_NxD: features.
        labels_N: int in [0, K).
        num_classes: K.
        groups_N: group of each image, kept in one fold (copies, patients); None: no groups.
        folds: number of folds.
        seed: of the folds.
        penalty: see `fit_logistic`.

    Returns:
        (N, K) log-probabilities.
    """
    groups = np.arange(len(labels_N)) if groups_N is None else np.asarray(groups_N)
    _, first, group_of = np.unique(groups, return_index=True, return_inverse=True)
    # Groups sorted by class and dealt out in turn, so that all folds have about the same classes.
    shuffled = np.random.default_rng(seed).permutation(len(first))
    order = shuffled[np.argsort(labels_N[first][shuffled], kind="stable")]
    fold_of_group = np.empty(len(first), int)
    fold_of_group[order] = np.arange(len(first)) % folds
    fold = fold_of_group[group_of]
    result = np.full((len(labels_N), num_classes), -np.log(num_classes))
    for part in range(folds):
        held_out = fold == part
        if held_out.any() and not held_out.all():
            model = fit_logistic(
                x_NxD[~held_out], labels_N[~held_out], num_classes, penalty=penalty
            )
            result[held_out] = model.log_probabilities(x_NxD[held_out])
    return result
