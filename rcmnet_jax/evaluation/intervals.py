"""Proportions with Wilson intervals, and the interval that a bootstrap returns.

The Wilson interval takes images as independent. Cells of one patient are not: give `groups` to
`rcmnet_jax.evaluation.bootstrap` where a manifest knows them, and whole patients are resampled.
"""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

from rcmnet_jax.errors import UserError


def check_confidence(confidence: float) -> None:
    """Raises `UserError` unless the confidence level lies in (0, 1)."""
    if not 0 < confidence < 1:
        raise UserError(f"confidence must lie between 0 and 1, not {confidence}; 0.95 is usual")


def wilson(k: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion.

    (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n) with p = k/n, z the normal quantile
    (Wilson 1927). Unlike p -+ z s it stays inside [0, 1] and is not empty at k = 0 or k = n.

    Args:
        k: successes, 0 <= k <= n.
        n: trials; without any the interval is all of [0, 1].
        confidence: in (0, 1).

    Returns:
        Lower and upper limit.

    Raises:
        UserError: counts or confidence out of range.
    """
    check_confidence(confidence)
    if not 0 <= k <= n:
        raise UserError(f"a proportion needs 0 <= k <= n, not {k}/{n}")
    if n == 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = k / n
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # The ends are exactly 0 and 1 in the algebra; rounding would leave 1e-17.
    low = 0.0 if k == 0 else (centre - spread) / scale
    high = 1.0 if k == n else (centre + spread) / scale
    return low, high


@dataclass(frozen=True)
class Proportion:
    """k of n, with its Wilson limits."""

    k: int
    n: int
    low: float
    high: float
    confidence: float = 0.95

    @classmethod
    def of(cls, k: int, n: int, confidence: float = 0.95) -> "Proportion":
        """The proportion of two counts; see `wilson`."""
        low, high = wilson(int(k), int(n), confidence)
        return cls(int(k), int(n), low, high, confidence)

    @property
    def value(self) -> float | None:
        """k / n, or None for 0/0."""
        return self.k / self.n if self.n else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with the value."""
        return {"value": self.value, **asdict(self)}


@dataclass(frozen=True)
class Interval:
    """A statistic with bootstrap limits; None where it is not defined."""

    value: float | None
    low: float | None
    high: float | None
    confidence: float
    samples: int
    """Resamples in which the statistic was defined."""
    unit: str
    """What was resampled: "images" or "groups"."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)
