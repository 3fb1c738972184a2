"""One compiled pass of a network over any number of images, in order, none dropped."""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh

from rcmnet_jax.data.augment import apply_views, standardize
from rcmnet_jax.data.batches import prefetch, process_share
from rcmnet_jax.data.threads import progress_bar
from rcmnet_jax.hosts.mesh import make_mesh, put_batch, put_replicated, replicated
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.types import PyTree, Variables

# Batches on their way through the device before the first of them is waited for. Without a limit,
# fast reading piles up pixels in front of a slow device.
IN_FLIGHT = 2

# What a pass computes: (model, variables, x, batch) -> pytree of arrays (B, ...). ``x`` is
# ``batch["image"]`` standardised, (B, H, W, 3) float32; ``batch`` also holds what the caller gives
# per image.
ImageFunction = Callable[[nn.Module, Variables, jax.Array, Mapping[str, jax.Array]], PyTree]


class BatchedPass:
    """Applies a function of standardised images to any number of images.

    The last batch is padded by repetition and cut off again, so there is one compilation. The next
    batches are read in a thread while the device works on the one before. Each process of a
    multi-host run reads its share of every batch and gets all results.

    Args:
      function: see `ImageFunction`, e.g. `rcmnet_jax.inference.logits`.
      model: a Linen module, handed to the function.
      mean: per-channel mean to standardise with, in [0, 1]; None passes the input as it is, for
        input that is not pixels.
      std: per-channel standard deviation.
      batch_size: images a call, rounded up to a multiple of the devices.
      mesh: the devices a batch is split over; all of them when None.
    """

    def __init__(
        self,
        function: ImageFunction,
        model: nn.Module,
        *,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        batch_size: int = 64,
        mesh: Mesh | None = None,
    ):
        self._mesh = mesh or make_mesh()
        self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
        self._compiled = _compiled(function, model, self._mesh)
        # Arguments, not constants: networks trained on other images share one program.
        self._normalization = None
        if mean is not None and std is not None:
            pair = (np.asarray(mean, np.float32), np.asarray(std, np.float32))
            self._normalization = put_replicated(pair, self._mesh)

    @classmethod
    def of(
        cls,
        network: TrainedNetwork,
        function: ImageFunction,
        *,
        batch_size: int = 64,
        mesh: Mesh | None = None,
    ) -> "BatchedPass":
        """The pass with a trained network's model and normalisation."""
        return cls(
            function,
            network.model,
            mean=network.mean,
            std=network.std,
            batch_size=batch_size,
            mesh=mesh,
        )

    def __call__(
        self,
        variables: Variables,
        images: Any,
        rows: np.ndarray | None = None,
        *,
        views: Sequence[int] | None = None,
        per_image: Mapping[str, np.ndarray] | None = None,
        progress: str = "",
    ) -> PyTree:
        """The function's outputs for some images.

        Args:
          variables: ``params`` and ``batch_stats``, on any device.
          images: anything that gives (n, H, W, 3) uint8 for an array of n row numbers.
          rows: (N,) row numbers; all images when None. N may be any number, zero included.
          views: rows of `rcmnet_jax.data.augment.DIHEDRAL`; each image is shown in all of them,
            and the outputs get a leading axis. None: once, as it is, without that axis.
          per_image: further arrays (N, ...) for the function's ``batch``, in the order of the rows.
          progress: what a progress bar on standard error says; "" shows none.

        Returns:
          The function's pytree of numpy arrays, (N, ...) or (views, N, ...), in the order of the
          rows.
        """
        rows = np.arange(len(images)) if rows is None else np.asarray(rows)
        count, extra = len(rows), dict(per_image or {})
        if not count:
            return self._nothing(variables, images, rows, views, extra)
        outputs = []
        batches = prefetch(self._batches(images, rows, extra, views), ahead=IN_FLIGHT)
        shown = 1 if views is None else len(views)
        with progress_bar(count * shown, progress, enabled=bool(progress)) as bar:
            for part in self._in_flight(variables, ((b, self.batch_size) for b in batches)):
                outputs.append(part)
                bar.update(min(self.batch_size, bar.total - bar.n))
        by_view = [
            jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *outputs[view::shown])
            for view in range(shown)
        ]
        return by_view[0] if views is None else jax.tree.map(lambda *v: np.stack(v), *by_view)

    def stream(self, variables: Variables, batches: Iterable[np.ndarray]) -> Iterator[PyTree]:
        """The outputs of each batch, in order; the next is computed while one is consumed.

        For one process; the caller reads ahead.

        Args:
          variables: ``params`` and ``batch_stats``.
          batches: (n, H, W, 3) uint8 each, n from 1 to the batch size.
        """
        counted = (({"image": _padded(batch, self.batch_size)}, len(batch)) for batch in batches)
        return self._in_flight(variables, counted)

    def _in_flight(
        self, variables: Variables, batches: Iterable[tuple[dict[str, np.ndarray], int]]
    ) -> Iterator[PyTree]:
        """Outputs of whole batches, each cut to its count."""
        variables = put_replicated(variables, self._mesh)
        pending: collections.deque[tuple[PyTree, int]] = collections.deque()
        for batch, count in batches:
            placed = put_batch(batch, self._mesh)
            pending.append((self._compiled(variables, self._normalization, placed), count))
            if len(pending) > IN_FLIGHT:
                yield _fetched(*pending.popleft())
        while pending:
            yield _fetched(*pending.popleft())

    def _batches(
        self, images: Any, rows: np.ndarray, extra: dict, views: Sequence[int] | None
    ) -> Iterator[dict[str, np.ndarray]]:
        """This process's share of each batch, one a view."""
        process, processes = jax.process_index(), jax.process_count()
        for start in range(0, len(rows), self.batch_size):
            positions = np.arange(start, min(start + self.batch_size, len(rows)))
            share = process_share(_padded(positions, self.batch_size), process, processes)
            batch = {name: np.asarray(column)[share] for name, column in extra.items()}
            batch["image"] = np.asarray(images[rows[share]])
            if views is None:
                yield batch
            for view in views or ():
                yield {**batch, "view": np.full(len(share), view, np.int32)}

    def _nothing(self, variables, images, rows, views, extra) -> PyTree:
        """Outputs of no images, with the shapes and types that outputs have."""
        batch = {name: np.asarray(column) for name, column in extra.items()}
        batch["image"] = np.asarray(images[rows])
        if views is not None:
            batch["view"] = np.empty(0, np.int32)
        one = jax.tree.map(lambda a: jax.ShapeDtypeStruct((1, *a.shape[1:]), a.dtype), batch)
        shapes = jax.eval_shape(self._compiled, variables, self._normalization, one)
        axes = () if views is None else (len(views),)
        return jax.tree.map(lambda s: np.empty((*axes, 0, *s.shape[1:]), s.dtype), shapes)


