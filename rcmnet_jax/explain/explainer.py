"""Maps of any number of images, in batches of one shape, none dropped."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.data.augment import standardize
from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.grad_cam import class_maps
from rcmnet_jax.explain.layers import TARGETS, check_layer, layer_grid
from rcmnet_jax.explain.methods import METHODS
from rcmnet_jax.explain.overlay import Placement
from rcmnet_jax.explain.smoothing import dihedral_mean
from rcmnet_jax.models.grid import Grid
from rcmnet_jax.types import Variables


@dataclasses.dataclass(frozen=True)
class Explained:
    """Maps of N images.

    Attributes:
      signed_Nxhxw: raw maps before ReLU, float32.
      class_ids_N: the classes they are of.
      logits_NxK: of the network, float32.
      placement: where the maps' cells lie in the images.
    """

    signed_Nxhxw: np.ndarray
    class_ids_N: np.ndarray
    logits_NxK: np.ndarray
    placement: Placement


class Explainer:
    """One way of explaining a network, for any variables and any pixels.

    Args:
      model: one of our networks.
      mean: per-channel mean to standardise with, in [0, 1].
      std: per-channel standard deviation.
      method: a key of `METHODS`.
      target: ``logit`` or ``probability``.
      layer: one of ``model.layers``; the last when None.
      smooth: average over the rotations and mirror images, at eight times the cost; the maps then
        have the size of the images.
      batch_size: images a call.

    Raises:
      UserError: unknown method, target or layer, or a batch of less than one.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        method: str = "grad_cam",
        target: str = "logit",
        layer: str | None = None,
        smooth: bool = False,
        batch_size: int = 32,
    ):
        check_layer(model, layer)
        for what, value, known in (("method", method, METHODS), ("target", target, TARGETS)):
            if value not in known:
                raise UserError(f"the {what} {value!r} is not one of {', '.join(known)}")
        if batch_size < 1:
            raise UserError(f"the batch size must be at least 1, got {batch_size}")
        self._grid = layer_grid(model, layer)
        self._smooth, self._batch_size = smooth, batch_size
        self._maps = partial(
            class_maps, model, method=method, target=target, layer=layer, relu=False
        )
        self._standardize = jax.jit(lambda pixels: standardize(pixels / 255.0, mean, std))

    def __call__(
        self,
        variables: Variables,
        pixels_NxHxWx3: np.ndarray,
        class_ids_N: np.ndarray | None = None,
    ) -> Explained:
        """Explains images.

        Args:
          variables: ``params`` and ``batch_stats``.
          pixels_NxHxWx3: uint8, as preprocessed for the network; at least one image.
          class_ids_N: classes to explain; the predicted ones when None.

        Raises:
          UserError: a class id out of range, or no images.
        """
        count = len(pixels_NxHxWx3)
        if count == 0:
            raise UserError("there are no images to explain")
        size = min(self._batch_size, count)
        cams, logits = [], []
        for start in range(0, count, size):
            # Padded by repetition, so that every call has one shape; cut off again below.
            rows = np.minimum(np.arange(start, start + size), count - 1)
            ids = None if class_ids_N is None else np.asarray(class_ids_N)[rows]
            cam, logit = self._batch(variables, pixels_NxHxWx3[rows], ids)
            cams.append(np.asarray(cam))
            logits.append(np.asarray(logit))
        signed_Nxhxw, logits_NxK = (np.concatenate(parts)[:count] for parts in (cams, logits))
        if class_ids_N is None:
            class_ids_N = logits_NxK.argmax(1)
        # Smoothed maps lie on the pixels themselves.
        placement = Grid(1, 0) if self._smooth else self._grid
        return Explained(signed_Nxhxw, np.asarray(class_ids_N), logits_NxK, placement)

    def _batch(self, variables, pixels, ids):
        x_BxHxWx3 = self._standardize(jnp.asarray(pixels))
        cam, logits = self._maps(variables, x_BxHxWx3, ids)
        if not self._smooth:
            return cam, logits
        # The same class in every view, whatever the view is taken for.
        ids = logits.argmax(1) if ids is None else ids
        mean, _ = dihedral_mean(
            lambda x: self._maps(variables, x, ids).cam_Bxhxw, x_BxHxWx3, self._grid
        )
        return mean, logits
