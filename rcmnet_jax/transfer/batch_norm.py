"""Batch-norm statistics of other images than the network was trained on, without labels.

A frozen backbone normalises with the running statistics of its source. Where stain, microscope or
camera differ, these are the first thing to be wrong; `reestimate_batch_stats` measures them again.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.data.augment import standardize
from rcmnet_jax.errors import DataError
from rcmnet_jax.models.layers import MOMENTUM
from rcmnet_jax.types import PyTree, Variables


def reestimate_batch_stats(
    model: nn.Module, variables: Variables, batches: Iterable[jax.Array]
) -> Variables:
    """Replaces the running statistics by those of the given images.

    ``mean = E[mu_b]`` and ``var = E[sigma_b^2 + mu_b^2] - mean^2`` over batches b, weighted by
    their size, every layer being fed by layers that normalise with the batch's own statistics
    (Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", section 3: PreciseBN).

    Args:
      model: one of our networks; one without batch norm comes back as it is.
      variables: ``params`` and ``batch_stats``. The parameters are not changed.
      batches: float32 images (B, H, W, 3), standardised as for training. Batches of one size
        compile once; 32 images or more a batch make the estimate steady.

    Returns:
      Variables with the new ``batch_stats``.

    Raises:
      DataError: no images.
    """
    old = variables.get("batch_stats", {})
    if not jax.tree.leaves(old):
        return variables
    # From zero, one update leaves (1 - momentum) times the batch's statistics: nothing cancels.
    zeros = jax.tree.map(jnp.zeros_like, old)

    @jax.jit
    def moments(params, x_BxHxWx3):
        _, updated = model.apply(
            {"params": params, "batch_stats": zeros},
            x_BxHxWx3,
            train=True,
            mutable=["batch_stats"],
            method="features",
        )
        stats = jax.tree.map(lambda leaf: leaf / (1 - MOMENTUM), updated["batch_stats"])
        return _with_second_moments(stats)

    total, count = None, 0
    for batch in batches:
        size = batch.shape[0]
        part = jax.tree.map(lambda leaf, n=size: n * leaf, moments(variables["params"], batch))
        total = part if total is None else jax.tree.map(jnp.add, total, part)
        count += size
    if total is None:
        raise DataError("batch-norm statistics need at least one image: check the data set")
    averaged = jax.tree.map(lambda leaf: leaf / count, total)
    return {**variables, "batch_stats": _with_variances(averaged)}


def reestimate_on(
    model: nn.Module,
    variables: Variables,
    images: Any,
    rows: np.ndarray,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    batch_size: int = 64,
) -> Variables:
    """`reestimate_batch_stats` on uint8 images, in random batches.

    Args:
      model: see `reestimate_batch_stats`.
      variables: see `reestimate_batch_stats`.
      images: anything that gives (n, H, W, 3) uint8 for an array of n row numbers.
      rows: (N,) row numbers.
      mean: per-channel mean to standardise with, in [0, 1].
      std: per-channel standard deviation.
      batch_size: images a batch, about.

    Returns:
      Variables with the new ``batch_stats``.
    """
    # Folders are sorted by class, and the statistics of a batch of one class are skewed.
    rows = np.random.default_rng(0).permutation(rows)
    batches = max(1, round(len(rows) / batch_size))
    # All of one size, for one compilation: the last takes a few images again.
    size = -(-len(rows) // batches)
    groups = np.resize(rows, (batches, size)) if size else ()
    pixels = (jnp.asarray(images[group], jnp.float32) / 255 for group in groups)
    return reestimate_batch_stats(model, variables, (standardize(x, mean, std) for x in pixels))


def _with_second_moments(stats: PyTree) -> PyTree:
    """``var`` becomes ``var + mean^2``, which may be averaged over batches."""
    return _map_layers(stats, lambda mean, var: var + mean**2)


def _with_variances(stats: PyTree) -> PyTree:
    """The inverse; rounding must not leave a variance below zero."""
    return _map_layers(stats, lambda mean, second: jnp.maximum(second - mean**2, 0))


def _map_layers(stats: PyTree, new_var) -> PyTree:
    if "mean" in stats and "var" in stats:
        return {"mean": stats["mean"], "var": new_var(stats["mean"], stats["var"])}
    return {name: _map_layers(layer, new_var) for name, layer in stats.items()}
