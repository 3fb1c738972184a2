"""Does the class depend on the pixels that the map marks? (Petsiuk et al. 2018)

Deletion blurs pixels, the most important first: the probability should fall early. Insertion starts
from the blurred picture and restores pixels, the most important first: it should rise early. Pixels
are blurred, not blackened, because the network has never seen pictures with black holes.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from rcmnet_jax.evaluation.calibration import apply_temperature
from rcmnet_jax.explain.localisation import mean_interval, spot
from rcmnet_jax.explain.network_maps import NetworkMaps
from rcmnet_jax.explain.overlay import upsample
from rcmnet_jax.inference import BatchedPass, logits

STEPS = 16
# Standard deviation of the blur as a share of the longer side: wide enough to hide a nucleus.
BLUR = 0.1


@dataclasses.dataclass(frozen=True)
class Curves:
    """Probability of the explained class while pixels are deleted and inserted.

    Attributes:
      fraction: (S + 1,) share of the pixels changed, 0 to 1.
      deletion: (N, S + 1).
      insertion: (N, S + 1).
    """

    fraction: np.ndarray
    deletion: np.ndarray
    insertion: np.ndarray

    def areas(self) -> tuple[np.ndarray, np.ndarray]:
        """(N,) and (N,): areas under deletion (lower is better) and insertion (higher is)."""
        return (
            np.trapezoid(self.deletion, self.fraction, axis=1),
            np.trapezoid(self.insertion, self.fraction, axis=1),
        )

    def summary(self) -> dict[str, Any]:
        """Mean curves and areas with intervals, JSON-ready."""
        deletion, insertion = self.areas()
        return {
            "deletion_area": mean_interval(deletion).to_dict(),
            "insertion_area": mean_interval(insertion).to_dict(),
            "fraction": self.fraction.tolist(),
            "deletion": self.deletion.mean(0).tolist(),
            "insertion": self.insertion.mean(0).tolist(),
        }


def deletion_and_insertion(
    probability_of: Callable[[np.ndarray], np.ndarray],
    pixels_NxHxWx3: np.ndarray,
    importance_NxHxW: np.ndarray,
    *,
    steps: int = STEPS,
) -> Curves:
    """Deletion and insertion curves of N images.

    Args:
      probability_of: the probability (N,) of each image's explained class, for changed pixels
        (N, H, W, 3) uint8.
      pixels_NxHxWx3: uint8, the network's input.
      importance_NxHxW: maps placed on the pixels, higher is more important; ties are broken row by
        row.
      steps: S; each changes the same number of pixels.
    """
    blurred_NxHxWx3 = np.stack([blur(pixels) for pixels in pixels_NxHxWx3])
    count = importance_NxHxW[0].size
    flat = importance_NxHxW.reshape(len(importance_NxHxW), -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    rank_NxHxW = np.argsort(order, axis=1, kind="stable").reshape(importance_NxHxW.shape)
    fraction = np.linspace(0, 1, steps + 1)
    deletion, insertion = [], []
    for share in fraction:
        changed = (rank_NxHxW < round(share * count))[..., None]
        deletion.append(probability_of(np.where(changed, blurred_NxHxWx3, pixels_NxHxWx3)))
        insertion.append(probability_of(np.where(changed, pixels_NxHxWx3, blurred_NxHxWx3)))
    return Curves(fraction, np.stack(deletion, 1), np.stack(insertion, 1))


def blur(pixels_HxWx3: np.ndarray) -> np.ndarray:
    """The picture without its details, uint8."""
    radius = BLUR * max(pixels_HxWx3.shape[:2])
    blurred = Image.fromarray(pixels_HxWx3).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred)


def faithfulness_scores(
    maps: NetworkMaps, *, seed: int = 0, batch_size: int = 64
) -> dict[str, Any]:
    """Deletion and insertion by the maps, by random maps of their size, and by the middle spot."""
    explained, pixels, size = maps.explained, maps.pixels_NxHxWx3, maps.input_size
    positive = np.maximum(explained.signed_Nxhxw, 0)
    random = np.random.default_rng(seed).uniform(size=positive.shape)
    importances = {
        "maps": upsample(positive, size, explained.placement),
        "random": upsample(random, size, explained.placement),
        "spot_in_the_middle": np.repeat(spot(*size)[None], len(pixels), axis=0),
    }
    network, ids, rows = maps.network, explained.class_ids_N, np.arange(len(pixels))
    logits_of = BatchedPass.of(network, logits, batch_size=min(batch_size, len(ids)))

    def probability_of(pixels_NxHxWx3: np.ndarray) -> np.ndarray:
        logits_NxK = logits_of(network.variables, pixels_NxHxWx3)
        return apply_temperature(logits_NxK, network.temperature or 1.0)[rows, ids]

    return {
        name: deletion_and_insertion(probability_of, pixels, importance).summary()
        for name, importance in importances.items()
    }
