"""Label-free adaptations of a network to the images of another laboratory.

``scale`` and ``colour`` align the images with the home set, ``bn`` re-estimates the batch-norm
statistics, ``views`` averages over the eight dihedral views. Which of their sixteen combinations to
use is chosen on home validation images that are distorted on purpose, before any label of the other
set is looked at.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from rcmnet_jax.data.alignment import Alignment, estimate_alignment
from rcmnet_jax.data.augment_settings import DIHEDRAL, MAX_ASPECT
from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation import scores
from rcmnet_jax.inference import BatchedPass, TrainedNetwork, logits, softmax
from rcmnet_jax.transfer.batch_norm import reestimate_on
from rcmnet_jax.types import Variables

PLAIN = "plain"
ADAPTATIONS = ("scale", "colour", "bn", "views")
# Distortions to choose a combination on: cells up to twice as large in the frame, channels dimmed
# by up to 40 %, a veil of up to 15 % of white. Fixed before any other lab was looked at.
_ZOOM, _GAIN, _VEIL = (1.0, 2.0), (0.6, 1.0), (0.0, 0.15)


def all_combinations() -> list[tuple[str, ...]]:
    """The sixteen combinations of `ADAPTATIONS`, from none to all."""
    sizes = range(len(ADAPTATIONS) + 1)
    return [tuple(c) for size in sizes for c in itertools.combinations(ADAPTATIONS, size)]


def combination_name(combination: Sequence[str]) -> str:
    """``plain``, or the adaptations joined by ``+``."""
    return "+".join(combination) or PLAIN


def parse_combination(name: str) -> tuple[str, ...]:
    """The inverse of `combination_name`.

    Raises:
      UserError: a name that is neither `PLAIN` nor made of `ADAPTATIONS`.
    """
    if name == PLAIN:
        return ()
    parts = name.split("+")
    if not set(parts) <= set(ADAPTATIONS) or len(set(parts)) < len(parts):
        raise UserError(
            f"adaptation {name!r} is not known: give {PLAIN} or some of {', '.join(ADAPTATIONS)},"
            " joined by +, such as scale+bn"
        )
    return tuple(adaptation for adaptation in ADAPTATIONS if adaptation in parts)


@dataclasses.dataclass(frozen=True)
class Choice:
    """The combination that did best on distorted home images.

    Attributes:
      chosen: the best combination, the simplest of equals.
      balanced_accuracy: mean over the distortions, by name of the combination.
      draws: number of distortions.
      images: number of home images.
    """

    chosen: tuple[str, ...]
    balanced_accuracy: dict[str, float]
    draws: int
    images: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**dataclasses.asdict(self), "chosen": combination_name(self.chosen)}


class AdaptedPredictor:
    """Predicts images of any laboratory with any combination of adaptations.

    Args:
      network: the network.
      home: uint8 images that it was trained on, or some hundreds of them.
      batch_size: images a call.
    """

    def __init__(self, network: TrainedNetwork, home: np.ndarray, *, batch_size: int = 64):
        self._network, self.home = network, home
        self._logits = BatchedPass.of(network, logits, batch_size=batch_size)
        height, width = home.shape[1:3]
        turns = max(height, width) <= MAX_ASPECT * min(height, width)
        self._views = [v for v, (turn, _, _) in enumerate(DIHEDRAL) if turns or not turn]

    def align(self, pixels: np.ndarray, combination: Sequence[str]) -> tuple[np.ndarray, Alignment]:
        """The images as a combination shows them to the network, and the alignment applied."""
        if not {"scale", "colour"} & set(combination):
            return pixels, Alignment()
        found = estimate_alignment(
            pixels, self.home, scale="scale" in combination, colour="colour" in combination
        )
        return found.apply(pixels), found

    def probabilities(
        self, pixels: np.ndarray, combinations: Sequence[tuple[str, ...]]
    ) -> dict[tuple[str, ...], np.ndarray]:
        """Class probabilities of one set of uint8 images, with each combination.

        Args:
          pixels: (N, H, W, 3), all images of the set, since colours and sizes are measured on it.
          combinations: tuples of `ADAPTATIONS`.

        Returns:
          (N, K) float64 by combination.
        """
        found: dict[tuple[str, ...], np.ndarray] = {}
        # With and without views share the alignment, the statistics and the upright view.
        for base in dict.fromkeys(tuple(a for a in c if a != "views") for c in combinations):
            aligned, _ = self.align(pixels, base)
            averaged = (*base, "views")
            views = self._views if averaged in combinations else self._views[:1]
            by_view = softmax(self._logits(self._variables(aligned, base), aligned, views=views))
            found[base], found[averaged] = by_view[0], by_view.mean(axis=0)
        return {combination: found[combination] for combination in combinations}

    def _variables(self, aligned: np.ndarray, combination: Sequence[str]) -> Variables:
        network = self._network
        if "bn" not in combination:
            return network.variables
        rows = np.arange(len(aligned))
        return reestimate_on(
            network.model, network.variables, aligned, rows, mean=network.mean, std=network.std
        )

    def choose(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        combinations: Sequence[tuple[str, ...]],
        *,
        draws: int = 3,
        seed: int = 0,
    ) -> Choice:
        """Tries combinations on distorted home images, whose labels may be looked at.

        Args:
          pixels: uint8 validation images of the classes that the other set has.
          labels: their classes.
          combinations: to choose from.
          draws: distortions of the whole set.
          seed: of the distortions.

        Returns:
          The combination of highest mean balanced accuracy.
        """
        size = len(self._network.class_names)
        totals = dict.fromkeys(map(combination_name, combinations), 0.0)
        for draw in range(draws):
            distorted = distort(pixels, np.random.default_rng((seed, draw)))
            for combination, probabilities in self.probabilities(distorted, combinations).items():
                predicted = scores.predict(probabilities)
                confusion = scores.confusion_matrix(labels, predicted, size)
                value = float(scores.balanced_accuracy(confusion))
                totals[combination_name(combination)] += value / draws
        best = max(combinations, key=lambda c: (round(totals[combination_name(c)], 6), -len(c)))
        return Choice(best, totals, draws, len(labels))


def distort(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A set as another laboratory might have taken it: one zoom and one colour for all of it."""
    gain = tuple(rng.uniform(*_GAIN, 3))
    veil = tuple(rng.uniform(*_VEIL, 3))
    return Alignment(float(rng.uniform(*_ZOOM)), gain, veil).apply(pixels)
