"""When a backbone is frozen, its features are constants: they are computed once.

The paper's fine-tuning shows a frozen network the same six views of the same images in every
epoch. Their pooled features are what the classifier sees, so training it takes one pass of the
backbone instead of one an epoch, and no pixel is touched again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict

from rcmnet_jax.types import Variables


def backbone_paths(model: nn.Module, input_shape: Sequence[int]) -> frozenset[str]:
    """Paths such as ``stage1/block1/conv1/kernel`` of the parameters that `features` uses.

    Args:
      model: one of our networks.
      input_shape: (B, H, W, 3).
    """
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False, method="features"),
        jax.random.key(0),
        jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32),
    )
    return frozenset("/".join(path) for path in flatten_dict(shapes["params"]))


def why_not_constant(
    model: nn.Module,
    input_shape: Sequence[int],
    *,
    trainable: Sequence[str] | None,
    frozen_norm: bool,
    jitter: bool,
) -> str:
    """Why the features of a view change during training, in a few words; "" if they do not.

    Args:
      model: one of our networks.
      input_shape: (B, H, W, 3).
      trainable: paths of the parameters that train at any time; None: all.
      frozen_norm: batch norm uses its running statistics.
      jitter: views differ from one time to the next in more than their orientation.
    """
    # In this order: to know the paths the network is traced, which takes a second.
    if trainable is None or not backbone_paths(model, input_shape).isdisjoint(trainable):
        return "the backbone trains"
    if not frozen_norm and _has_batch_stats(model, input_shape):
        return "batch norm is not frozen"
    if jitter:
        return "the augmented images vary at random"
    return ""


def pooled_features(
    model: nn.Module,
    variables: Variables,
    x_BxHxWx3: jax.Array,
    batch: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
    """What the classifier is given; a function for `rcmnet_jax.inference.BatchedPass`.

    Args:
      model: one of our networks.
      variables: ``params`` and ``batch_stats``.
      x_BxHxWx3: standardised images.
      batch: not used.

    Returns:
      (B, h, w, C) float32, pooled as far as ``classify`` would: 1x1 in the ResNet family, at
      most 7x7 cells in VGG19, 6x6 in AlexNet.
    """
    del batch
    features: Any = model.apply(variables, x_BxHxWx3, train=False, method="features")
    pooled: Any = model.apply(variables, features, method="pool")
    return pooled


def _has_batch_stats(model: nn.Module, input_shape: Sequence[int]) -> bool:
    shapes = jax.eval_shape(
        lambda key, x: model.init(key, x, train=False),
        jax.random.key(0),
        jax.ShapeDtypeStruct(tuple(input_shape), jnp.float32),
    )
    return "batch_stats" in shapes
