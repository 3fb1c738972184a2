"""Several runs that differ in their seed alone: mean, spread, and an interval of the mean."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import t as student_t

from rcmnet_jax.errors import DataError


@dataclass(frozen=True)
class SeedSummary:
    """A score over seeds.

    The interval is that of the mean over seeds on these test images: ``mean -+ t s / sqrt(n)``
    with n - 1 degrees of freedom. It says nothing about other images; the Wilson interval of each
    run's k/n does.
    """

    values: tuple[float, ...]
    mean: float
    sd: float | None
    """Sample standard deviation; None with one seed."""
    low: float | None
    high: float | None
    confidence: float

    @classmethod
    def of(cls, values: Sequence[float], confidence: float = 0.95) -> "SeedSummary":
        """Summarises one score of each seed.

        Raises:
          DataError: no values.
        """
        if not values:
            raise DataError("there are no runs to summarise: finish at least one seed")
        mean = statistics.fmean(values)
        if len(values) == 1:
            return cls(tuple(values), mean, None, None, None, confidence)
        sd = statistics.stdev(values)
        quantile = float(student_t.ppf(0.5 + confidence / 2, len(values) - 1))
        half = quantile * sd / math.sqrt(len(values))
        return cls(tuple(values), mean, sd, mean - half, mean + half, confidence)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "values": list(self.values)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SeedSummary":
        """The inverse of `to_dict`."""
        return cls(**{**values, "values": tuple(values["values"])})

    def text(self) -> str:
        """In percent, for a terminal."""
        if self.sd is None or self.low is None or self.high is None:
            return f"{100 * self.mean:.2f} %"
        return (
            f"{100 * self.mean:.2f} % mean of {len(self.values)} seeds, spread {100 * self.sd:.2f}"
            f" (95 % interval of the mean {100 * self.low:.2f} to {100 * self.high:.2f})"
        )
