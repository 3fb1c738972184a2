"""PyTorch state dicts to our variables and back, value by value.

The names are those of torchvision's ``resnet18``, ``vgg19`` and ``alexnet``; ``resnet18_c``,
``resnet18_m`` and ``rcmnet`` hold a torchvision ResNet18 as ``backbone`` with a ``cbam`` in each
block, and lucidrains' ``BottleStack`` as ``bot``. timm's ``resnet18`` has torchvision's names.
PyTorch itself is not needed here: a state dict is a mapping from names to arrays.
"""

from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import traverse_util

from rcmnet_jax.errors import UserError
from rcmnet_jax.interop.names import (
    BOT,
    CBAM,
    Entry,
    head_name,
    layer_entries,
    model_entries,
    some,
)
from rcmnet_jax.models import CBAM as CBAMModule
from rcmnet_jax.models import MODELS, BoTBlock, create_model

StateDict = Mapping[str, np.ndarray]
# What wraps a network in PyTorch and shows in its names, in any order and number: torch.compile,
# DataParallel, Lightning, and the attribute that holds the torchvision network.
PREFIXES = ("_orig_mod.", "module.", "model.", "backbone.")
SAVE_AGAIN = "Save it again in float32, from an epoch before the training diverged"
# The map side of the paper's image sizes, for state dicts without position tables.
DEFAULT_MAP = (12, 12)


def from_torch_state_dict(
    model_name: str, state: StateDict, *, num_classes: int, **options: Any
) -> dict[str, Any]:
    """Variables of one of the six networks from a PyTorch state dict.

    Strict: every entry is used and every array is filled, but for the ``num_batches_tracked``
    counters, which may be absent (files older than PyTorch 0.4.1) and are not kept. Any common
    prefix of the names, such as ``module._orig_mod.``, may be there or not. CBAM modules by its
    authors (``cbam.ChannelGate...``) are recognised by their names and need ``spatial_norm=True``.
    The size of the position tables is the state dict's.

    Args:
      model_name: a key of `MODELS`.
      state: arrays by name, in PyTorch's layout, any floating type.
      num_classes: K, which the classifier in ``state`` must have.
      **options: fields of the network as for `create_model`, e.g. ``width=32``.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` of float32 arrays as ``init`` gives; no
      ``batch_stats`` where the network has none.

    Raises:
      ConfigError: unknown model or option.
      UserError: missing or unexpected names, wrong shapes, numbers that are not finite, another
        number of classes.
    """
    model = create_model(model_name, num_classes, **options)
    state = without_prefixes(state)
    tree = _shapes(model, _map_of(state))
    authors = any(".cbam.ChannelGate." in name for name in state)
    entries = model_entries(model_name, tree, cbam_dialect="authors" if authors else "paper")
    state = without_common_prefix(state, {without_prefix(entry.name) for entry in entries})
    _check_head(model_name, state, num_classes)
    return _fill(entries, tree, state, what=f"model {model_name!r}")


