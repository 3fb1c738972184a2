"""Checks of labels, logits, probabilities and groups; every score makes them first."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rcmnet_jax.errors import DataError

# float32 softmax rows sum to 1 within 1e-6, bfloat16 ones within about 1e-2; logits or
# percentages given by mistake are off by far more.
_SUM_TOLERANCE = 2e-2


def check_labels(labels: Any, num_classes: int) -> np.ndarray:
    """Class indices as int64.

    Args:
        labels: (N,) integers in [0, num_classes).
        num_classes: K.

    Returns:
        (N,) int64.

    Raises:
        DataError: not a vector of integers, empty, or an index outside the classes.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"labels must be a vector of integer class indices, not {labels.dtype} of shape "
            f"{labels.shape}; map class names to their index first"
        )
    if labels.size == 0:
        raise DataError("there are no images to score; check the split and the data folder")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"label {low if low < 0 else high} is outside 0..{num_classes - 1}; the data and the "
            "predictions must come from the same class list"
        )
    return labels.astype(np.int64)


def check_scores(values: Any, what: str, labels: Any) -> np.ndarray:
    """A finite (N, K) table, K >= 2, with one row a label, as float64.

    Args:
        values: (N, K) numbers.
        what: the noun for the message, such as ``"logits"``.
        labels: (N,); only their number is used.

    Returns:
        (N, K) float64.

    Raises:
        DataError: another shape or length, or a NaN or infinity.
    """
    values = np.asarray(values)
    if values.ndim != 2 or values.shape[1] < 2 or not np.issubdtype(values.dtype, np.number):
        raise DataError(
            f"{what} must be numbers of shape (images, classes) with at least 2 classes, not "
            f"{values.dtype} of shape {values.shape}"
        )
    values = values.astype(np.float64)
    if len(values) != np.size(labels):
        raise DataError(
            f"{np.size(labels)} labels but {len(values)} rows of {what}; give one row for each "
            "image, the last partial batch included"
        )
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if bad.size:
        raise DataError(
            f"{what} of {bad.size} of {len(values)} images are not finite (first: row {bad[0]}); "
            "the model diverged or the checkpoint is damaged: evaluate an earlier checkpoint"
        )
    return values


def check_predictions(
    labels: Any, probabilities: Any, class_names: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int64 and probabilities as float64, checked.

    Args:
        labels: (N,) integers in [0, K).
        probabilities: (N, K) float, rows sum to 1.
        class_names: K distinct names, if known.

    Returns:
        (N,) int64 and (N, K) float64.

    Raises:
        DataError: shapes or counts disagree, values are not probabilities, or a label is not a
            class.
    """
    probabilities = check_scores(probabilities, "probabilities", labels)
    num_classes = probabilities.shape[1]
    if class_names is not None:
        if len(class_names) != num_classes:
            raise DataError(
                f"{len(class_names)} class names but {num_classes} columns of probabilities; "
                "use the class list kept with the checkpoint"
            )
        if len(set(class_names)) != num_classes:
            raise DataError(f"class names repeat: {', '.join(class_names)}; each must be unique")
    labels = check_labels(labels, num_classes)
    if probabilities.min() < 0 or abs(probabilities.sum(axis=1) - 1).max() > _SUM_TOLERANCE:
        raise DataError("probabilities must be >= 0 and sum to 1 in each row; softmax logits first")
    return labels, probabilities


def check_groups(groups: Sequence[Any], count: int) -> tuple[np.ndarray, int]:
    """Groups as indices.

    Args:
        groups: one patient, slide or lab identifier for each image.
        count: N, the number of images.

    Returns:
        (N,) int64 in [0, G), and G.

    Raises:
        DataError: another length than the images, or an image without a group.
    """
    if len(groups) != count:
        raise DataError(f"{len(groups)} groups for {count} images; give one group for each image")
    names = ["" if group is None else str(group) for group in groups]
    if "" in names:
        raise DataError(
            f"image {names.index('')} has no group; fill the manifest's patient or slide column "
            "for every image, or evaluate without groups"
        )
    unique, index = np.unique(np.array(names), return_inverse=True)
    return index.astype(np.int64), len(unique)
