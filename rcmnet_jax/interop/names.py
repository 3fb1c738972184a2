"""Which PyTorch name holds which of our arrays: tables of layers, read in both directions.

A row ``(theirs, ours, kind)`` says that the PyTorch module ``theirs`` is our module ``ours`` and
of which kind it is; `LAYERS` says which arrays a kind consists of. Rows whose arrays a network
does not have (a shortcut without projection, no CBAM, no biases) are dropped, so one table serves
every variant. The names are torchvision's for the backbone, lucidrains' bottleneck-transformer's
for the BoT block, and the CBAM module of the parity figures.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flax import traverse_util

from rcmnet_jax.errors import UserError
from rcmnet_jax.interop.array_layouts import (
    CONV,
    CONV_SWAPPED,
    DENSE,
    FLATTENED_6X6,
    FLATTENED_7X7,
    SAME,
    Layout,
)
from rcmnet_jax.models import MODELS

Path = tuple[str, ...]
# (PyTorch module, our module, kind of layer).
Row = tuple[str, str, str]
# How many offending names an error spells out.
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Entry:
    """One entry of a state dict and its place among our variables.

    Attributes:
      name: PyTorch's.
      path: ours, beginning with the collection; for a counter, the statistic it counts.
      layout: how the array lies in both.
      counter: an integer ``num_batches_tracked``, which has no counterpart here: PyTorch reads it
        only where batch norm has no momentum.
    """

    name: str
    path: Path
    layout: Layout
    counter: bool = False


# PyTorch leaf, collection, our leaf, layout.
_Leaf = tuple[str, str, str, Layout]
_BIAS: _Leaf = ("bias", "params", "bias", SAME)
COUNTER = "num_batches_tracked"
LAYERS: dict[str, tuple[_Leaf, ...]] = {
    "conv": (("weight", "params", "kernel", CONV), _BIAS),
    "conv_swapped": (("weight", "params", "kernel", CONV_SWAPPED), _BIAS),
    "dense": (("weight", "params", "kernel", DENSE), _BIAS),
    "dense_7x7": (("weight", "params", "kernel", FLATTENED_7X7), _BIAS),
    "dense_6x6": (("weight", "params", "kernel", FLATTENED_6X6), _BIAS),
    "norm": (
        ("weight", "params", "bn/scale", SAME),
        ("bias", "params", "bn/bias", SAME),
        ("running_mean", "batch_stats", "bn/mean", SAME),
        ("running_var", "batch_stats", "bn/var", SAME),
        (COUNTER, "batch_stats", "bn/mean", SAME),
        ("weight", "params", "gn/scale", SAME),
        ("bias", "params", "gn/bias", SAME),
    ),
    "position": (
        ("rel_height", "params", "rel_height", SAME),
        ("rel_width", "params", "rel_width", SAME),
    ),
}

# The CBAM module by the paper's equations, and the one of its authors (Jongchan/attention-module).
CBAM: dict[str, tuple[Row, ...]] = {
    "paper": (
        ("mlp.0", "channel/reduce", "dense"),
        ("mlp.2", "channel/expand", "dense"),
        ("conv", "spatial/conv", "conv"),
        ("bn", "spatial/norm", "norm"),
    ),
    "authors": (
        ("ChannelGate.mlp.1", "channel/reduce", "dense"),
        ("ChannelGate.mlp.3", "channel/expand", "dense"),
        ("SpatialGate.spatial.conv", "spatial/conv", "conv_swapped"),
        ("SpatialGate.spatial.bn", "spatial/norm", "norm"),
    ),
}
# lucidrains' BottleStack of one block.
BOT: tuple[Row, ...] = (
    ("net.0.net.0", "conv1", "conv"),
    ("net.0.net.1", "norm1", "norm"),
    ("net.0.net.3.to_qkv", "mhsa/qkv", "conv"),
    ("net.0.net.3.pos_emb", "mhsa/position", "position"),
    ("net.0.net.5", "norm2", "norm"),
    ("net.0.net.7", "conv2", "conv"),
    ("net.0.net.8", "norm3", "norm"),
)
# torchvision's BasicBlock; the CBAM rows follow these, as in the order of the parity files.
BASIC_BLOCK: tuple[Row, ...] = (
    ("conv1", "conv1", "conv"),
    ("bn1", "norm1", "norm"),
    ("conv2", "conv2", "conv"),
    ("bn2", "norm2", "norm"),
    ("downsample.0", "shortcut_conv", "conv"),
    ("downsample.1", "shortcut_norm", "norm"),
)
ALEXNET: tuple[Row, ...] = (
    ("features.0", "conv1", "conv"),
    ("features.3", "conv2", "conv"),
    ("features.6", "conv3", "conv"),
    ("features.8", "conv4", "conv"),
    ("features.10", "conv5", "conv"),
    ("classifier.1", "fc1", "dense_6x6"),
    ("classifier.4", "fc2", "dense"),
    ("classifier.6", "head", "dense"),
)


def model_entries(
    model_name: str, variables: Mapping[str, Any], *, cbam_dialect: str = "paper"
) -> list[Entry]:
    """The state dict of one of the six networks, in PyTorch's order.

    Args:
      model_name: a key of `MODELS`.
      variables: the network's variables, arrays or shapes: which rows apply is read off them.
      cbam_dialect: a key of `CBAM`.

    Returns:
      An entry per array of ``variables``, and a counter per batch norm.

    Raises:
      UserError: the variables hold arrays that the network of this name does not have.
    """
    params = variables["params"]
    if model_name == "alexnet":
        rows: Iterable[Row] = ALEXNET
    elif model_name == "vgg19":
        rows = _vgg_rows(params)
    else:
        rows = _resnet_rows(params, model_name, CBAM[cbam_dialect])
    return layer_entries(rows, variables, what=f"model {model_name!r}")


def head_name(model_name: str) -> str:
    """The PyTorch name, without prefix, of the weight whose rows are the classes."""
    return "fc.weight" if MODELS[model_name].is_resnet else "classifier.6.weight"


def layer_entries(rows: Iterable[Row], variables: Mapping[str, Any], *, what: str) -> list[Entry]:
    """Spells the rows out into entries and proves that they cover the variables exactly.

    Args:
      rows: the table; rows without arrays in ``variables`` are dropped.
      variables: ``{"params": ..., "batch_stats": ...}`` of arrays or shapes.
      what: the network or block, for the error.

    Raises:
      UserError: arrays that no row speaks of.
    """
    paths = set(traverse_util.flatten_dict(dict(variables)))
    entries = []
    for theirs, ours, kind in rows:
        for torch_leaf, collection, leaf, layout in LAYERS[kind]:
            path = (collection, *ours.split("/"), *leaf.split("/"))
            if path in paths:
                name = f"{theirs}.{torch_leaf}"
                entries.append(Entry(name, path, layout, counter=torch_leaf == COUNTER))
    left = sorted("/".join(path) for path in paths - {entry.path for entry in entries})
    if left:
        raise UserError(
            f"the variables hold arrays that {what} does not have: {some(left)}; give the name of"
            " the model they belong to"
        )
    return entries


def some(names: Iterable[str]) -> str:
    """The first few names, and how many there are in all."""
    names = list(names)
    shown = ", ".join(names[:NAMES_SHOWN])
    return shown if len(names) <= NAMES_SHOWN else f"{shown}, ... ({len(names)} in all)"


def _resnet_rows(
    params: Mapping[str, Any], model_name: str, cbam: tuple[Row, ...]
) -> Iterator[Row]:
    # torchvision's own class has no prefix; the networks built around it hold it as `backbone`.
    prefix = "" if model_name == "resnet18" else "backbone."
    network = MODELS[model_name]
    block_rows = BASIC_BLOCK
    if network.has_cbam:
        block_rows += tuple((f"cbam.{theirs}", f"cbam/{ours}", kind) for theirs, ours, kind in cbam)
    yield f"{prefix}conv1", "stem/conv", "conv"
    yield f"{prefix}bn1", "stem/norm", "norm"
    for stage in _numbers(params, "stage"):
        for block in _numbers(params[f"stage{stage}"], "block"):
            # torchvision counts stages from one and blocks from zero.
            there, here = f"{prefix}layer{stage}.{block - 1}", f"stage{stage}/block{block}"
            for theirs, ours, kind in block_rows:
                yield f"{there}.{theirs}", f"{here}/{ours}", kind
    yield f"{prefix}fc", "head", "dense"
    for theirs, ours, kind in BOT if network.has_mhsa else ():
        yield f"bot.{theirs}", f"bot/{ours}", kind


def _vgg_rows(params: Mapping[str, Any]) -> Iterator[Row]:
    index = 0
    stage = 1
    while f"stage{stage}_conv1" in params:
        for conv in _numbers(params, f"stage{stage}_conv"):
            yield f"features.{index}", f"stage{stage}_conv{conv}", "conv"
            index += 2  # The convolution and its ReLU.
        index += 1  # The max-pool.
        stage += 1
    yield "classifier.0", "fc1", "dense_7x7"
    yield "classifier.3", "fc2", "dense"
    yield "classifier.6", "head", "dense"


def _numbers(params: Mapping[str, Any], stem: str) -> Iterator[int]:
    """1, 2, ... as long as there is a submodule ``stem + number``."""
    number = 1
    while f"{stem}{number}" in params:
        yield number
        number += 1
