"""Batch-norm statistics of other images than the network was trained on, without labels.

A frozen backbone normalises with the running statistics of its source. Where stain, microscope or
camera differ, these are the first thing to be wrong; `reestimate_batch_stats` measures them again.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from flax import linen as nn

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