def to_torch_state_dict(model_name: str, variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The PyTorch state dict of a network: the inverse of `from_torch_state_dict`.

    Args:
      model_name: a key of `MODELS`; structure and sizes are read off the variables.
      variables: ``{"params": ..., "batch_stats": ...}``.

    Returns:
      Arrays by name in PyTorch's order and layout, float32; the ``num_batches_tracked`` counters
      are int64 zeros, as in a network that has not been trained.

    Raises:
      UserError: unknown model, or variables of another model.
    """
    if model_name not in MODELS:
        raise UserError(f"model {model_name!r} is not known: choose from {', '.join(MODELS)}")
    collections = {
        key: variables[key] for key in ("params", "batch_stats") if variables.get(key, {})
    }
    if "params" not in collections or "head" not in collections["params"]:
        raise UserError(
            f'variables must be {{"params": ..., "batch_stats": ...}} of model {model_name!r};'
            f" got the keys {some(variables)}"
        )
    arrays = traverse_util.flatten_dict(collections)
    entries = model_entries(model_name, collections)
    _check_parts(model_name, entries)
    return {entry.name: _to_torch(entry, arrays[entry.path]) for entry in entries}


def cbam_from_torch(state: StateDict, *, dialect: str = "paper") -> dict[str, Any]:
    """Variables of our `CBAM` module from one PyTorch CBAM module.

    Args:
      state: the module's state dict.
      dialect: ``paper``, names ``mlp.0, mlp.2, conv``; or ``authors``, the code of the CBAM
        authors, ``ChannelGate..., SpatialGate...``, whose spatial gate is batch-normalised and
        reads (maximum, average): the two input channels are swapped, and the variables are for
        ``CBAM(spatial_norm=True)``.

    Returns:
      ``{"params": ...}``, and ``batch_stats`` where the gate is normalised.

    Raises:
      UserError: unknown dialect, missing or unexpected names, wrong shapes.
    """
    if dialect not in CBAM:
        raise UserError(f"CBAM dialect {dialect!r} is not one of {', '.join(CBAM)}")
    state = without_prefixes(state)
    first = f"{CBAM[dialect][0][0]}.weight"
    if first not in state or np.ndim(state[first]) != 2:
        raise UserError(
            f"no matrix {first} in the state dict, which has {some(state)}: is it a CBAM module of"
            f" dialect {dialect!r}?"
        )
    reduced, channels = state[first].shape
    module = CBAMModule(reduction=channels // reduced, spatial_norm=dialect == "authors")
    tree = _block_shapes(module, (1, 1, 1, channels))
    entries = layer_entries(CBAM[dialect], tree, what="CBAM")
    return _fill(entries, tree, state, what="CBAM")


def bot_from_torch(state: StateDict, *, num_heads: int = 4) -> dict[str, Any]:
    """Variables of our `BoTBlock` from lucidrains' ``BottleStack`` of one block.

    Args:
      state: its state dict, names ``net.0.net...``; the map's size and all widths are read off it.
      num_heads: which the weights do not show.

    Returns:
      ``{"params": ..., "batch_stats": ...}`` for maps of the size of the position tables.

    Raises:
      UserError: missing or unexpected names, wrong shapes.
    """
    state = without_prefixes(state)
    first, second = (f"{BOT[i][0]}.weight" for i in (0, 2))
    if any(np.ndim(state.get(name, 0.0)) != 4 for name in (first, second)):
        raise UserError(
            f"no convolutions {first} and {second} in the state dict, which has {some(state)}: is"
            " it a BottleStack of one block?"
        )
    reduced, channels = state[first].shape[:2]
    head_dim = state[second].shape[0] // (3 * num_heads)
    module = BoTBlock(num_heads, head_dim, projection=channels // reduced)
    tree = _block_shapes(module, (1, *_map_of(state), channels))
    return _fill(layer_entries(BOT, tree, what="BoTBlock"), tree, state, what="BoTBlock")


def _fill(
    entries: list[Entry], tree: Mapping[str, Any], state: StateDict, *, what: str
) -> dict[str, Any]:
    """Our variables with every array taken from the state dict, after all checks."""
    shapes = traverse_util.flatten_dict(dict(tree))
    named = {without_prefix(entry.name): entry for entry in entries}
    missing = [n for n, entry in named.items() if n not in state and not entry.counter]
    unexpected = [name for name in state if name not in named]
    problems = []
    if missing:
        problems.append(f"missing {some(missing)}")
    if unexpected:
        problems.append(f"unexpected {some(unexpected)}")
    if problems:
        raise UserError(
            f"the state dict is not that of {what}: {'; '.join(problems)}. Choose the model and"
            " options it was saved from"
        )
    wrong = []
    for name, entry in named.items():
        if not entry.counter:
            expected = entry.layout.torch_shape(shapes[entry.path].shape)
            if np.shape(state[name]) != expected:
                wrong.append(f"{name} is {np.shape(state[name])}, expected {expected}")
    if wrong:
        raise UserError(
            f"shapes in the state dict do not fit {what}: {some(wrong)}. Choose the options it"
            " was saved from"
        )
    spoilt = [
        problem
        for name, entry in named.items()
        if not entry.counter and (problem := impossible_values(entry, state[name]))
    ]
    if spoilt:
        raise UserError(f"the state dict for {what} is spoilt: {some(spoilt)}. {SAVE_AGAIN}")
    flat = {
        # A copy: a later change to the state dict must not reach the variables.
        entry.path: jnp.array(entry.layout.to_ours(np.asarray(state[name], dtype=np.float32)))
        for name, entry in named.items()
        if not entry.counter
    }
    return traverse_util.unflatten_dict(flat)


def _to_torch(entry: Entry, array: Any) -> np.ndarray:
    if entry.counter:
        return np.zeros((), np.int64)
    # A copy, so that a change to the state dict never reaches the live variables.
    return np.array(entry.layout.to_torch(np.asarray(array, dtype=np.float32)), order="C")


def _check_parts(model_name: str, entries: list[Entry]) -> None:
    """Refuses variables that lack what the name promises (extra arrays are refused before)."""
    network = MODELS[model_name]
    for part, promised in (("cbam", network.has_cbam), ("bot", network.has_mhsa)):
        if promised and not any(part in entry.path for entry in entries):
            raise UserError(
                f"the variables have no {part!r} part, which model {model_name!r} has; give the"
                " name of the model they belong to"
            )


def _check_head(model_name: str, state: StateDict, num_classes: int) -> None:
    weight = state.get(head_name(model_name))
    if weight is not None and np.ndim(weight) == 2 and weight.shape[0] != num_classes:
        raise UserError(
            f"the classifier in the state dict has {weight.shape[0]} classes, not {num_classes}:"
            f" import it with num_classes={weight.shape[0]}, then copy all but the classifier with"
            " rcmnet_jax.transfer.transfer_params"
        )


def _map_of(state: StateDict) -> tuple[int, int]:
    """Height and width of the feature map that the position tables are for."""
    sides = []
    for leaf, default in zip(("rel_height", "rel_width"), DEFAULT_MAP, strict=True):
        rows = [np.shape(a)[0] for n, a in state.items() if n.endswith(leaf) and np.ndim(a) == 2]
        # A table has 2 side - 1 rows; an even number is reported as a wrong shape later.
        sides.append((rows[0] + 1) // 2 if rows else default)
    return sides[0], sides[1]


def _shapes(model: Any, map_size: tuple[int, int]) -> dict[str, Any]:
    """Shapes of the network's variables for images that give a last map of this size."""
    if hasattr(model, "stage_sizes"):
        # Each stage but the first halves the image, the ImageNet stem quarters it.
        factor = 2 ** (len(model.stage_sizes) - 1) * (4 if model.stem == "imagenet" else 1)
    else:
        # VGG19 and AlexNet pool to a fixed grid: any image will do.
        factor = 8
    height, width = (side * factor for side in map_size)
    return _block_shapes(model, (1, height, width, 3))


def _block_shapes(module: nn.Module, shape: tuple[int, ...]) -> dict[str, Any]:
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    init = partial(module.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), x)
    return {key: variables[key] for key in ("params", "batch_stats") if key in variables}


