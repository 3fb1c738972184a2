"""Which parameters train. The others are not differentiated at all, so nothing can move them.

A mask on the optimizer is not enough: ``optax.masked`` passes raw gradients through where it does
not apply, and weight decay or momentum would move what has no gradient. Here the parameters are
parted before differentiation, and the optimizer only ever sees the part that trains.
"""

from collections.abc import Sequence

from flax.traverse_util import flatten_dict, unflatten_dict

from rcmnet_jax.transfer.patterns import matching_paths
from rcmnet_jax.types import PyTree


def trainable_paths(params: PyTree, patterns: Sequence[str]) -> tuple[str, ...]:
    """Paths such as ``head/kernel`` that one of the patterns matches as a whole.

    Raises:
      ConfigError: a pattern that is no regular expression or matches nothing.
    """
    paths = ["/".join(path) for path in flatten_dict(params)]
    return tuple(sorted(matching_paths(paths, patterns, what="init.trainable")))


def part_params(params: PyTree, trainable: tuple[str, ...] | None) -> tuple[PyTree, PyTree]:
    """Splits a tree into what trains and what does not; None trains everything."""
    if trainable is None:
        return params, {}
    chosen = set(trainable)
    flat = flatten_dict(params)
    trains = {path: leaf for path, leaf in flat.items() if "/".join(path) in chosen}
    rests = {path: leaf for path, leaf in flat.items() if "/".join(path) not in chosen}
    return unflatten_dict(trains), unflatten_dict(rests)


def join_params(trains: PyTree, rests: PyTree) -> PyTree:
    """The inverse of `part_params`."""
    if not rests:
        return trains
    return unflatten_dict({**flatten_dict(trains), **flatten_dict(rests)})
