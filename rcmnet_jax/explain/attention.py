"""Attention of RCMNet: weights of the self-attention, gates of CBAM.

They show what a part of the network passes on, not what the decision depends on, which is
Grad-CAM's question.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from rcmnet_jax.errors import UserError
from rcmnet_jax.types import Variables


class Gates(NamedTuple):
    """The gates of one CBAM, each in (0, 1); zero weights give 0.5.

    Attributes:
      channel_BxC: how much of each channel passes.
      spatial_Bxhxw: how much of each position passes.
    """

    channel_BxC: jax.Array
    spatial_Bxhxw: jax.Array


class Attention(NamedTuple):
    """The self-attention of a BoT block.

    Attributes:
      weights_BxNxTxT: for head n, row t holds the weights of position t on all T = h * w positions
        (row by row of the map); they sum to 1.
      size: (h, w) of the map.
    """

    weights_BxNxTxT: jax.Array
    size: tuple[int, int]


def attention_maps(model: nn.Module, variables: Variables, x_BxHxWx3: jax.Array) -> Attention:
    """The weights of the self-attention: 4 heads of 144 x 144 at the paper's size.

    Args:
      model: RCMNet or ResNet18-M.
      variables: ``{"params": ..., "batch_stats": ...}``.
      x_BxHxWx3: float32 images, preprocessed as in training.

    Raises:
      UserError: the network has no self-attention.
    """
    f_BxhxwxC, kept = _run(model, variables, x_BxHxWx3)
    if "bot" not in kept:
        raise UserError("the network has no self-attention: it is in rcmnet and resnet18_m")
    (weights_BxNxTxT,) = kept["bot"]["mhsa"]["attention"]
    return Attention(weights_BxNxTxT.astype(jnp.float32), f_BxhxwxC.shape[1:3])


def rollout(attention: Attention, position: tuple[int, int]) -> jax.Array:
    """Where the output of the block at one position comes from.

    Attention rollout (Abnar & Zuidema 2020) of one block: the mean over the heads, averaged with
    the shortcut around the block, ``(mean_n weights + I) / 2``.

    Args:
      attention: from `attention_maps`.
      position: (row, column) in the map.

    Returns:
      (B, h, w) float32, summing to 1 for each image.

    Raises:
      UserError: the position is not in the map.
    """
    height, width = attention.size
    row, column = position
    if not (0 <= row < height and 0 <= column < width):
        raise UserError(
            f"position {position} is not in the map: rows 0 to {height - 1}, columns 0 to"
            f" {width - 1}"
        )
    token = row * width + column
    shares_BxT = attention.weights_BxNxTxT[:, :, token].mean(1) / 2
    return shares_BxT.at[:, token].add(0.5).reshape(-1, height, width)


def cbam_gates(model: nn.Module, variables: Variables, x_BxHxWx3: jax.Array) -> dict[str, Gates]:
    """The gates of every CBAM, by its layer's name, ``stage1/block1/cbam`` and so on.

    Args:
      model: RCMNet or ResNet18-C.
      variables: ``{"params": ..., "batch_stats": ...}``.
      x_BxHxWx3: float32 images, preprocessed as in training.

    Raises:
      UserError: the network has no CBAM.
    """
    _, kept = _run(model, variables, x_BxHxWx3)
    gates = {}
    for layer in getattr(model, "layers", {}):
        if layer.endswith("/cbam"):
            stage, block, _ = layer.split("/")
            cbam = kept[stage][block]["cbam"]
            gates[layer] = Gates(cbam["channel"]["gate"][0], cbam["spatial"]["gate"][0])
    if not gates:
        raise UserError("the network has no CBAM: it is in rcmnet and resnet18_c")
    return gates


def _run(model: nn.Module, variables: Variables, x_BxHxWx3: jax.Array):
    """The feature map, and the intermediates that the modules sowed."""
    f_BxhxwxC, collections = _compiled_run(model, dict(variables), x_BxHxWx3)
    return f_BxhxwxC, collections.get("intermediates", {})


@partial(jax.jit, static_argnames="model")
def _compiled_run(model, variables, x_BxHxWx3):
    return model.apply(
        variables, x_BxHxWx3, train=False, method="features", mutable=["intermediates"]
    )
