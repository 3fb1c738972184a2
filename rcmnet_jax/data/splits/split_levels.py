"""What a split keeps whole: patients, slides, laboratories, or single images."""

from collections.abc import Mapping

import numpy as np

from rcmnet_jax.errors import DataError

GROUP_CHOICES = ("auto", "patient", "slide", "lab", "image")


def choose_groups(
    ids: Mapping[str, np.ndarray], level: str = "auto"
) -> tuple[np.ndarray | None, str]:
    """Picks the groups that must not be divided between the parts of a split.

    Args:
        ids: of patient, slide and lab, each (N,) of str, "" where unknown.
        level: one of `GROUP_CHOICES`. "auto" is the patient where every image has one, else the
            slide, else the image; never the lab, since most sets come from one.

    Returns:
        Ids, (N,) of str, or None for "image"; and the level chosen.

    Raises:
        DataError: unknown level.
    """
    if level not in GROUP_CHOICES:
        raise DataError(f"unknown level {level!r}: choose from {', '.join(GROUP_CHOICES)}")
    if level == "auto":
        level = next((name for name in ("patient", "slide") if np.all(ids[name] != "")), "image")
    return (None if level == "image" else ids[level]), level
