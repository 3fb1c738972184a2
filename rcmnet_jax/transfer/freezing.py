"""Which parameters train. The others are not differentiated at all, so nothing can move them.

A mask on the optimizer is not enough: ``optax.masked`` passes raw gradients through where it does
not apply, and weight decay or momentum would move what has no gradient. Here the parameters are
parted before differentiation, and the optimizer only ever sees the part that trains.
"""

from collections.abc import Sequence

from flax.traverse_util import flatten_dict, unflatten_dict

from rcmnet_jax.errors import ConfigError
from rcmnet_jax.transfer.patterns import matching_paths
from rcmnet_jax.types import PyTree


def trainable_paths(params: PyTree, patterns: Sequence[str]) -> tuple[str, ...]:
    """Paths such as ``head/kernel`` that one of the patterns matches as a whole.

    Raises:
      ConfigError: a pattern that is no regular expression or matches nothing.
    """
    paths = ["/".join(path) for path in flatten_dict(params)]
    return tuple(sorted(matching_paths(paths, patterns, what="init.trainable")))


def unfreezing_epochs(params: PyTree, rules: Sequence[str]) -> dict[str, int]:
    """Gradual unfreezing: ``stage4/.*@5`` lets what the pattern matches train after five epochs.

    Args:
      params: the parameters.
      rules: ``pattern@epoch``; where several match a path, the first holds.

    Returns:
      path -> number of epochs after which it trains.

    Raises:
      ConfigError: a rule of another form, or a pattern that matches nothing.
    """
    return _valued_paths(params, rules, "@", int, what="init.unfreeze", example="stage4/.*@5")


def learning_rate_factors(params: PyTree, rules: Sequence[str]) -> dict[str, float]:
    """Learning rates by group: ``stage.*=0.1`` multiplies that of what the pattern matches.

    Args:
      params: the parameters.
      rules: ``pattern=factor``; where several match a path, the first holds.

    Returns:
      path -> factor.

    Raises:
      ConfigError: a rule of another form, or a pattern that matches nothing.
    """
    return _valued_paths(params, rules, "=", float, what="optim.lr_factors", example="stage.*=0.1")


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


def _valued_paths(params, rules, sign: str, kind, *, what: str, example: str) -> dict:
    """``pattern<sign>value`` rules by path; the first rule that matches a path holds."""
    paths = ["/".join(path) for path in flatten_dict(params)]
    values: dict[str, float] = {}
    for rule in rules:
        pattern, found, text = rule.rpartition(sign)
        try:
            value = kind(text)
        except ValueError:
            found = ""
        if not found or not 0 < value < float("inf"):
            raise ConfigError(f"{what}: {rule!r} is not of the form {example!r}: correct it")
        for path in matching_paths(paths, [pattern], what=what):
            values.setdefault(path, value)
    return values
