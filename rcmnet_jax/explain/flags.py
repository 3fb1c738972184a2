"""What a map cannot tell: maps that are empty, flat or broken, with their raw range.

Scaled to its own maximum, as overlays are, noise of a millionth looks like a finding.
"""

import dataclasses
from typing import Any

import numpy as np

# Of the largest magnitude: below it, the colours of an overlay show differences under a percent.
FLAT_RANGE = 0.01


@dataclasses.dataclass(frozen=True)
class MapFacts:
    """The raw range of a signed map, and what is wrong with it.

    Attributes:
      minimum: smallest value, before ReLU; None for a map that is not finite.
      maximum: largest value.
      flags: any of ``empty`` (no positive value: ReLU leaves nothing), ``flat`` (it varies by less
        than `FLAT_RANGE` of its magnitude) and ``not_finite``.
    """

    minimum: float | None
    maximum: float | None
    flags: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"minimum": self.minimum, "maximum": self.maximum, "flags": list(self.flags)}


def map_facts(signed_hxw: np.ndarray) -> MapFacts:
    """Looks at one signed map, from ``relu=False``."""
    values = np.asarray(signed_hxw, np.float64)
    if not np.isfinite(values).all():
        return MapFacts(None, None, ("not_finite",))
    low, high = float(values.min()), float(values.max())
    flags = []
    if high <= 0:
        flags.append("empty")
    if high - low <= FLAT_RANGE * max(abs(low), abs(high)):
        flags.append("flat")
    return MapFacts(low, high, tuple(flags))
