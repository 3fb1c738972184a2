"""What a network says about a stream of images: logits, pooled features, colours."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rcmnet_jax.data.augment import standardize
from rcmnet_jax.hosts.mesh import make_mesh, put_batch, put_replicated
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.types import Variables

# Dispatched batches whose results are not fetched yet: the device never waits for the host.
UNDER_WAY = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Outputs:
    """Of N images.

    Attributes:
      logits: (N, K) float32.
      features: (N, C) float32, the spatial mean of the last feature map.
      colours: (N, 6) float32, mean and standard deviation of red, green, blue, in [0, 1].
    """

    logits: np.ndarray
    features: np.ndarray
    colours: np.ndarray

    @classmethod
    def join(cls, parts: list["Outputs"]) -> "Outputs":
        """In their order; there must be one at least."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in dataclasses.fields(cls)
            )
        )


class Engine:
    """One compiled pass of a network over batches of one shape.

    Args:
      restored: the network.
      batch_size: images a call, rounded up to a multiple of the devices.
      mesh: the devices a batch is split over; all of them when None.
    """

    def __init__(self, restored: TrainedNetwork, *, batch_size: int = 64, mesh: Mesh | None = None):
        self._mesh = mesh or make_mesh()
        self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
        model = restored.model

        def outputs(
            variables: Variables, given: dict[str, jax.Array], image_BxHxWx3: jax.Array
        ) -> tuple[jax.Array, ...]:
            x_BxHxWx3 = image_BxHxWx3.astype(jnp.float32) / 255
            x = standardize(x_BxHxWx3, given["mean"], given["std"])
            f: Any = model.apply(variables, x, train=False, method="features")
            logits: Any = model.apply(variables, f, train=False, method="classify")
            colours = jnp.concatenate([x_BxHxWx3.mean((1, 2)), x_BxHxWx3.std((1, 2))], axis=-1)
            return logits, f.astype(jnp.float32).mean((1, 2)), colours

        self._outputs = jax.jit(outputs)
        self._variables = put_replicated(restored.variables, self._mesh)
        # Given, not built in: networks trained on other images share one program.
        given = {
            "mean": np.asarray(restored.mean, np.float32),
            "std": np.asarray(restored.std, np.float32),
        }
        self._given = put_replicated(given, self._mesh)

    def stream(self, batches: Iterable[np.ndarray]) -> Iterator[Outputs]:
        """The outputs of each batch, in order; the next is computed while one is consumed.

        Args:
          batches: (n, H, W, 3) uint8 each, n from 1 to the batch size.
        """
        pending: collections.deque = collections.deque()
        for batch in batches:
            count = len(batch)
            if count < self.batch_size:
                # Padded by repetition and cut off again, so that every call has one shape.
                padding = np.repeat(batch[-1:], self.batch_size - count, axis=0)
                batch = np.concatenate([batch, padding])
            images = put_batch(batch, self._mesh)
            pending.append((self._outputs(self._variables, self._given, images), count))
            if len(pending) > UNDER_WAY:
                yield _fetched(*pending.popleft())
        while pending:
            yield _fetched(*pending.popleft())

    def rows(self, pixels, rows: np.ndarray) -> Outputs:
        """The outputs of some images, in the order of the rows.

        Args:
          pixels: anything that gives (n, H, W, 3) uint8 for an array of n row numbers.
          rows: (N,) row numbers, one at least.
        """
        starts = range(0, len(rows), self.batch_size)
        batches = (np.asarray(pixels[rows[s : s + self.batch_size]]) for s in starts)
        return Outputs.join(list(self.stream(batches)))


def _fetched(arrays: tuple[jax.Array, ...], count: int) -> Outputs:
    return Outputs(*(np.asarray(array)[:count] for array in arrays))
