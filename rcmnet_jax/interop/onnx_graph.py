"""A small writer of ONNX graphs: nodes, constants, and the layers that our networks consist of."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Opset 18: ReduceMean and ReduceMax take their axes alike. IR 9 is read by runtimes since 2023.
OPSET, IR_VERSION = 18, 9
BATCH_NORM_EPSILON = GROUP_NORM_EPSILON = 1e-5

Tree = Mapping[str, Any]


class Graph:
    """Nodes in the order they are added; values are known by their names."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Adds a node with one output, and gives its name."""
        name = output or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Adds an array, and gives its name."""
        name = f"constant_{len(self._constants)}"
        array = np.array(value, dtype, order="C")
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def shape(self, *sizes: int) -> str:
        """Adds a shape, -1 for the batch."""
        return self.constant(sizes, np.int64)

    def model(
        self,
        *,
        image: tuple[int, int],
        outputs: Mapping[str, int],
        name: str,
        producer_version: str,
    ) -> onnx.ModelProto:
        """The finished model, from uint8 images (N, H, W, 3) to (N, size) of each output."""
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self._nodes,
            name,
            [value("image", TensorProto.UINT8, ["N", *image, 3])],
            [value(key, TensorProto.FLOAT, ["N", size]) for key, size in outputs.items()],
            initializer=self._constants,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="rcmnet_jax",
            producer_version=producer_version,
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def conv(
        self, x: str, params: Tree, *, stride: int = 1, padding: int = 0, norm: Tree | None = None
    ) -> str:
        """A convolution of (N, C, H, W), with the batch norm after it folded in where given."""
        kernel = np.asarray(params["kernel"], np.float64).transpose(3, 2, 0, 1)
        bias = np.asarray(params.get("bias", np.zeros(len(kernel))), np.float64)
        if norm is not None:
            scale, shift = norm_scale_and_shift(norm)
            kernel, bias = kernel * scale[:, None, None, None], bias * scale + shift
        return self.op(
            "Conv",
            x,
            self.constant(kernel),
            self.constant(bias),
            kernel_shape=kernel.shape[2:],
            strides=[stride, stride],
            pads=[padding] * 4,
        )

    def group_norm(self, x: str, params: Tree, *, groups: int, size: Sequence[int]) -> str:
        """Group normalisation of (N, C, h, w), as instance normalisation of the groups."""
        channels, height, width = size
        grouped = self.op("Reshape", x, self.shape(-1, groups, channels // groups * height * width))
        ones, zeros = self.constant(np.ones(groups)), self.constant(np.zeros(groups))
        normed = self.op("InstanceNormalization", grouped, ones, zeros, epsilon=GROUP_NORM_EPSILON)
        back = self.op("Reshape", normed, self.shape(-1, channels, height, width))
        scale, bias = (np.asarray(params[key]).reshape(-1, 1, 1) for key in ("scale", "bias"))
        scaled = self.op("Mul", back, self.constant(scale))
        return self.op("Add", scaled, self.constant(bias))

    def dense(self, x: str, params: Tree, *, output: str = "") -> str:
        """A dense layer of (N, C)."""
        kernel, bias = (self.constant(params[key]) for key in ("kernel", "bias"))
        return self.op("Gemm", x, kernel, bias, output=output)

    def max_pool(self, x: str, *, size: int, stride: int, padding: int = 0) -> str:
        """Max-pooling of (N, C, H, W)."""
        return self.op(
            "MaxPool", x, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[padding] * 4
        )

    def relu(self, x: str) -> str:
        """max(x, 0)."""
        return self.op("Relu", x)

    def global_mean(self, x: str) -> str:
        """(N, C, H, W) to (N, C)."""
        return self.op("Flatten", self.op("GlobalAveragePool", x))


def norm_scale_and_shift(norm: Tree) -> tuple[np.ndarray, np.ndarray]:
    """Batch norm with its running statistics as ``x * scale + shift``, float64."""
    params, stats = norm["params"]["bn"], norm["batch_stats"]["bn"]
    mean, var = (np.asarray(stats[key], np.float64) for key in ("mean", "var"))
    scale = np.asarray(params["scale"], np.float64) / np.sqrt(var + BATCH_NORM_EPSILON)
    return scale, np.asarray(params["bias"], np.float64) - mean * scale
