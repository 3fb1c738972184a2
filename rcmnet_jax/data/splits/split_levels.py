"""What a split keeps whole: patients, slides, laboratories, folds, or single images."""

import logging
from collections.abc import Mapping

import numpy as np

from rcmnet_jax.errors import DataError

logger = logging.getLogger(__name__)

GROUP_LEVELS = ("patient", "slide", "lab", "fold")
GROUP_CHOICES = ("auto", *GROUP_LEVELS, "image")
# With more blanks than this, a split by patient would be one by image for many of them.
MAX_BLANK = 0.1


def choose_groups(
    ids: Mapping[str, np.ndarray], level: str = "auto", *, files: np.ndarray
) -> tuple[np.ndarray | None, str]:
    """Picks the groups that must not be divided between the parts of a split.

    Args:
        ids: of each of `GROUP_LEVELS`, each (N,) of str, "" where unknown.
        level: one of `GROUP_CHOICES`. "auto" is the first of patient, slide and fold that is known
            for (nearly) all images, else the image; never the lab, since most sets come from one.
        files: of the images, (N,).

    Returns:
        Ids, (N,) of str, or None for "image"; and the level chosen. Up to a tenth of images without
        an id become groups of their own, with a warning.

    Raises:
        DataError: unknown level, or more images without an id.
    """
    if level not in GROUP_CHOICES:
        raise DataError(f"unknown level {level!r}: choose from {', '.join(GROUP_CHOICES)}")
    if level == "image":
        return None, level
    incomplete = ""
    for name in ("patient", "slide", "fold") if level == "auto" else (level,):
        blank = ids[name] == ""
        count = int(np.sum(blank))
        if not count:
            return ids[name], name
        if count <= MAX_BLANK * len(blank):
            logger.warning(
                "%d of %d images have no %s (such as %s): each is kept as a %s of its own; fill in"
                " the manifest",
                *(count, len(blank), name, files[blank][0], name),
            )
            own = [f"no {name}: {file}" for file in files]
            return np.where(blank, own, ids[name]), name
        if count < len(blank):
            incomplete = incomplete or f"{count} of {len(blank)} images have no {name}"
    if incomplete or level != "auto":
        raise DataError(
            f"{incomplete or f'the images have no {level}'}: fill in the manifest's column, or"
            " split by image (data.split.group_by=image, --group-by image)"
        )
    return None, "image"
