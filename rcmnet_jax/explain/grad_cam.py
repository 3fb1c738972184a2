"""Grad-CAM by `jax.grad`, whole batches at a time (RCMNet section 3.5; Selvaraju et al. 2017).

The gradient is taken of the classifier with respect to the feature map, which the network gives
out by its ``features`` and ``classify`` methods: no hooks, and nothing below the map is ever
differentiated, so a map costs little more than a forward pass.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.errors import UserError
from rcmnet_jax.types import Variables

# From logits (B, K) to the scores S that are explained.
TARGETS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "logit": lambda logits_BxK: logits_BxK,
    "probability": nn.softmax,
}


def grad_cam(
    model: nn.Module,
    variables: Variables,
    x_BxHxWx3: jax.Array,
    class_ids_B: jax.Array,
    *,
    target: str = "logit",
    relu: bool = True,
) -> jax.Array:
    """Raw Grad-CAM maps of a batch of images, one for the given class of each.

    RCMNet Eq. 7-8 (Selvaraju et al. 2017, Eq. 1-2), for the feature map A of channels k::

        alpha_k = mean over (i, j) of dS_c / dA_ijk
        map_ij  = ReLU(sum over k of alpha_k A_ijk)

    A is ``model.features(x)``, after the BoT block where there is one. The network runs as in
    evaluation (``train=False``), so the images of a batch do not influence each other. Pure;
    compiled on first use for a model and shape, and usable inside `jax.jit`.

    Args:
      model: one of the six networks, or any Linen module with ``features`` and ``classify``
        methods and a ``num_classes`` field.
      variables: ``{"params": ..., "batch_stats": ...}``.
      x_BxHxWx3: float32 images (B, H, W, 3), preprocessed as in training.
      class_ids_B: integer class to explain for each image, (B,), in [0, K). Under a trace they
        cannot be checked; an id out of range then gives a map of NaN.
      target: S, the class ``logit``, or the softmax ``probability`` as RCMNet writes it.
      relu: ``False`` leaves the map signed, evidence against the class being negative.

    Returns:
      (B, h, w) float32, neither normalised nor resized.

    Raises:
      UserError: unknown target, class ids not (B,) integers, or a class id out of range.
    """
    if target not in TARGETS:
        raise UserError(f"Grad-CAM target {target!r} is not one of {', '.join(TARGETS)}")
    class_ids_B = _checked_class_ids(class_ids_B, x_BxHxWx3.shape[0], model.num_classes)
    return _grad_cam(model, dict(variables), x_BxHxWx3, class_ids_B, target, relu)


@partial(jax.jit, static_argnames=("model", "target", "relu"))
def _grad_cam(model, variables, x_BxHxWx3, class_ids_B, target, relu) -> jax.Array:
    f_BxhxwxC = model.apply(variables, x_BxHxWx3, train=False, method="features")
    # In bfloat16 networks too, the gradient and the sums over the map are taken in float32.
    f_BxhxwxC = f_BxhxwxC.astype(jnp.float32)

    def score(f_BxhxwxC: jax.Array) -> jax.Array:
        logits_BxK = model.apply(variables, f_BxhxwxC, train=False, method="classify")
        scores_BxK = TARGETS[target](logits_BxK)
        # Each image's score depends on its own map only: the gradient of the sum is all of them.
        return jnp.take_along_axis(scores_BxK, class_ids_B[:, None], axis=1).sum()

    alpha_BxC = jax.grad(score)(f_BxhxwxC).mean((1, 2))
    cam_Bxhxw = jnp.einsum("bhwc,bc->bhw", f_BxhxwxC, alpha_BxC)
    if relu:
        cam_Bxhxw = nn.relu(cam_Bxhxw)
    valid_B = (class_ids_B >= 0) & (class_ids_B < model.num_classes)
    return jnp.where(valid_B[:, None, None], cam_Bxhxw, jnp.nan)


def _checked_class_ids(class_ids, batch: int, num_classes: int) -> jax.Array:
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
