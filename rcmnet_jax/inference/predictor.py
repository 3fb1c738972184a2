"""Logits of any number of images, in batches of one shape, none dropped."""

import collections
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from rcmnet_jax.data.augment import standardize
from rcmnet_jax.data.batches import prefetch, process_share
from rcmnet_jax.hosts.mesh import make_mesh, put_batch, put_replicated, replicated
from rcmnet_jax.types import Variables

# Batches that are asked for before the first of them is waited for.
AHEAD = 2


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
        # Logits on every device, so that every process of a run has them all.
        everywhere = replicated(self._mesh)
        self._predict = jax.jit(
            functools.partial(predict_step, model.apply), out_shardings=everywhere
        )
        # Given, not built in: runs on other images share one program.
        given = {"mean": np.asarray(mean, np.float32), "std": np.asarray(std, np.float32)}
        self._given = put_replicated(given, self._mesh)
        self._classify = jax.jit(
            functools.partial(model.apply, train=False, method="classify"),
            out_shardings=everywhere,
        )

    def logits(self, variables: Variables, pixels, rows: np.ndarray) -> np.ndarray:
        """Logits of some images.

        Args:
          variables: ``params`` and ``batch_stats``.
          pixels: anything that gives (n, H, W, 3) uint8 for an array of n row numbers.
          rows: (N,) row numbers; N may be any number, zero included.

        Returns:
          (N, K) float32, in the order of the rows.
        """
        predict = functools.partial(self._predict, **self._given)
        return self._in_batches(predict, variables, pixels, rows)

    def logits_of_features(self, variables: Variables, features: np.ndarray) -> np.ndarray:
        """Logits (N, K) of feature maps (N, h, w, C), pooled or not: the classifier alone."""
        return self._in_batches(self._classify, variables, features, np.arange(len(features)))

    def _in_batches(self, compiled, variables: Variables, source, rows: np.ndarray) -> np.ndarray:
        if not len(rows):
            return np.empty((0, 0), np.float32)
        # A restored network lies on one device, whatever the mesh is.
        variables = put_replicated(variables, self._mesh)
        pieces = prefetch((source[share] for share in self._shares(rows)), ahead=2)
        done: list[np.ndarray] = []
        pending: collections.deque[jax.Array] = collections.deque()
        for piece in pieces:
            pending.append(compiled(variables, put_batch(piece, self._mesh)))
            # Waited for now and then, or fast reading would pile up pixels before the device.
            if len(pending) > AHEAD:
                done.append(np.asarray(pending.popleft()))
        return np.concatenate([*done, *map(np.asarray, pending)])[: len(rows)]

    def _shares(self, rows: np.ndarray) -> Iterator[np.ndarray]:
        """The rows of each batch that this process reads; the last batch is filled up."""
        size = self._batch_size
        # By repetition, cut off again, so that the last images count like all.
        filled = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % size)])
        for start in range(0, len(filled), size):
            batch = filled[start : start + size]
            yield process_share(batch, jax.process_index(), jax.process_count())


def predict_step(
    apply_fn, variables: Variables, image_BxHxWx3: jax.Array, *, mean, std
) -> jax.Array:
    """Logits (B, K) of uint8 images, standardised by ``mean`` and ``std`` (3,), not augmented."""
    x_BxHxWx3 = standardize(image_BxHxWx3.astype(jnp.float32) / 255, mean, std)
    return apply_fn(variables, x_BxHxWx3, train=False)


def softmax(logits_NxK: np.ndarray) -> np.ndarray:
    """Row-wise softmax in float64, so that rows sum to one as far as the metrics can see."""
    shifted = logits_NxK.astype(np.float64) - logits_NxK.max(axis=-1, keepdims=True)
    exponential = np.exp(shifted)
    return exponential / exponential.sum(axis=-1, keepdims=True)
