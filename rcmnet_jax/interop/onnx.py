"""The six networks as ONNX graphs, preprocessing of decoded pixels inside.

Written node by node from the parameter tree, since inference uses a dozen operators: the graph is
as small as one written by hand, in PyTorch's layout, with batch norm folded into the convolutions
(docs/decisions/0032). What it computes is checked against the live network on a whole test part
before a file is written (`rcmnet_jax.export`).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

import rcmnet_jax
from rcmnet_jax.errors import UserError
from rcmnet_jax.inference.network import TrainedNetwork
from rcmnet_jax.interop.onnx_graph import Graph, Tree, norm_scale_and_shift
from rcmnet_jax.kernels.pooling import bin_weights
from rcmnet_jax.models.alexnet import AlexNet
from rcmnet_jax.models.bot import relative_offsets
from rcmnet_jax.models.layers import num_groups
from rcmnet_jax.models.rcmnet import RCMNet
from rcmnet_jax.models.vgg import VGG19

Size = tuple[int, int, int]


def to_onnx(network: TrainedNetwork) -> onnx.ModelProto:
    """An ONNX model of a network.

    Input ``image``: uint8 (N, H, W, 3), as `decode_image` gives them. Outputs ``logits`` and
    ``probabilities``, float32 (N, K), the latter with the temperature where there is one.

    Args:
      network: the network; computed in float32 whatever its own compute type.

    Raises:
      UserError: a network that is not one of ours.
    """
    size = network.preprocess
    graph = Graph()
    x = _standardized(graph, network)
    model, variables = network.model, network.variables
    if isinstance(model, RCMNet):
        logits = _ResNet(graph, model, variables).logits(x, (3, size.height, size.width))
    elif isinstance(model, VGG19):
        logits = _vgg(graph, model, variables["params"], x, (size.height, size.width))
    elif isinstance(model, AlexNet):
        logits = _alexnet(graph, variables["params"], x, (size.height, size.width))
    else:
        raise UserError(f"{type(model).__name__} cannot be exported to ONNX: use one of our models")
    scaled = graph.op("Div", logits, graph.constant(network.temperature or 1.0))
    graph.op("Softmax", scaled, axis=-1, output="probabilities")
    classes = len(network.class_names)
    return graph.model(
        image=(size.height, size.width),
        outputs={"logits": classes, "probabilities": classes},
        name=type(model).__name__,
        producer_version=rcmnet_jax.__version__,
    )


def _standardized(graph: Graph, network: TrainedNetwork) -> str:
    """uint8 (N, H, W, 3) to standardised float32 (N, 3, H, W)."""
    x = graph.op("Cast", "image", to=onnx.TensorProto.FLOAT)
    x = graph.op("Div", x, graph.constant(255.0))
    x = graph.op("Sub", x, graph.constant(network.mean))
    x = graph.op("Div", x, graph.constant(network.std))
    return graph.op("Transpose", x, perm=[0, 3, 1, 2])


class _ResNet:
    """The ResNet18 family: `logits` follows `RCMNet.__call__` part by part."""

    def __init__(self, graph: Graph, model: RCMNet, variables: Mapping[str, Any]):
        self.graph, self.model = graph, model
        self.params, self.stats = variables["params"], variables.get("batch_stats", {})

    def logits(self, x: str, size: Size) -> str:
        graph = self.graph
        x, size = self._stem(x, size)
        for stage, blocks in enumerate(self.model.stage_sizes, start=1):
            for block in range(1, blocks + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                x, size = self._block(x, size, (f"stage{stage}", f"block{block}"), stride)
        if self.model.use_mhsa:
            x = self._bot(x, size)
        return graph.dense(graph.global_mean(x), self.params["head"], output="logits")

    def _stem(self, x: str, size: Size) -> tuple[str, Size]:
        imagenet = self.model.stem == "imagenet"
        kernel, stride, padding = (7, 2, 3) if imagenet else (3, 1, 1)
        x, size = self._conv_norm(
            x, size, ("stem",), "conv", "norm", kernel=kernel, stride=stride, padding=padding
        )
        x = self.graph.relu(x)
        if imagenet:
            x = self.graph.max_pool(x, size=3, stride=2, padding=1)
            size = size[0], _side(size[1], 3, 2, 1), _side(size[2], 3, 2, 1)
        return x, size

    def _block(self, x: str, size: Size, path: tuple[str, ...], stride: int) -> tuple[str, Size]:
        graph = self.graph
        y, small = self._conv_norm(
            x, size, path, "conv1", "norm1", kernel=3, stride=stride, padding=1
        )
        y, small = self._conv_norm(
            graph.relu(y), small, path, "conv2", "norm2", kernel=3, stride=1, padding=1
        )
        if self.model.use_cbam:
            y = self._spatial_gate(self._channel_gate(y, path), small, path)
        if "shortcut_conv" in _at(self.params, path):
            x, _ = self._conv_norm(
                x, size, path, "shortcut_conv", "shortcut_norm", kernel=1, stride=stride, padding=0
            )
        return graph.relu(graph.op("Add", y, x)), small

    def _channel_gate(self, x: str, path: tuple[str, ...]) -> str:
        graph, params = self.graph, _at(self.params, (*path, "cbam", "channel"))
        logits = [
            graph.dense(
                graph.relu(graph.dense(graph.op("Flatten", graph.op(pool, x)), params["reduce"])),
                params["expand"],
            )
            for pool in ("GlobalAveragePool", "GlobalMaxPool")
        ]
        gate = graph.op("Sigmoid", graph.op("Add", *logits))
        return graph.op("Mul", x, graph.op("Unsqueeze", gate, graph.shape(2, 3)))

    def _spatial_gate(self, x: str, size: Size, path: tuple[str, ...]) -> str:
        graph, path = self.graph, (*path, "cbam", "spatial")
        axis = graph.shape(1)
        both = [graph.op(kind, x, axis, keepdims=1) for kind in ("ReduceMean", "ReduceMax")]
        descriptor = graph.op("Concat", *both, axis=1)
        norm = "norm" if "norm" in _at(self.params, path) else None
        logits = graph.conv(
            descriptor,
            _at(self.params, path)["conv"],
            padding=3,
            # Always batch norm there, whatever the network's own is.
            norm=None if norm is None else self._norm(path, norm),
        )
        return graph.op("Mul", x, graph.op("Sigmoid", logits))

    def _bot(self, x: str, size: Size) -> str:
        graph = self.graph
        y, small = self._conv_norm(
            x, size, ("bot",), "conv1", "norm1", kernel=1, stride=1, padding=0
        )
        y = self._attention(graph.relu(y), small)
        inner = self.params["bot"]["conv2"]["kernel"].shape[2]
        y = self._norm_alone(y, (inner, *small[1:]), ("bot",), "norm2")
        y, _ = self._conv_norm(
            graph.relu(y), small, ("bot",), "conv2", "norm3", kernel=1, stride=1, padding=0
        )
        return graph.relu(graph.op("Add", x, y))

    def _attention(self, x: str, size: Size) -> str:
        graph, params, heads = self.graph, self.params["bot"]["mhsa"], self.model.num_heads
        height, width = size[1:]
        tokens, depth = height * width, params["qkv"]["kernel"].shape[-1] // (3 * heads)
        qkv = graph.op(
            "Reshape",
            graph.conv(x, params["qkv"]),
            graph.shape(-1, 3, heads, depth, tokens),
        )
        q_BxNxDxT, k_BxNxDxT, v_BxNxDxT = (
            graph.op("Gather", qkv, graph.constant(i, np.int64), axis=1) for i in range(3)
        )
        q = graph.op("Transpose", q_BxNxDxT, perm=[0, 1, 3, 2])
        q = graph.op("Mul", q, graph.constant(depth**-0.5))
        content = graph.op("MatMul", q, k_BxNxDxT)
        logits = graph.op("Add", content, self._positions(q, params["position"], size, depth))
        attention = graph.op("Softmax", logits, axis=-1)
        # Transposed, so that the result is (N, D, T): channels before positions.
        attention = graph.op("Transpose", attention, perm=[0, 1, 3, 2])
        y = graph.op("MatMul", v_BxNxDxT, attention)
        return graph.op("Reshape", y, graph.shape(-1, heads * depth, height, width))

    def _positions(self, q: str, params: Tree, size: Size, depth: int) -> str:
        graph, heads = self.graph, self.model.num_heads
        height, width = size[1:]
        q = graph.op("Reshape", q, graph.shape(-1, heads, height, width, depth))
        rows, columns = (
            graph.constant(np.asarray(params[name])[relative_offsets(side)])
            for name, side in (("rel_height", height), ("rel_width", width))
        )
        by_row = graph.op("Einsum", q, rows, equation="bnhwd,hud->bnhwu")
        by_column = graph.op("Einsum", q, columns, equation="bnhwd,wvd->bnhwv")
        both = graph.op(
            "Add",
            graph.op("Unsqueeze", by_row, graph.shape(5)),
            graph.op("Unsqueeze", by_column, graph.shape(4)),
        )
        tokens = height * width
        return graph.op("Reshape", both, graph.shape(-1, heads, tokens, tokens))

    def _conv_norm(
        self, x: str, size: Size, path, conv: str, norm: str, *, kernel, stride, padding
    ) -> tuple[str, Size]:
        params = _at(self.params, (*path, conv))
        size = (
            params["kernel"].shape[-1],
            *(_side(side, kernel, stride, padding) for side in size[1:]),
        )
        if self.model.norm == "batch":
            folded = self._norm(path, norm)
            return self.graph.conv(x, params, stride=stride, padding=padding, norm=folded), size
        y = self.graph.conv(x, params, stride=stride, padding=padding)
        return self._norm_alone(y, size, path, norm), size

    def _norm_alone(self, x: str, size: Size, path: tuple[str, ...], name: str) -> str:
        """A norm that no convolution comes before."""
        graph = self.graph
        if self.model.norm == "group":
            params = _at(self.params, (*path, name, "gn"))
            return graph.group_norm(x, params, groups=num_groups(size[0]), size=size)
        scale, shift = norm_scale_and_shift(self._norm(path, name))
        x = graph.op("Mul", x, graph.constant(scale.reshape(-1, 1, 1)))
        return graph.op("Add", x, graph.constant(shift.reshape(-1, 1, 1)))

    def _norm(self, path: tuple[str, ...], name: str) -> Tree:
        path = (*path, name)
        return {"params": _at(self.params, path), "batch_stats": _at(self.stats, path)}


def _vgg(graph: Graph, model: VGG19, params: Tree, x: str, size: tuple[int, int]) -> str:
    height, width = size
    for stage, (convolutions, _) in enumerate(model.stages, start=1):
        for number in range(1, convolutions + 1):
            x = graph.relu(graph.conv(x, params[f"stage{stage}_conv{number}"], padding=1))
        x = graph.max_pool(x, size=2, stride=2)
        height, width = height // 2, width // 2
    return _three_layers(graph, params, _adaptive_mean(graph, x, (height, width), 7))


def _alexnet(graph: Graph, params: Tree, x: str, size: tuple[int, int]) -> str:
    layers = (
        # (name, kernel, stride, padding, pooled)
        ("conv1", 11, 4, 2, True),
        ("conv2", 5, 1, 2, True),
        ("conv3", 3, 1, 1, False),
        ("conv4", 3, 1, 1, False),
        ("conv5", 3, 1, 1, True),
    )
    height, width = size
    for name, kernel, stride, padding, pooled in layers:
        x = graph.relu(graph.conv(x, params[name], stride=stride, padding=padding))
        height, width = (_side(side, kernel, stride, padding) for side in (height, width))
        if pooled:
            x = graph.max_pool(x, size=3, stride=2)
            height, width = (_side(side, 3, 2, 0) for side in (height, width))
    return _three_layers(graph, params, _adaptive_mean(graph, x, (height, width), 6))


def _three_layers(graph: Graph, params: Tree, x: str) -> str:
    # Channels last, as our first dense layer counts them.
    x = graph.op("Flatten", graph.op("Transpose", x, perm=[0, 2, 3, 1]))
    x = graph.relu(graph.dense(x, params["fc1"]))
    x = graph.relu(graph.dense(x, params["fc2"]))
    return graph.dense(x, params["head"], output="logits")


def _adaptive_mean(graph: Graph, x: str, size: tuple[int, int], bins: int) -> str:
    """torch's adaptive average pooling of (N, C, h, w), as two matrix products."""
    rows, columns = (bin_weights(side, bins) for side in size)
    x = graph.op("MatMul", graph.constant(rows), x)
    return graph.op("MatMul", x, graph.constant(columns.T))


def _side(side: int, kernel: int, stride: int, padding: int) -> int:
    return (side + 2 * padding - kernel) // stride + 1


def _at(tree: Tree, path: tuple[str, ...]) -> Tree:
    for key in path:
        tree = tree[key]
    return tree
