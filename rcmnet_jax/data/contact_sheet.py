"""A picture of what an augmentation does to some images, to look at before training with it."""

import jax
import jax.numpy as jnp
import numpy as np

from rcmnet_jax.data.augment import augment
from rcmnet_jax.data.augment_settings import PAPER_VIEWS, Augmentation
from rcmnet_jax.data.preprocess import Preprocess, decode_image
from rcmnet_jax.data.sources import Source
from rcmnet_jax.errors import BadImageError, DataError

_GAP = 2  # White pixels between the pictures.


def contact_sheet(
    images_NxHxWx3: np.ndarray,
    augmentation: Augmentation,
    key: jax.Array,
    *,
    samples: int = 11,
) -> np.ndarray:
    """A row for each image: itself, then as training may show it.

    Args:
      images_NxHxWx3: uint8.
      augmentation: as in training.
      key: of the random draws.
      samples: augmented pictures in a row.

    Returns:
      uint8 (height, width, 3).
    """
    count, height, width = images_NxHxWx3.shape[:3]
    augmentation.require_shape(height, width)
    shown = np.empty((count, samples + 1, height, width, 3), np.uint8)
    shown[:, 0] = images_NxHxWx3
    draw = jax.jit(augment, static_argnames="augmentation")
    for column in range(samples):
        views = jnp.full(count, column % PAPER_VIEWS, jnp.int32)
        column_key = jax.random.fold_in(key, column)
        augmented = draw(images_NxHxWx3, views, column_key, augmentation=augmentation)
        shown[:, column + 1] = np.round(255 * np.asarray(augmented))
    around = ((0, 0), (0, 0), (0, _GAP), (0, _GAP), (0, 0))
    framed = np.pad(shown, around, constant_values=255)
    return framed.swapaxes(1, 2).reshape(count * (height + _GAP), -1, 3)


def sample_images(
    source: Source, preprocess: Preprocess, *, per_class: int, seed: int = 0
) -> np.ndarray:
    """Some images of each class, class after class, uint8 (N, H, W, 3).

    Raises:
      DataError: no file can be decoded.
    """
    rng, images = np.random.default_rng(seed), []
    for name in source.class_names:
        files = [file for file in source.files if file.label == name]
        found = 0
        for number in rng.permutation(len(files)):
            if found == per_class:
                break
            try:
                images.append(decode_image(source.read(files[number]), preprocess))
            except BadImageError:
                # `rcmnet data audit` lists what cannot be used; here another image will do.
                continue
            found += 1
    if not images:
        raise DataError(f"{source.path} has no image that can be decoded: see rcmnet data audit")
    return np.stack(images)
