"""Is an exported network the live one? Asked on a whole test part before anything is written."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from rcmnet_jax.errors import UserError
from rcmnet_jax.inference import BatchedPass, TrainedNetwork, logits
from rcmnet_jax.scoring.run_data import RunData

# Largest difference of a probability that counts as the same network.
TOLERANCE = 1e-4
# Where the images are gone: random ones, enough for several batches and a partial one.
NOISE_IMAGES = 150

# (n, H, W, 3) uint8 -> (n, K) logits, for any n from 1 to the batch size.
LogitsOf = Callable[[np.ndarray], np.ndarray]


class ParityError(UserError):
    """An export does not agree with the network it was made from."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """Agreement of an export with the live network.

    Attributes:
      part: ``test``, or ``val``, or ``noise`` where the run's images are gone.
      images: how many.
      same: of how many the predicted class is the same.
      worst_probability: largest absolute difference of a probability.
      worst_logit: the same of a logit, over the largest magnitude of a logit.
      tolerance: that ``worst_probability`` was held to; None if to none.
    """

    part: str
    images: int
    same: int
    worst_probability: float
    worst_logit: float
    tolerance: float | None = TOLERANCE

    @property
    def holds(self) -> bool:
        """Every prediction the same, every probability within the tolerance."""
        limit = np.inf if self.tolerance is None else self.tolerance
        return self.tolerance is None or (
            self.same == self.images and self.worst_probability <= limit
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with the backend the live network ran on."""
        return {**dataclasses.asdict(self), "backend": jax.default_backend()}

    def line(self) -> str:
        """For a terminal."""
        return (
            f"{self.same}/{self.images} same predictions on the {self.part} images, probabilities"
            f" within {self.worst_probability:.1e}"
        )


def check_images(network: TrainedNetwork, data: RunData | None) -> tuple[str, Any, np.ndarray]:
    """What to compare on: (part, pixels, rows), the test part if there is one."""
    if data is not None:
        for part in ("test", "val"):
            if len(data.rows(part)):
                return part, data.pixels, data.rows(part)
    size = network.preprocess
    shape = (NOISE_IMAGES, size.height, size.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return "noise", pixels, np.arange(NOISE_IMAGES)


def logits_by_network(network: TrainedNetwork, batch_size: int) -> Callable[..., np.ndarray]:
    """The network as a function of uint8 images, or of pixels and rows, to logits."""
    return functools.partial(
        BatchedPass.of(network, logits, batch_size=batch_size), network.variables
    )


def compare_logits(
    network: TrainedNetwork,
    logits_of: LogitsOf,
    data: RunData | None,
    *,
    what: str,
    batch_size: int = 64,
    tolerance: float | None = TOLERANCE,
) -> Parity:
    """Runs an export and the live network on the same images.

    Args:
      network: the network.
      logits_of: the export, given whole batches and a partial last one.
      data: the run's images, if they are there.
      what: the export, for the error.
      batch_size: images a call.
      tolerance: None only measures.

    Raises:
      ParityError: they differ.
    """
    part, pixels, rows = check_images(network, data)
    live = logits_by_network(network, batch_size)(pixels, rows)
    starts = range(0, len(rows), batch_size)
    theirs = np.concatenate(
        [np.asarray(logits_of(pixels[rows[s : s + batch_size]])) for s in starts]
    )
    ours_p, theirs_p = network.calibrated(live), network.calibrated(theirs)
    parity = Parity(
        part=part,
        images=len(rows),
        same=int((live.argmax(axis=1) == theirs.argmax(axis=1)).sum()),
        worst_probability=float(np.abs(ours_p - theirs_p).max()),
        worst_logit=float(np.abs(live - theirs).max() / np.abs(live).max()),
        tolerance=tolerance,
    )
    if not parity.holds:
        raise ParityError(
            f"the {what} is not the network it was made from ({parity.line()}, allowed"
            f" {tolerance:.0e}): nothing was written; please report this"
        )
    return parity
