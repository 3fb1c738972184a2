"""What a pass over images computes: functions for `BatchedPass`."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.types import Variables

Batch = Mapping[str, jax.Array]


class Outputs(NamedTuple):
    """What a classifier and its gate need of N images.

    Attributes:
      logits: (N, K) float32.
      features: (N, C) float32, the spatial mean of the last feature map.
      colours: (N, 6) float32, mean and standard deviation of red, green, blue, in [0, 1].
      contrasts: (N,) float32, see `nucleus_contrast`.
    """

    logits: Any
    features: Any
    colours: Any
    contrasts: Any


def logits(model: nn.Module, variables: Variables, x_BxHxWx3: jax.Array, batch: Batch) -> jax.Array:
    """Logits (B, K)."""
    del batch
    logits_BxK: Any = model.apply(variables, x_BxHxWx3, train=False)
    return logits_BxK


def logits_of_features(
    model: nn.Module, variables: Variables, f_BxhxwxC: jax.Array, batch: Batch
) -> jax.Array:
    """Logits (B, K) of feature maps, pooled or not; for a pass without mean and std."""
    del batch
    logits_BxK: Any = model.apply(variables, f_BxhxwxC, train=False, method="classify")
    return logits_BxK


def mean_features(
    model: nn.Module, variables: Variables, x_BxHxWx3: jax.Array, batch: Batch
) -> jax.Array:
    """The spatial mean (B, C) of the last feature map, float32."""
    del batch
    f: Any = model.apply(variables, x_BxHxWx3, train=False, method="features")
    return f.astype(jnp.float32).mean((1, 2))


def logits_features_colours(
    model: nn.Module, variables: Variables, x_BxHxWx3: jax.Array, batch: Batch
) -> Outputs:
    """Everything that a verdict rests on, from one forward pass."""
    f: Any = model.apply(variables, x_BxHxWx3, train=False, method="features")
    rgb_BxHxWx3 = batch["image"].astype(jnp.float32) / 255
    return Outputs(
        logits=model.apply(variables, f, train=False, method="classify"),
        features=f.astype(jnp.float32).mean((1, 2)),
        colours=jnp.concatenate([rgb_BxHxWx3.mean((1, 2)), rgb_BxHxWx3.std((1, 2))], axis=-1),
        contrasts=nucleus_contrast(rgb_BxHxWx3),
    )


def nucleus_contrast(rgb_BxHxWx3: jax.Array) -> jax.Array:
    """How much darker the middle of each image is than its border, in red light, (B,).

    Stained nuclei, and the granules of platelets, absorb red; red cells and background hardly do.
    On an 8x8 grid, which averages noise out: a low quantile of the 28 border cells minus the second
    darkest of the 16 central ones. Flat images give 0, and so do gradients from side to side.

    Args:
      rgb_BxHxWx3: images in [0, 1].
    """
    grid = jax.image.resize(rgb_BxHxWx3[..., 0], (rgb_BxHxWx3.shape[0], 8, 8), "linear")
    inside = np.zeros((8, 8), bool)
    inside[1:-1, 1:-1] = True
    border = jnp.sort(grid[:, ~inside], axis=1)
    middle = jnp.sort(grid[:, 2:-2, 2:-2].reshape(-1, 16), axis=1)
    return border[:, 9] - middle[:, 1]


def softmax(logits_NxK: np.ndarray) -> np.ndarray:
    """Row-wise softmax in float64, so that rows sum to one as far as the metrics can see."""
    shifted = logits_NxK.astype(np.float64) - logits_NxK.max(axis=-1, keepdims=True)
    exponential = np.exp(shifted)
    return exponential / exponential.sum(axis=-1, keepdims=True)
