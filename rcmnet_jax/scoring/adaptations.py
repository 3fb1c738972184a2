"""Another laboratory: one checkpoint, several ways to meet the images, none of them with labels.

The options: ``scale`` and ``colour`` align the images with the home set, ``bn`` re-estimates the
batch-norm statistics, ``views`` averages over the eight dihedral views. Which of their sixteen
combinations to use is chosen on home validation images that were distorted on purpose, before any
label of the other set is looked at.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from rcmnet_jax.checkpoints.open_model import TrainedNetwork
from rcmnet_jax.data.alignment import Alignment, estimate_alignment
from rcmnet_jax.data.augment import apply_views, standardize
from rcmnet_jax.data.augment_settings import DIHEDRAL, MAX_ASPECT
from rcmnet_jax.errors import UserError
from rcmnet_jax.evaluation import scores
from rcmnet_jax.inference.predictor import Predictor, softmax
from rcmnet_jax.transfer.batch_norm import reestimate_batch_stats
from rcmnet_jax.types import Variables

PLAIN = "plain"
MEANS = ("scale", "colour", "bn", "views")
_BN_BATCH = 64
# The distortions that the choice is made on: cells up to twice as large in the frame, channels
# dimmed by up to 40 %, a veil of up to 15 % of white. Set before any other lab was looked at.
_ZOOM, _GAIN, _VEIL = (1.0, 2.0), (0.6, 1.0), (0.0, 0.15)


def all_options() -> list[tuple[str, ...]]:
    """The sixteen combinations, from none to all."""
    return [tuple(c) for size in range(len(MEANS) + 1) for c in itertools.combinations(MEANS, size)]


def option_name(option: Sequence[str]) -> str:
    """``plain``, or the means joined by ``+``."""
    return "+".join(option) or PLAIN


def parse_option(name: str) -> tuple[str, ...]:
    """The inverse of `option_name`.

    Raises:
      UserError: something that is not one of `MEANS`.
    """
    if name == PLAIN:
        return ()
    parts = name.split("+")
    if not set(parts) <= set(MEANS) or len(set(parts)) < len(parts):
        raise UserError(
            f"option {name!r} is not known: give {PLAIN} or some of {', '.join(MEANS)},"
            " joined by +, such as scale+bn"
        )
    return tuple(mean for mean in MEANS if mean in parts)


@dataclasses.dataclass(frozen=True)
class Choice:
    """How the options did on distorted home images.

    Attributes:
      chosen: the best, the simplest of equals.
      balanced_accuracy: mean over the draws, by option.
      draws: how many distortions.
      images: how many home images.
    """

    chosen: tuple[str, ...]
    balanced_accuracy: dict[str, float]
    draws: int
    images: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**dataclasses.asdict(self), "chosen": option_name(self.chosen)}


class OtherLab:
    """Predicts images of any laboratory with any of the options.

    Args:
      restored: the network.
      home: uint8 images that it was trained on, or some hundreds of them.
      batch_size: images a call.
    """

    def __init__(self, restored: TrainedNetwork, home: np.ndarray, *, batch_size: int = 64):
        self._restored, self.home = restored, home
        self._predictor = Predictor(
            restored.model, mean=restored.mean, std=restored.std, batch_size=batch_size
        )
        height, width = home.shape[1:3]
        self._turns = max(height, width) <= MAX_ASPECT * min(height, width)

    def align(self, pixels: np.ndarray, option: Sequence[str]) -> tuple[np.ndarray, Alignment]:
        """The images as the option shows them to the network, and how they were changed."""
        if not {"scale", "colour"} & set(option):
            return pixels, Alignment()
        found = estimate_alignment(
            pixels, self.home, scale="scale" in option, colour="colour" in option
        )
        return found.apply(pixels), found

    def probabilities(
        self, pixels: np.ndarray, options: Sequence[tuple[str, ...]]
    ) -> dict[tuple[str, ...], np.ndarray]:
        """What the network says of one set of uint8 images, with each option.

        Args:
          pixels: (N, H, W, 3), all images of the set, since the set is measured.
          options: tuples of `MEANS`.

        Returns:
          (N, K) float64 by option.
        """
        found: dict[tuple[str, ...], np.ndarray] = {}
        # With and without views share the alignment, the statistics and the upright view.
        for base in dict.fromkeys(tuple(m for m in o if m != "views") for o in options):
            aligned, _ = self.align(pixels, base)
            variables, rows = self._variables(aligned, base), np.arange(len(aligned))
            upright = softmax(self._predictor.logits(variables, aligned, rows))
            found[base] = upright
            if (*base, "views") in options:
                turned = [
                    softmax(self._predictor.logits(variables, _Turned(aligned, view), rows))
                    for view, (turn, _, _) in enumerate(DIHEDRAL)
                    if view and (self._turns or not turn)
                ]
                found[*base, "views"] = np.mean([upright, *turned], axis=0)
        return {option: found[option] for option in options}

    def _variables(self, aligned: np.ndarray, option: Sequence[str]) -> Variables:
        if "bn" not in option:
            return self._restored.variables
        return reestimate_batch_stats(
            self._restored.model, self._restored.variables, self._batches(aligned)
        )

    def _batches(self, pixels: np.ndarray) -> Iterator[jnp.ndarray]:
        # In a fixed random order: folders are sorted by class, and a batch of one class is skewed.
        order = np.random.default_rng(0).permutation(len(pixels))
        pieces = max(1, round(len(order) / _BN_BATCH))
        # All of one size, for one compilation: the last takes a few images again.
        size = -(-len(order) // pieces)
        for rows in np.resize(order, pieces * size).reshape(pieces, size):
            x = jnp.asarray(pixels[rows], jnp.float32) / 255
            yield standardize(x, self._restored.mean, self._restored.std)

    def choose(
        self,
        pixels: np.ndarray,
        labels: np.ndarray,
        options: Sequence[tuple[str, ...]],
        *,
        draws: int = 3,
        seed: int = 0,
    ) -> Choice:
        """Tries the options on distorted home images, whose labels may be looked at.

        Args:
          pixels: uint8 validation images of the classes that the other set has.
          labels: their classes.
          options: to choose from.
          draws: distortions of the whole set.
          seed: of the distortions.

        Returns:
          The option of highest mean balanced accuracy.
        """
        size = len(self._restored.class_names)
        totals = dict.fromkeys(map(option_name, options), 0.0)
        for draw in range(draws):
            distorted = distort(pixels, np.random.default_rng((seed, draw)))
            for option, probabilities in self.probabilities(distorted, options).items():
                predicted = scores.predict(probabilities)
                confusion = scores.confusion_matrix(labels, predicted, size)
                value = float(scores.balanced_accuracy(confusion))
                totals[option_name(option)] += value / draws
        best = max(options, key=lambda o: (round(totals[option_name(o)], 6), -len(o)))
        return Choice(best, totals, draws, len(labels))


def distort(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A set as another laboratory might have taken it: one zoom and one colour for all of it."""
    gain = tuple(rng.uniform(*_GAIN, 3))
    veil = tuple(rng.uniform(*_VEIL, 3))
    return Alignment(float(rng.uniform(*_ZOOM)), gain, veil).apply(pixels)


class _Turned:
    """Images in one of the views of `DIHEDRAL`, turned when they are asked for."""

    def __init__(self, pixels: np.ndarray, view: int):
        self._pixels, self._view = pixels, view

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        piece = jnp.asarray(self._pixels[rows])
        return np.asarray(apply_views(piece, jnp.full(len(rows), self._view, jnp.int32)))
