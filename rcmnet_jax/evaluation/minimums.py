"""The fewest images from which a temperature, a gate or a review threshold can be fitted.

Below these numbers nothing is fitted, and what is missing is said instead. They are for images that
the network was not trained on: a validation part, or the pooled held-out parts of several folds.

- `TEMPERATURE_IMAGES`: with networks whose probabilities are right as they are, or off by up to a
  factor of 3, a temperature fitted on 8 images makes the calibration error of new images worse in
  10 to 80 % of draws and may double it; from 50 on the error of the fit is small against what it
  corrects (`fit_temperature` further asks for evidence that the temperature is not 1).
- `GATE_IMAGES`: the gate sends to review what is further out than 98 % of the validation images.
  From n images a share of about 1 / (n + 1) of new ones lies further out than all of them, so with
  fewer than 50 that quantile is no more than the largest distance seen.
- `REVIEWED_IMAGES`: a threshold for a review budget r is chosen such that r n of n images lie below
  it. Of new images a share with a relative error of 1 / sqrt(r n) does: 45 % from 5 images. With
  less than one image below, the thresholds of different budgets are one number.
"""

import math

TEMPERATURE_IMAGES = 50
GATE_IMAGES = 50
REVIEWED_IMAGES = 5


def review_images(budget: float) -> int:
    """Images needed to choose the threshold of a review budget, a share in [0, 1)."""
    return math.ceil(round(REVIEWED_IMAGES / budget, 6)) if budget > 0 else 1


def shortage(what: str, count: int, needed: int) -> str | None:
    """Why something cannot be fitted on `count` images, or None where there are enough.

    Args:
        what: what is to be fitted, with its article, such as ``"a temperature"``.
        count: validation images at hand.
        needed: the fewest that suffice.
    """
    if count >= needed:
        return None
    return f"{what} needs at least {needed} validation images, and there are {count}"
