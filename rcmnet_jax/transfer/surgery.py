"""Parameter-tree surgery: the weights of one network into another.

RCMNet section 3.4, Figure 7: every weight but the classifier's is copied from the network trained
on PBC, the classifier starts fresh. Nothing is copied by luck: a leaf is copied, kept fresh because
a pattern says so, or resized because it is a position table; anything else is an error that names
it.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from rcmnet_jax.errors import CheckpointError, ConfigError
from rcmnet_jax.transfer.patterns import matching_paths
from rcmnet_jax.types import Variables

# All our networks end in a dense layer of this name.
CLASSIFIER = ("params/head/.*",)
# Attention and classifier: what networks of one backbone may have or lack.
OWN_PARTS = frozenset({"cbam", "bot", "head"})
# The tables of `RelativePosition2D`, whose length follows the size of the feature map.
_POSITION_TABLE = re.compile(r"params/(.*/)?rel_(height|width)")


@dataclasses.dataclass(frozen=True)
class TransferReport:
    """What became of every leaf, as paths like ``params/stage1/block1/conv1/kernel``.

    Attributes:
      copied: taken from the source as they are.
      resized: position tables, interpolated to the new feature map.
      fresh: left as they were in the fresh variables.
      unused: leaves of the source that nothing took.
    """

    copied: tuple[str, ...]
    resized: tuple[str, ...]
    fresh: tuple[str, ...]
    unused: tuple[str, ...]

    def table(self) -> str:
        """Counts with the first few paths of each kind, for a terminal."""
        lines = []
        for field in dataclasses.fields(self):
            paths = getattr(self, field.name)
            shown = ", ".join(paths[:3]) + (", ..." if len(paths) > 3 else "")
            lines.append(
                f"{field.name:<8}{len(paths):>5}  {shown if len(paths) < 10 else ''}".rstrip()
            )
        return "\n".join(lines)

    def to_dict(self) -> dict[str, list[str]]:
        """For JSON."""
        return {name: list(paths) for name, paths in dataclasses.asdict(self).items()}


def transfer_params(
    source: Variables,
    fresh: Variables,
    *,
    keep_fresh: Sequence[str] = CLASSIFIER,
    rename: Mapping[str, str] | None = None,
) -> tuple[Variables, TransferReport]:
    """Copies every leaf but the classifier from one network's variables into another's.

    Args:
      source: ``{"params": ..., "batch_stats": ...}`` of the trained network.
      fresh: variables of the new network, freshly initialised.
      keep_fresh: patterns of leaves that stay fresh, matched against whole paths such as
        ``params/head/kernel``. To put a ResNet18 into an RCMNet, add ``.*/cbam/.*`` and
        ``.*/bot/.*``.
      rename: pattern -> replacement (as in `re.sub`, on whole paths of the source), for parts
        that have another name in the new network.

    Returns:
      Variables of the new network's structure, and the report.

    Raises:
      ConfigError: a pattern that matches nothing.
      CheckpointError: a leaf that the source lacks, or has in another shape or type, or with
        values that are not finite; layers of the source's backbone that have no place.
    """
    targets = {"/".join(path): leaf for path, leaf in flatten_dict(dict(fresh)).items()}
    sources = _renamed(
        {"/".join(path): leaf for path, leaf in flatten_dict(dict(source)).items()}, rename or {}
    )
    kept = matching_paths(targets, keep_fresh, what="keep_fresh")
    problems = [
        problem
        for path, leaf in targets.items()
        if path not in kept and (problem := _misfit(path, sources.get(path), leaf))
    ]
    if problems:
        raise CheckpointError(
            f"{len(problems)} leaves cannot be transferred ({'; '.join(problems[:3])}"
            f"{'; ...' if len(problems) > 3 else ''}): use a checkpoint of the same network, or"
            " name what should start fresh in keep_fresh"
        )
    _require_place_for_backbone(sources, targets)
    result, resized = {}, []
    for path, leaf in targets.items():
        if path in kept:
            result[path] = leaf
        elif sources[path].shape == leaf.shape:
            result[path] = sources[path]
        else:
            result[path] = resize_position_table(sources[path], leaf.shape[0])
            resized.append(path)
    taken = targets.keys() - kept
    report = TransferReport(
        copied=tuple(sorted(taken - set(resized))),
        resized=tuple(sorted(resized)),
        fresh=tuple(sorted(kept)),
        unused=tuple(sorted(sources.keys() - taken)),
    )
    return unflatten_dict({tuple(path.split("/")): v for path, v in result.items()}), report


def resize_position_table(table: jax.Array, rows: int) -> jax.Array:
    """A relative-position table for another map size, by linear interpolation.

    Row i of a table of 2h - 1 rows is the offset ``i - (h - 1)``. Offsets are compared as fractions
    of the map's side, so the farthest ones stay the farthest and the zero offset stays in place.

    Args:
      table: (2h - 1, D).
      rows: 2h' - 1, of the new table.

    Returns:
      (rows, D), of the same type.
    """
    old = np.linspace(-1, 1, table.shape[0]) if table.shape[0] > 1 else np.zeros(1)
    new = np.linspace(-1, 1, rows) if rows > 1 else np.zeros(1)
    columns = [np.interp(new, old, column) for column in np.asarray(table, np.float64).T]
    return jnp.asarray(np.stack(columns, axis=1), table.dtype)


def _renamed(leaves: dict[str, jax.Array], rename: Mapping[str, str]) -> dict[str, jax.Array]:
    """Leaves under their new paths; two leaves of one path are an error."""
    for pattern, replacement in rename.items():
        matching_paths(leaves, [pattern], what="rename")
        renamed: dict[str, jax.Array] = {}
        for path, leaf in leaves.items():
            matched = re.fullmatch(pattern, path)
            new_path = matched.expand(replacement) if matched else path
            if new_path in renamed:
                raise ConfigError(f"rename {pattern!r} gives two leaves the path {new_path!r}")
            renamed[new_path] = leaf
        leaves = renamed
    return leaves


def _misfit(path: str, source: jax.Array | None, target: jax.Array) -> str | None:
    """Why a leaf cannot be taken; None if it can."""
    if source is None:
        return f"{path} is missing"
    if source.dtype != target.dtype:
        return f"{path} is {source.dtype}, not {target.dtype}"
    if impossible := _impossible(path, source):
        return impossible
    if source.shape == target.shape:
        return None
    table = _POSITION_TABLE.fullmatch(path) and source.shape[1:] == target.shape[1:]
    return None if table else f"{path} is {source.shape}, not {target.shape}"


def _impossible(path: str, source: jax.Array) -> str | None:
    """What no trained leaf holds: NaN, infinity, a negative variance; None where all is well."""
    values = np.asarray(source, np.float32)
    if not np.isfinite(values).all():
        return f"{path} has values that are NaN or infinite"
    if path.endswith("/var") and values.min(initial=0) < 0:
        return f"{path} has negative values"
    return None


def _require_place_for_backbone(
    sources: Mapping[str, jax.Array], targets: Mapping[str, jax.Array]
) -> None:
    """Refuses a source with further layers, without which the copied ones were never trained."""
    further = sorted(
        path
        for path in sources.keys() - targets.keys()
        if path.startswith("params/") and not OWN_PARTS & set(path.split("/"))
    )
    if further:
        raise CheckpointError(
            f"{len(further)} leaves of the source have no place in the new network"
            f" ({', '.join(further[:3])}{', ...' if len(further) > 3 else ''}): use a checkpoint of"
            " the same backbone"
        )
