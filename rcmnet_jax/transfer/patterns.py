"""Choosing leaves of a parameter tree by patterns on their whole paths."""

import re
from collections.abc import Collection, Iterable

from rcmnet_jax.errors import ConfigError


def matching_paths(paths: Collection[str], patterns: Iterable[str], *, what: str) -> set[str]:
    """Paths such as ``head/kernel`` that one of the patterns matches from end to end.

    Args:
      paths: of all leaves.
      patterns: regular expressions.
      what: where the patterns come from, for errors.

    Raises:
      ConfigError: a pattern that is no regular expression, or matches nothing.
    """
    found: set[str] = set()
    for pattern in patterns:
        try:
            hits = {path for path in paths if re.fullmatch(pattern, path)}
        except re.error as error:
            raise ConfigError(
                f"{what}: pattern {pattern!r} is no regular expression ({error}): correct it"
            ) from error
        if not hits:
            raise ConfigError(
                f"{what}: pattern {pattern!r} matches no parameter:"
                f" paths look like {', '.join(sorted(paths)[:2])}"
            )
        found |= hits
    return found
