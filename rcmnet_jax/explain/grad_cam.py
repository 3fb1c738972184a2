"""Grad-CAM by `jax.grad` (RCMNet section 3.5; Selvaraju et al. 2017).

The gradient is taken with respect to the feature map, and nothing below the map is differentiated,
so a map costs little more than a forward pass. There are no hooks.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.errors import UserError
from rcmnet_jax.explain.map_layers import TARGETS, check_layer, map_and_gradient
from rcmnet_jax.explain.methods import METHODS
from rcmnet_jax.types import Variables


class ClassMaps(NamedTuple):
    """Maps and logits of a batch, from one forward pass.

    Attributes:
      cam_Bxhxw: raw maps, float32.
      logits_BxK: float32.
    """

    cam_Bxhxw: jax.Array
    logits_BxK: jax.Array


def grad_cam(
    model: nn.Module,
    variables: Variables,
    x_BxHxWx3: jax.Array,
    class_ids_B: jax.Array,
    *,
    target: str = "logit",
    layer: str | None = None,
    relu: bool = True,
) -> jax.Array:
    """Raw Grad-CAM maps of a batch of images, one for the given class of each.

    RCMNet Eq. 7-8 (Selvaraju et al. 2017, Eq. 1-2), for the feature map A of channels k::

        alpha_k = mean over (i, j) of dS_c / dA_ijk
        map_ij  = ReLU(sum over k of alpha_k A_ijk)

    The network runs in evaluation mode (``train=False``), so the images of a batch do not
    influence each other. Pure; compiled on first use for a model and shape, and usable inside
    `jax.jit`.

    Args:
      model: one of the six networks, or any Linen module with ``features`` and ``classify``
        methods and a ``num_classes`` field.
      variables: ``{"params": ..., "batch_stats": ...}``.
      x_BxHxWx3: float32 images (B, H, W, 3), preprocessed as in training.
      class_ids_B: integer class to explain for each image, (B,), in [0, K). Under a trace they
        cannot be checked; an id out of range then gives a map of NaN.
      target: S, the class ``logit``, or the softmax ``probability`` as RCMNet writes it.
      layer: whose output A is, one of ``model.layers``: ``stage3``, ``stage3/block2/cbam``,
        ``bot``, ... None: ``model.features(x)``, the last, after the BoT block where there is one.
      relu: ``False`` leaves the map signed; evidence against the class is negative.

    Returns:
      (B, h, w) float32, neither normalised nor resized.

    Raises:
      UserError: unknown target or layer, class ids not (B,) integers, or a class id out of range.
    """
    maps = class_maps(
        model, variables, x_BxHxWx3, class_ids_B, target=target, layer=layer, relu=relu
    )
    return maps.cam_Bxhxw


def class_maps(
    model: nn.Module,
    variables: Variables,
    x_BxHxWx3: jax.Array,
    class_ids_B: jax.Array | None,
    *,
    method: str = "grad_cam",
    target: str = "logit",
    layer: str | None = None,
    relu: bool = True,
) -> ClassMaps:
    """Maps by Grad-CAM or a related method, with the logits of the same forward pass.

    Args:
      model, variables, x_BxHxWx3, target, layer, relu: as for `grad_cam`.
      class_ids_B: as for `grad_cam`; None explains the class with the largest logit.
      method: a key of `METHODS`: ``grad_cam``, ``grad_cam_pp``, ``hires_cam``, ``layer_cam`` or
        ``eigen_cam``.

    Raises:
      UserError: as `grad_cam`, or an unknown method.
    """
    if target not in TARGETS:
        raise UserError(f"Grad-CAM target {target!r} is not one of {', '.join(TARGETS)}")
    if method not in METHODS:
        raise UserError(f"the method {method!r} is not one of {', '.join(METHODS)}")
    check_layer(model, layer)
    if class_ids_B is not None:
        class_ids_B = checked_class_ids(class_ids_B, x_BxHxWx3.shape[0], model.num_classes)
    return _class_maps(model, dict(variables), x_BxHxWx3, class_ids_B, method, target, layer, relu)


@partial(jax.jit, static_argnames=("model", "method", "target", "layer", "relu"))
def _class_maps(model, variables, x_BxHxWx3, class_ids_B, method, target, layer, relu) -> ClassMaps:
    a_BxhxwxC, g_BxhxwxC, logits_BxK = map_and_gradient(
        model, variables, x_BxHxWx3, class_ids_B, target, layer
    )
    cam_Bxhxw = METHODS[method](a_BxhxwxC, g_BxhxwxC)
    if relu:
        cam_Bxhxw = nn.relu(cam_Bxhxw)
    if class_ids_B is not None:
        valid_B = (class_ids_B >= 0) & (class_ids_B < model.num_classes)
        cam_Bxhxw = jnp.where(valid_B[:, None, None], cam_Bxhxw, jnp.nan)
    return ClassMaps(cam_Bxhxw, logits_BxK)


def checked_class_ids(class_ids, batch: int, num_classes: int) -> jax.Array:
    """One class per image, int32; `UserError` for another shape, type or a class out of range."""
    if np.shape(class_ids) != (batch,):
        raise UserError(
            f"class_ids must be one class per image, shape ({batch},); got {np.shape(class_ids)}"
        )
    if not isinstance(class_ids, jax.core.Tracer):
        concrete = np.asarray(class_ids)
        if not np.issubdtype(concrete.dtype, np.integer):
            raise UserError(f"class_ids must be integers, got {concrete.dtype}")
        outside = concrete[(concrete < 0) | (concrete >= num_classes)]
        if outside.size:
            raise UserError(
                f"class id {outside[0]} does not exist: the network has the classes 0 to"
                f" {num_classes - 1}"
            )
    return jnp.asarray(class_ids, jnp.int32)