def predict_step(
    apply_fn: Callable[..., jax.Array],
    variables: Variables,
    image_BxHxWx3: jax.Array,
    *,
    mean: Sequence[float] | jax.Array,
    std: Sequence[float] | jax.Array,
) -> jax.Array:
    """Logits (B, K) of uint8 images, standardised by ``mean`` and ``std`` (3,); pure, for jit."""
    return apply_fn(variables, _standardized(image_BxHxWx3, (mean, std)), train=False)


@functools.lru_cache(maxsize=16)
def _compiled(function: ImageFunction, model: nn.Module, mesh: Mesh) -> Callable[..., PyTree]:
    """The program; passes of equal networks share it."""

    def apply(variables, normalization, batch) -> PyTree:
        if "view" in batch:
            batch = {**batch, "image": apply_views(batch["image"], batch["view"])}
        x = batch["image"]
        if normalization is not None:
            x = _standardized(x, normalization)
        return function(model, variables, x, batch)

    # Results on every device, so that every process of a run has them all.
    return jax.jit(apply, out_shardings=replicated(mesh))


def _standardized(image_BxHxWx3: jax.Array, normalization: tuple) -> jax.Array:
    return standardize(image_BxHxWx3.astype(jnp.float32) / 255, *normalization)


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    """The array, its last entry repeated up to a length."""
    missing = size - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _fetched(outputs: PyTree, count: int) -> PyTree:
    return jax.tree.map(lambda array: np.asarray(array)[:count], outputs)
