"""Weights to start training from: a run or bundle of ours, or a file of PyTorch weights.

A file of a ResNet18 (torchvision's and timm's have the same names) goes into any network that
holds one: ResNet18, ResNet18-C, ResNet18-M, RCMNet. Attention that the file does not have starts
fresh, as a whole or not at all; `rcmnet_jax.transfer` then reports what became of every leaf.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict

from rcmnet_jax.checkpoints.open_model import load_model
from rcmnet_jax.data.preprocess import Preprocess
from rcmnet_jax.errors import CheckpointError
from rcmnet_jax.inference.network import TrainedNetwork, abstract_variables
from rcmnet_jax.interop.names import Entry, model_entries, some
from rcmnet_jax.interop.torch import (
    SAVE_AGAIN,
    impossible_values,
    without_common_prefix,
    without_prefix,
    without_prefixes,
)
from rcmnet_jax.interop.torch_files import TorchFile, is_torch_file, read_torch_file

# What torchvision's and timm's ResNet18, VGG19 and AlexNet were trained with.
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Parts that a file may lack as a whole: the path component that tells them.
OPTIONAL_PARTS = ("cbam", "bot", "head")
# Collection for what the network has no place for, so that the report lists it as unused.
LEFT_OVER = "torch"


def open_weights(
    path: str | Path, *, model_name: str, model: nn.Module, preprocess: Preprocess
) -> TrainedNetwork:
    """Weights for ``init.checkpoint``.

    Args:
      path: a run's folder, a bundle, or a PyTorch file.
      model_name: the network that they go into, a key of `MODELS`.
      model: that network.
      preprocess: of the new run; a PyTorch file has none.

    Returns:
      For a PyTorch file: the variables it has, under our paths; ``absent`` names the parts it
      lacks; mean and standard deviation are ImageNet's unless the file says others.

    Raises:
      CheckpointError: nothing there, or weights of another network.
    """
    if not is_torch_file(path):
        return load_model(path)
    file = read_torch_file(path)
    shapes = abstract_variables(model, preprocess)
    variables, absent = _matched(file, model_name, shapes)
    mean, std = normalization_of(file.metadata)
    return TrainedNetwork(
        model=model,
        variables=variables,
        class_names=(),
        preprocess=preprocess,
        mean=mean,
        std=std,
        step=0,
        meta={"torch": {"file": file.path.name, "sha256": file.sha256, **file.metadata}},
        absent=absent,
    )


def normalization_of(metadata: Mapping[str, str]) -> tuple[Any, Any]:
    """Mean and standard deviation that a safetensors file states; ImageNet's where it does not."""
    try:
        mean, std = (
            tuple(float(value) for value in json.loads(metadata[key])) for key in ("mean", "std")
        )
    except (KeyError, ValueError, TypeError):
        return IMAGENET_MEAN, IMAGENET_STD
    if len(mean) != 3 or len(std) != 3:
        return IMAGENET_MEAN, IMAGENET_STD
    return mean, std


def _matched(
    file: TorchFile, model_name: str, shapes: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The file's arrays under our paths, and patterns of the leaves it has none for."""
    state = without_prefixes(file.state)
    authors = any(".cbam.ChannelGate." in name for name in state)
    collections = {key: tree for key, tree in shapes.items() if tree}
    entries = {
        without_prefix(entry.name): entry
        for entry in model_entries(
            model_name, collections, cbam_dialect="authors" if authors else "paper"
        )
    }
    state = without_common_prefix(state, entries)
    _require_finite(file, entries, state)
    missing = {n: e for n, e in entries.items() if n not in state and not e.counter}
    absent = _absent_parts(file, model_name, entries, missing)
    _require_no_further_layers(file, model_name, entries, state)
    types = flatten_dict(collections)
    leaves = {
        entry.path: jnp.asarray(
            _in_our_layout(entry, state[name], name, file), types[entry.path].dtype
        )
        for name, entry in entries.items()
        if name in state and not entry.counter
    }
    left = {
        (LEFT_OVER, name): np.asarray(array)
        for name, array in state.items()
        if name not in entries and not name.endswith("num_batches_tracked")
    }
    return unflatten_dict({**leaves, **left}), absent


def _absent_parts(
    file: TorchFile, model_name: str, entries: dict[str, Entry], missing: dict[str, Entry]
) -> tuple[str, ...]:
    """Patterns of what may start fresh; anything else that is missing is an error."""
    whole = {
        part
        for part in OPTIONAL_PARTS
        if all(name in missing for name, e in entries.items() if part in e.path and not e.counter)
    }
    lacking = [name for name, entry in missing.items() if not whole & set(entry.path)]
    if lacking:
        raise CheckpointError(
            f"{file.path} does not hold the weights of {model_name} or its backbone: missing"
            f" {some(lacking)}; it has {some(file.state)}"
        )
    return tuple(re.escape("/".join(entry.path)) for entry in missing.values())


def _require_finite(
    file: TorchFile, entries: Mapping[str, Entry], state: Mapping[str, np.ndarray]
) -> None:
    held = [(e, state[name]) for name, e in entries.items() if name in state and not e.counter]
    spoilt = [problem for e, array in held if (problem := impossible_values(e, array))]
    if spoilt:
        raise CheckpointError(f"{file.path} is spoilt: {some(spoilt)}. {SAVE_AGAIN}")


def _require_no_further_layers(
    file: TorchFile,
    model_name: str,
    entries: Mapping[str, Entry],
    state: Mapping[str, np.ndarray],
) -> None:
    """Refuses the backbone of a larger network, of which only some layers would be copied."""
    backbone = {_root(name) for name, e in entries.items() if not set(OPTIONAL_PARTS) & set(e.path)}
    further = [
        name
        for name in state
        if name not in entries
        and _root(name) in backbone
        and not set(OPTIONAL_PARTS) & set(name.split("."))
    ]
    if further:
        raise CheckpointError(
            f"{file.path} is of a larger network than {model_name}: it also has {some(further)},"
            " without which the other layers were never trained: give weights of the same backbone"
        )


def _root(name: str) -> str:
    """``layer`` of ``layer3.1.conv1.weight``."""
    return name.partition(".")[0].rstrip("0123456789")


def _in_our_layout(entry: Entry, array: np.ndarray, name: str, file: TorchFile) -> np.ndarray:
    try:
        return entry.layout.to_ours(np.asarray(array, np.float32))
    except ValueError as error:
        raise CheckpointError(
            f"{name} in {file.path} is shaped {np.shape(array)}, which is no such layer: choose the"
            " network that it was saved from"
        ) from error
