"""Which parameters train. The others are not differentiated at all, so nothing can move them.

A mask on the optimizer is not enough: ``optax.masked`` passes raw gradients through where it does
not apply, and weight decay or momentum would move what has no gradient. Here the parameters are
parted before differentiation, and the optimizer only ever sees the part that trains.
"""

import re
from collections.abc import Sequence

from flax.traverse_util import flatten_dict, unflatten_dict

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.types import PyTree


def trainable_paths(params: PyTree, patterns: Sequence[str]) -> tuple[str, ...]:
    """Paths such as ``head/kernel`` that one of the patterns matches as a whole.

    Raises:
      ConfigError: a pattern that is no regular expression or matches nothing.
    """
    paths = sorted("/".join(path) for path in flatten_dict(params))
    found: set[str] = set()
    for pattern in patterns:
        try:
            hits = [path for path in paths if re.fullmatch(pattern, path)]
        except re.error as error:
            raise ConfigError(f"init.trainable {pattern!r} is no pattern: {error}") from error
        if not hits:
            raise ConfigError(
                f"init.trainable {pattern!r} matches no parameter:"
                f" paths look like {paths[0]} and head/kernel"
            )
        found |= set(hits)
    return tuple(path for path in paths if path in found)


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
