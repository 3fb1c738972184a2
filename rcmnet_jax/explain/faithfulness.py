"""Does the class hang on the pixels that the map marks? (Petsiuk et al. 2018, deletion, insertion)

Deletion blurs the picture from the most important pixel on: the probability should fall early.
Insertion starts with the blurred picture and brings the most important pixels back first: it should
rise early. Blurred, since a picture with black holes is like none the network has seen.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from rcmnet_jax.explain.localisation import mean_interval

STEPS = 16
# Standard deviation of the blur, as a share of the longer side: nothing of a nucleus is left.
BLUR = 0.1


@dataclasses.dataclass(frozen=True)
class Curves:
    """Probability of the explained class while pixels go and come.

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
    """Both curves of some images.

    Args:
      probability_of: for pixels (N, H, W, 3) uint8, the probability (N,) of the class that each
        image's map is of.
      pixels_NxHxWx3: uint8, as preprocessed for the network.
      importance_NxHxW: maps placed on the pixels, higher is more important; equal values are taken
        row by row.
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
