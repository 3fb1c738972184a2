"""Shortcut probes: can something that is not the cell predict the label?

Each probe is a few numbers an image and a cross-validated logistic model on them. Copies and
near-copies of an image stay in one fold. The score is the balanced accuracy, whose chance is 1 / K
whatever the class sizes.
"""

import collections
import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rcmnet_jax.data.records import AuditRow
from rcmnet_jax.logistic import cross_validated

# Of the way from chance to certainty; below, a signal is there but would not carry a result.
WEAK, STRONG = 0.10, 0.30
# A 99 % interval, since six questions are asked at once.
_Z99 = 2.575829
_MAX_TOKENS = 40
_LEAST_PER_CLASS = 10


@dataclasses.dataclass(frozen=True)
class Probe:
    """What a probe found.

    Attributes:
        name: size, file size, name, number, mean colour or border.
        balanced_accuracy: cross-validated; low, high: its 99 % interval.
        chance: 1 / K.
        features: how many numbers an image.
        images: how many images it was asked about.
    """

    name: str
    balanced_accuracy: float
    low: float
    high: float
    chance: float
    features: int
    images: int

    @property
    def strength(self) -> str:
        """nothing, weak, noticeable or strong."""
        share = (self.balanced_accuracy - self.chance) / (1 - self.chance)
        if self.low <= self.chance:
            return "nothing"
        if share < WEAK:
            return "weak"
        return "noticeable" if share < STRONG else "strong"

    def to_dict(self) -> dict[str, Any]:
        """Plain types."""
        return {**dataclasses.asdict(self), "strength": self.strength}


def run_probes(
    rows: Sequence[AuditRow],
    thumbs_NxSxSx3: np.ndarray,
    labels_N: np.ndarray,
    num_classes: int,
    *,
    groups_N: np.ndarray | None = None,
) -> tuple[Probe, ...]:
    """Runs every probe.

    Args:
        rows: audit rows, one an image.
        thumbs_NxSxSx3: the images made small, uint8.
        labels_N: class index of each.
        num_classes: K.
        groups_N: what must not be parted between folds.

    Returns:
        One result a probe; none where a class has fewer than ten images, which prove nothing.
    """
    count = np.bincount(labels_N, minlength=num_classes)
    if num_classes < 2 or count.min() < _LEAST_PER_CLASS:
        return ()
    results = []
    for name, features in PROBES.items():
        x = np.asarray(features(rows, thumbs_NxSxSx3), np.float64)
        if x.shape[1] == 0 or not np.any(x.std(axis=0) > 1e-9):
            x = np.zeros((len(rows), 1))  # nothing varies: exactly chance
        guess = cross_validated(x, labels_N, num_classes, groups_N=groups_N).argmax(axis=1)
        hits = np.bincount(labels_N[guess == labels_N], minlength=num_classes) / count
        value = float(hits.mean())
        spread = _Z99 * float(np.sqrt((hits * (1 - hits) / count).sum())) / num_classes
        results.append(
            Probe(
                name=name,
                balanced_accuracy=value,
                low=max(0.0, value - spread),
                high=min(1.0, value + spread),
                chance=1 / num_classes,
                features=x.shape[1],
                images=len(rows),
            )
        )
    return tuple(results)


def _one_hot(values: Sequence[Any]) -> np.ndarray:
    """A column for each of the most common values."""
    common = [value for value, _ in collections.Counter(values).most_common(_MAX_TOKENS)]
    return np.array([[value == other for other in common] for value in values], np.float64)


def _size(rows: Sequence[AuditRow], _thumbs: np.ndarray) -> np.ndarray:
    """Width and height, and which of the common sizes."""
    sides = np.array([[row.width, row.height] for row in rows], np.float64)
    return np.hstack([sides, _one_hot([(row.width, row.height) for row in rows])])


def _file_size(rows: Sequence[AuditRow], _thumbs: np.ndarray) -> np.ndarray:
    """Bytes and bytes a pixel (compression), format and mode."""
    logs = np.log([[row.bytes, row.bytes / max(1, row.width * row.height)] for row in rows])
    return np.hstack([logs, logs**2, _one_hot([(row.format, row.mode) for row in rows])])


def _name(rows: Sequence[AuditRow], _thumbs: np.ndarray) -> np.ndarray:
    """The letters of the file name, folder and digits apart."""
    return _one_hot([re.sub(r"[\d\W_]+", "_", row.file.rpartition("/")[2]) for row in rows])


def _number(rows: Sequence[AuditRow], _thumbs: np.ndarray) -> np.ndarray:
    """The number in the file name, in twenty ranges: order and date of acquisition."""
    found = [re.findall(r"\d+", row.file.rpartition("/")[2]) for row in rows]
    # Long numbers are hashes; float keeps their order, which is all that counts.
    values = np.array([float(digits[-1][:300]) if digits else -1.0 for digits in found])
    ranks = np.searchsorted(np.sort(values), values, side="left") / max(1, len(values))
    lengths = [len(digits[-1]) if digits else 0 for digits in found]
    return np.hstack([_one_hot((ranks * 20).astype(int).tolist()), _one_hot(lengths)])


def _mean_colour(_rows: Sequence[AuditRow], thumbs: np.ndarray) -> np.ndarray:
    """Mean and spread of each channel, with their products."""
    pixels = thumbs.reshape(len(thumbs), -1, 3) / 255.0
    x = np.hstack([pixels.mean(axis=1), pixels.std(axis=1)])
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    first, second = np.triu_indices(x.shape[1])
    return np.hstack([x, x[:, first] * x[:, second]])


def _border(_rows: Sequence[AuditRow], thumbs: np.ndarray) -> np.ndarray:
    """Mean and spread of each channel along each side, the outermost 3 % of the image alone."""
    sides = (thumbs[:, 0], thumbs[:, -1], thumbs[:, :, 0], thumbs[:, :, -1])
    lines = [side / 255.0 for side in sides]
    return np.hstack([f(axis=1) for line in lines for f in (line.mean, line.std)])


PROBES: dict[str, Callable[[Sequence[AuditRow], np.ndarray], np.ndarray]] = {
    "size": _size,
    "file size": _file_size,
    "name": _name,
    "number": _number,
    "mean colour": _mean_colour,
    "border": _border,
}
