"""Maps of any number of images, in batches of one shape, none dropped."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.grad_cam import ClassMaps, checked_class_ids, class_maps
from rcmnet_jax.explain.map_layers import TARGETS, check_layer, layer_grid
from rcmnet_jax.explain.methods import METHODS
from rcmnet_jax.explain.overlay import Placement
from rcmnet_jax.explain.smoothing import dihedral_mean
from rcmnet_jax.inference import BatchedPass
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
        maps = partial(_maps, method=method, target=target, layer=layer)
        self._model, self._pass = model, partial(BatchedPass, maps, model, mean=mean, std=std)

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
        if class_ids_N is not None:
            class_ids_N = np.asarray(checked_class_ids(class_ids_N, count, self._model.num_classes))
        # A few images make a small batch: a map costs more than a forward pass.
        maps_of = self._pass(batch_size=min(self._batch_size, count))
        maps = maps_of(variables, pixels_NxHxWx3, per_image=_ids(class_ids_N))
        if class_ids_N is None:
            class_ids_N = maps.logits_BxK.argmax(1)
        if not self._smooth:
            return Explained(maps.cam_Bxhxw, class_ids_N, maps.logits_BxK, self._grid)
        # The same class in every view. In pieces, since the mean holds eight maps of image size.
        smoothed = []
        for start in range(0, count, maps_of.batch_size):
            piece = slice(start, start + maps_of.batch_size)

            def cams(x: jax.Array, piece: slice = piece) -> jax.Array:
                ids = _ids(class_ids_N[piece])
                return maps_of(variables, np.asarray(x), per_image=ids).cam_Bxhxw

            pixels = jnp.asarray(pixels_NxHxWx3[piece])
            smoothed.append(dihedral_mean(cams, pixels, self._grid)[0])
        # Smoothed maps lie on the pixels themselves.
        return Explained(np.concatenate(smoothed), class_ids_N, maps.logits_BxK, Grid(1, 0))


def _maps(model, variables, x_BxHxWx3, batch, **options) -> ClassMaps:
    """The signed maps of a batch, for `BatchedPass`."""
    return class_maps(model, variables, x_BxHxWx3, batch.get("class_ids"), relu=False, **options)


def _ids(class_ids_N: np.ndarray | None) -> dict[str, np.ndarray]:
    return {} if class_ids_N is None else {"class_ids": class_ids_N.astype(np.int32)}
