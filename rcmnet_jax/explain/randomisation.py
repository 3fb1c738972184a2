"""Do the maps depend on what was learned? (Adebayo et al. 2018, "Sanity checks")

The modules of the network are reset to random weights, one after the other from the classifier
down to the stem. A map that stays the same throughout shows the image, not the network.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from rcmnet_jax.explain.localisation import mean_interval
from rcmnet_jax.explain.network_maps import NetworkMaps, untrained_variables
from rcmnet_jax.types import Variables


def modules_from_the_top(model: nn.Module, variables: Variables, image: jax.Array) -> list[str]:
    """The outermost modules that have parameters, from the classifier down to the stem.

    Args:
      model: one of our networks.
      variables: its variables.
      image: (1, H, W, 3) of the size the variables are for.
    """
    called: list[str] = []

    def interceptor(call, args, kwargs, context):
        if len(context.module.path) == 1 and context.method_name == "__call__":
            called.append(context.module.path[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(interceptor):
        jax.eval_shape(lambda v, x: model.apply(v, x, train=False), dict(variables), image)
    return [name for name in reversed(called) if name in variables["params"]]


def cascade(
    variables: Variables, fresh: Variables, modules: list[str]
) -> Iterator[tuple[str, Variables]]:
    """Yields each module's name with the variables after it and those before it are reset.

    Args:
      variables: trained.
      fresh: as initialised.
      modules: in the order of resetting.
    """
    mixed = {collection: dict(tree) for collection, tree in variables.items()}
    for module in modules:
        mixed = {collection: dict(tree) for collection, tree in mixed.items()}
        for collection, tree in mixed.items():
            if module in tree:
                tree[module] = fresh[collection][module]
        yield module, mixed


def similarity_by_module(
    maps_of: Callable[[Variables], np.ndarray],
    variables: Variables,
    fresh: Variables,
    modules: list[str],
) -> dict[str, np.ndarray]:
    """Rank correlation with the trained network's maps while its modules are reset.

    Args:
      maps_of: signed maps (N, h, w) of the same images and classes, for given variables.
      variables: trained.
      fresh: as initialised.
      modules: from `modules_from_the_top`.

    Returns:
      (N,) correlations by module, in order.
    """
    trained_Nxhxw = maps_of(variables)
    return {
        module: rank_correlation(trained_Nxhxw, maps_of(mixed))
        for module, mixed in cascade(variables, fresh, modules)
    }


def randomisation_scores(maps: NetworkMaps, *, seed: int = 0) -> dict[str, Any]:
    """Mean rank correlation by module, with the classes that were explained; JSON-ready."""
    network, ids = maps.network, maps.explained.class_ids_N
    image = jnp.zeros((1, *maps.pixels_NxHxWx3.shape[1:]))
    similarity = similarity_by_module(
        lambda variables: maps.explainer(variables, maps.pixels_NxHxWx3, ids).signed_Nxhxw,
        network.variables,
        untrained_variables(network, seed=seed),
        modules_from_the_top(network.model, network.variables, image),
    )
    return {
        module: {
            **mean_interval(values[~np.isnan(values)]).to_dict(),
            "undefined": int(np.isnan(values).sum()),
        }
        for module, values in similarity.items()
    }


def rank_correlation(first_Nxhxw: np.ndarray, second_Nxhxw: np.ndarray) -> np.ndarray:
    """(N,) Spearman correlation of maps, cell by cell; NaN where a map is constant."""
    ranks = [
        np.stack([_ranks(cam.ravel()) for cam in np.asarray(cams, np.float64)])
        for cams in (first_Nxhxw, second_Nxhxw)
    ]
    first, second = (r - r.mean(1, keepdims=True) for r in ranks)
    norms = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    defined = norms > 0
    return np.where(defined, (first * second).sum(1) / np.where(defined, norms, 1), np.nan)


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    above = np.cumsum(counts)
    return (above - (counts + 1) / 2)[inverse]