def without_prefixes(state: StateDict) -> dict[str, np.ndarray]:
    """The arrays under their names as the innermost network has them."""
    bare: dict[str, np.ndarray] = {}
    for name, array in state.items():
        short = without_prefix(name)
        if short in bare:
            raise UserError(
                f"the state dict holds {short} twice, with and without a prefix: give one network"
            )
        bare[short] = _numbers(name, array)
    return bare


def _numbers(name: str, array: Any) -> np.ndarray:
    """The entry as an array of real numbers; objects, text and dates are no weights."""
    try:
        found = np.asarray(array)
    except (ValueError, TypeError) as error:
        raise UserError(f"the state dict's {name} is no array ({error}): save it again") from error
    if found.dtype.kind in "OSUMmc":
        raise UserError(
            f"the state dict's {name} holds {found.dtype}, not real numbers: give the network's"
            " state_dict() and nothing else"
        )
    return found


def without_prefix(name: str) -> str:
    """A name without what wrappers and holders of the network put before it."""
    while any(name.startswith(prefix) for prefix in PREFIXES):
        name = name.partition(".")[2]
    return name


def without_common_prefix(
    state: Mapping[str, np.ndarray], expected: Collection[str]
) -> dict[str, np.ndarray]:
    """The arrays under the names a network expects, where all of them share another prefix.

    Args:
      state: arrays by name.
      expected: names of the network's arrays.

    Returns:
      The same arrays; names outside the network keep theirs.

    Raises:
      UserError: two networks fit equally well.
    """
    prefixes = {""}
    for name in state:
        parts = name.split(".")
        tails = (".".join(parts[k:]) for k in range(1, len(parts)))
        prefixes |= {name.removesuffix(tail) for tail in tails if tail in expected}
    fitting = {p: sum(p + name in state for name in expected) for p in prefixes}
    most = max(fitting.values())
    best = sorted(prefix for prefix, count in fitting.items() if count == most)
    if "" in best:
        return dict(state)
    if len(best) > 1:
        raise UserError(
            f"the state dict holds several such networks, under {some(best)}: save one of them"
        )
    return {name.removeprefix(best[0]): array for name, array in state.items()}


def impossible_values(entry: Entry, array: np.ndarray) -> str:
    """What no trained array holds: NaN, infinity, a negative variance; "" where all is well."""
    values = np.asarray(array, np.float32)
    wrong = ~np.isfinite(values)
    kind = "NaN or infinite"
    if entry.path[-1] == "var" and not wrong.any():
        wrong, kind = values < 0, "negative"
    if not wrong.any():
        return ""
    return f"{entry.name} has {int(wrong.sum())} of {values.size} values {kind}"
