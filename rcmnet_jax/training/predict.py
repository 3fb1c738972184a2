"""Logits of any number of images, in batches of one shape, none dropped."""

import functools

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from rcmnet_jax.data.batches import prefetch
from rcmnet_jax.training.mesh import make_mesh, put_batch, put_replicated
from rcmnet_jax.training.steps import predict_step
from rcmnet_jax.types import Variables


class Predictor:
    """One compiled prediction of a network, for any variables and any images.

    Args:
      model: one of our networks.
      mean: per-channel mean to standardise with, in [0, 1].
      std: per-channel standard deviation.
      batch_size: images a call, rounded up to a multiple of the devices; every call has this
        shape, so there is one compilation.
      mesh: the devices a batch is split over; all of them when None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        batch_size: int = 64,
        mesh: Mesh | None = None,
    ):
        self._mesh = mesh or make_mesh()
        self._batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
        self._predict = jax.jit(functools.partial(predict_step, model.apply, mean=mean, std=std))
        self._classify = jax.jit(functools.partial(model.apply, train=False, method="classify"))

    def logits(self, variables: Variables, pixels, rows: np.ndarray) -> np.ndarray:
        """Logits of some images.

        Args:
          variables: ``params`` and ``batch_stats``.
          pixels: anything that gives (n, H, W, 3) uint8 for an array of n row numbers.
          rows: (N,) row numbers; N may be any number, zero included.

        Returns:
          (N, K) float32, in the order of the rows.
        """
        return self._in_batches(self._predict, variables, pixels, rows)

    def logits_of_features(self, variables: Variables, features: np.ndarray) -> np.ndarray:
        """Logits (N, K) of feature maps (N, h, w, C), pooled or not: the classifier alone."""
        return self._in_batches(self._classify, variables, features, np.arange(len(features)))

    def _in_batches(self, compiled, variables: Variables, source, rows: np.ndarray) -> np.ndarray:
        size = self._batch_size
        # A restored network lies on one device, whatever the mesh is.
        variables = put_replicated(variables, self._mesh)
        starts = range(0, len(rows), size)
        pending: list[tuple[jax.Array, int]] = []
        for piece in prefetch((source[rows[s : s + size]] for s in starts), ahead=2):
            count = len(piece)
            if count < size:
                # Padded by repetition and cut off again, so the last images count like all.
                piece = np.concatenate([piece, np.repeat(piece[-1:], size - count, axis=0)])
            pending.append((compiled(variables, put_batch(piece, self._mesh)), count))
        if not pending:
            return np.empty((0, 0), np.float32)
        return np.concatenate([np.asarray(logits)[:count] for logits, count in pending])


def softmax(logits_NxK: np.ndarray) -> np.ndarray:
    """Row-wise softmax in float64, so that rows sum to one as far as the metrics can see."""
    shifted = logits_NxK.astype(np.float64) - logits_NxK.max(axis=-1, keepdims=True)
    exponential = np.exp(shifted)
    return exponential / exponential.sum(axis=-1, keepdims=True)
