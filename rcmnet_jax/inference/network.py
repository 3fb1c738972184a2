"""A trained network with everything needed to use it, wherever it was read from."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import SingleDeviceSharding

from rcmnet_jax.data.augment import standardize
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.evaluation.calibration import apply_temperature
from rcmnet_jax.inference.gate import Gate
from rcmnet_jax.kernels.backend import plainly
from rcmnet_jax.types import PyTree, Variables


@dataclasses.dataclass(frozen=True)
class TrainedNetwork:
    """A trained network with everything needed to use it.

    Attributes:
      model: the Linen module.
      variables: ``params`` and ``batch_stats``, float32, on the first local device.
      class_names: in the order of the logits.
      preprocess: how bytes become pixels.
      mean: per-channel mean to standardise with, in [0, 1].
      std: per-channel standard deviation.
      step: training step of the weights.
      meta: the checkpoint's whole record: config, data, split, provenance, scores.
      temperature: to divide the logits by for honest probabilities; None where it was not fitted.
      gate: tells what the network should not judge; None where it was not fitted.
      absent: patterns of parts that the file has no weights for, so that they start fresh;
        only where it is another network's, see `rcmnet_jax.interop.start_weights`.
    """

    model: nn.Module
    variables: Variables
    class_names: tuple[str, ...]
    preprocess: Preprocess
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    step: int
    meta: dict[str, Any]
    temperature: float | None = None
    gate: Gate | None = None
    absent: tuple[str, ...] = ()

    def standardize(self, image_BxHxWx3: jax.Array | np.ndarray) -> jax.Array:
        """uint8 images as the model takes them: float32, by the network's mean and std."""
        image = jnp.asarray(image_BxHxWx3, jnp.float32) / 255
        return standardize(image, self.mean, self.std)

    def calibrated(self, logits_NxK: np.ndarray) -> np.ndarray:
        """(N, K) float64 probabilities, by the temperature where there is one."""
        return apply_temperature(logits_NxK, self.temperature or 1.0)


def abstract_variables(model: nn.Module, preprocess: Preprocess) -> PyTree:
    """Shapes of the variables, placed on the first local device: nothing of the training device."""
    shape = (1, preprocess.height, preprocess.width, 3)
    with plainly():
        shapes = jax.eval_shape(
            lambda image: model.init(jax.random.key(0), image, train=False),
            jax.ShapeDtypeStruct(shape, jnp.float32),
        )
    here = SingleDeviceSharding(jax.local_devices()[0])
    variables = {"params": shapes["params"], "batch_stats": shapes.get("batch_stats", {})}
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here), variables
    )
