"""Which images the network should not judge: a distance from what it was trained on, and a status.

The distance is the smallest Mahalanobis distance to a class (Lee et al. 2018, Eq. 2), with one
covariance for all classes, of two descriptions of an image: the spatial average of the network's
last feature map, and the mean and standard deviation of each colour channel. Means and covariance
come from the training part. Each distance is divided by its 98 % quantile on the validation part,
and the larger of the two is the score, so 1 is as far out as the outermost fiftieth of validation.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError
from rcmnet_jax.evaluation.minimums import GATE_IMAGES, shortage

ACCEPT, REVIEW = "accept", "review"
UNLIKE, NOT_A_CELL = "unlike the training images", "not a cell"
STATUSES = (ACCEPT, REVIEW, UNLIKE, NOT_A_CELL)
GATE_VERSION = 1
# Of the validation part: the score of this quantile is 1, where review begins.
REVIEW_QUANTILE = 0.98
# "Unlike the training images" begins at this multiple of the 99 % quantile: no validation image
# comes near it.
FAR, FAR_QUANTILE = 3.0, 0.99
# An image that is unlike the training images holds no cell where the middle is not even this much
# darker than the border, see `rcmnet_jax.inference.outputs.nucleus_contrast`. PBC's cells begin at
# 0.06; a cell of another laboratory that lies below is called "not a cell" by mistake.
LEAST_CONTRAST = 0.04
# What is accepted on confidence should be right this often on validation ...
TARGET_ACCURACY = 0.99
# ... but no more than this fraction goes to review for want of confidence.
MOST_REVIEWED = 0.05
# Covariances are drawn towards a multiple of the identity by these fractions: 512 features
# from some thousand images, six colour numbers from as many.
SHRINKAGE = {"feature": 0.1, "colour": 0.02}


@dataclass(frozen=True, eq=False)
class Distances:
    """Mahalanobis distances to the nearest class, per square root of the dimension."""

    mean: np.ndarray
    """(C,) of all training images, taken off first."""
    whitening: np.ndarray
    """(C, C); ``(x - mean) @ whitening`` has covariance 1 within the classes."""
    centres: np.ndarray
    """(K, C) whitened class means."""

    @classmethod
    def fit(cls, x_NxC: np.ndarray, labels: np.ndarray, shrinkage: float) -> "Distances":
        """From training images; every class that occurs is a centre."""
        x = np.asarray(x_NxC, np.float64)
        mean = x.mean(axis=0)
        classes, index = np.unique(labels, return_inverse=True)
        means = np.stack([x[index == k].mean(axis=0) for k in range(len(classes))])
        within = x - means[index]
        covariance = within.T @ within / len(x)
        scale = max(np.trace(covariance) / len(covariance), np.finfo(np.float32).tiny)
        covariance = (1 - shrinkage) * covariance + shrinkage * scale * np.eye(len(covariance))
        values, vectors = np.linalg.eigh(covariance)
        whitening = vectors / np.sqrt(values)
        return cls(
            mean.astype(np.float32),
            whitening.astype(np.float32),
            ((means - mean) @ whitening).astype(np.float32),
        )

    def of(self, x_NxC: np.ndarray) -> np.ndarray:
        """(N,) float64."""
        z = (np.asarray(x_NxC, np.float64) - self.mean) @ self.whitening.astype(np.float64)
        squared = ((z[:, None, :] - self.centres[None]) ** 2).sum(axis=-1).min(axis=1)
        return np.sqrt(squared / self.mean.shape[0])


@dataclass(frozen=True, eq=False)
class Gate:
    """Score and thresholds, fitted by `fit_gate`."""

    feature: Distances
    colour: Distances
    units: tuple[float, float]
    """Distances of feature and colour that score 1."""
    unlike: float
    """Score from which an image is unlike the training images; review begins at 1."""
    confidence: float
    """Calibrated probability of the top class below which an image goes to review."""
    fitted: dict[str, Any]
    """On how many images, and what they gave."""

    def score(self, features_NxC: np.ndarray, colours_Nx6: np.ndarray) -> np.ndarray:
        """(N,) float64: 1 is where review begins."""
        feature, colour = self.feature.of(features_NxC), self.colour.of(colours_Nx6)
        return np.maximum(feature / self.units[0], colour / self.units[1])

    def status(
        self, score_N: np.ndarray, confidence_N: np.ndarray, contrast_N: np.ndarray
    ) -> np.ndarray:
        """(N,) of `STATUSES`.

        Args:
            score_N: from `score`.
            confidence_N: calibrated probability of the top class.
            contrast_N: from `rcmnet_jax.inference.outputs.nucleus_contrast`.
        """
        doubtful = (score_N > 1) | (confidence_N < self.confidence)
        status = np.where(doubtful, REVIEW, ACCEPT)
        far = np.where(contrast_N < LEAST_CONTRAST, NOT_A_CELL, UNLIKE)
        return np.where(score_N > self.unlike, far, status)

    def to_dict(self) -> dict[str, Any]:
        """All but the arrays, for JSON."""
        return {
            "version": GATE_VERSION,
            "units": list(self.units),
            "review": 1.0,
            # By the name it has in bundles from before there were four statuses.
            "not_a_cell": self.unlike,
            "confidence": self.confidence,
            "fitted": self.fitted,
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays by name, float32."""
        return {
            f"{part}/{name}": getattr(getattr(self, part), name)
            for part in ("feature", "colour")
            for name in ("mean", "whitening", "centres")
        }

    @classmethod
    def from_parts(cls, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> "Gate":
        """The inverse of `to_dict` and `arrays`.

        Raises:
            DataError: another version, or arrays that do not fit each other.
        """
        if values.get("version") != GATE_VERSION:
            raise DataError(
                f"the gate is of version {values.get('version')}, not {GATE_VERSION}: use the"
                " rcmnet_jax version that wrote it, or a newer one"
            )
        try:
            parts = {
                part: Distances(
                    *(arrays[f"{part}/{name}"] for name in ("mean", "whitening", "centres"))
                )
                for part in ("feature", "colour")
            }
            units = tuple(float(unit) for unit in values["units"])
            gate = cls(
                **parts,
                units=(units[0], units[1]),
                unlike=float(values["not_a_cell"]),
                confidence=float(values["confidence"]),
                fitted=dict(values["fitted"]),
            )
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise DataError(f"the gate lacks {error}: write the bundle again") from error
        for distances in parts.values():
            size = distances.mean.size
            if distances.whitening.shape != (size, size) or distances.centres.shape[1:] != (size,):
                raise DataError("the arrays of the gate do not fit: write the bundle again")
        return gate


def fit_gate(
    *,
    train: tuple[np.ndarray, np.ndarray, np.ndarray],
    val: tuple[np.ndarray, np.ndarray],
    val_confidence: np.ndarray,
    val_correct: np.ndarray,
) -> Gate:
    """Statistics of the training part, thresholds of the validation part.

    Args:
        train: features (N, C), colours (N, 6), labels (N,).
        val: features (M, C) and colours (M, 6).
        val_confidence: (M,) calibrated probability of the top class.
        val_correct: (M,) whether it is right.

    Raises:
        DataError: no training images, or fewer than `GATE_IMAGES` validation images.
    """
    if not len(train[0]):
        raise DataError("a gate needs training images: none were given")
    too_few = shortage("a gate", len(val[0]), GATE_IMAGES)
    if too_few:
        raise DataError(f"{too_few}: validate on more images")
    feature = Distances.fit(train[0], train[2], SHRINKAGE["feature"])
    colour = Distances.fit(train[1], train[2], SHRINKAGE["colour"])
    distances = feature.of(val[0]), colour.of(val[1])
    smallest = float(np.finfo(np.float32).tiny)
    units = tuple(max(float(np.quantile(d, REVIEW_QUANTILE)), smallest) for d in distances)
    score = np.maximum(distances[0] / units[0], distances[1] / units[1])
    confidence = fit_confidence(val_confidence[score <= 1], np.asarray(val_correct)[score <= 1])
    accepted = (score <= 1) & (val_confidence >= confidence)
    fitted = {
        "train_images": len(train[0]),
        "val_images": len(score),
        "val_accepted": int(accepted.sum()),
        "val_accepted_correct": int(np.asarray(val_correct)[accepted].sum()),
        "val_largest_score": float(score.max()),
        "review_quantile": REVIEW_QUANTILE,
        "target_accuracy": TARGET_ACCURACY,
    }
    far = FAR * float(np.quantile(score, FAR_QUANTILE))
    return Gate(feature, colour, (units[0], units[1]), far, confidence, fitted)


def fit_confidence(confidence_N: np.ndarray, correct_N: np.ndarray) -> float:
    """The lowest confidence at and above which `TARGET_ACCURACY` of the images are right.

    Never so high that more than `MOST_REVIEWED` of them lie below; 0 for no images.
    """
    if not len(confidence_N):
        return 0.0
    order = np.argsort(-np.asarray(confidence_N), kind="stable")
    confidence = np.asarray(confidence_N, np.float64)[order]
    accuracy = np.cumsum(np.asarray(correct_N)[order]) / np.arange(1, len(order) + 1)
    # Images of equal confidence are accepted together.
    last = np.append(confidence[1:] < confidence[:-1], True)
    reached = np.flatnonzero((accuracy >= TARGET_ACCURACY) & last)
    ceiling = confidence[math.ceil((1 - MOST_REVIEWED) * len(order)) - 1]
    threshold = confidence[reached[-1]] if len(reached) else ceiling
    return float(min(threshold, ceiling))
