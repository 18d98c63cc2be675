"""A network of the `unet` family as an ONNX graph, made from its configuration and weights, whatever backend trained it.

Inside, channels come first, which a CPU runs fastest, with one transpose at each end. Batch, height and width stay open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cellcount_core.domain.errors import ModelFault
from cellcount_core.models.families import LOGITS, Growing
from cellcount_core.models.families.unet import UnetConfig, parse_unet

if TYPE_CHECKING:
    import keras
    import onnx

Weights = Mapping[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Kernel (as Keras keeps it) and bias (width,), by the name of the layer."""

FLOAT_NODES = ("stem_linear", "stem", "logits", "maps_flat", "maps_last", "maps_blocks", "maps_rows", "maps")
"""Nodes that integers would not run faster, and the maps themselves: quantisation leaves them, if present, in float32."""

_OPSET = 17
_IR = 9
"""Both are read by every ONNX Runtime since 1.16."""


def layer_weights(network: keras.Model) -> Weights:
    """Kernels and biases of a network without batch normalisation (see `fold_batch_norm`), by layer."""
    found: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]] = {}
    for layer in network.layers:
        if layer.weights:
            kernel, bias = (np.asarray(value, np.float32) for value in layer.get_weights())
            found[layer.name] = (kernel, bias)
    return found


def write_onnx(
    config: Mapping[str, object], weights: Weights, path: Path, *, growing: Growing = "resize"
) -> None:
    """Write the network: input "image" (B, H, W, inputs) float32, output "maps" (B, H, W, outputs) float32 in 0..1.

    H and W are multiples of the network's stride. Raises ModelFault if the configuration keeps batch normalisation, or the weights
    are not those of its layers.
    """
    import onnx

    onnx.save_model(onnx_graph(config, weights, growing=growing), path)


def onnx_graph(
    config: Mapping[str, object], weights: Weights, *, growing: Growing = "resize"
) -> onnx.ModelProto:
    """The graph that `write_onnx` writes, checked. Raises ModelFault as `write_onnx`."""
    spec = parse_unet(config)
    if spec.batch_norm:
        raise ModelFault("network.batch_norm: fold it into the convolutions before the network becomes ONNX")
    graph = Graph(weights, growing)
    maps = _body(graph, spec)
    return checked_model(
        graph,
        "unet",
        ["batch", "height", "width", spec.inputs],
        maps,
        ["batch", "height", "width", spec.outputs],
    )


def checked_model(
    graph: Graph, name: str, shape: Sequence[int | str], out: str, out_shape: Sequence[int | str]
) -> onnx.ModelProto:
    """The model of a finished graph, checked: from "image" of `shape` to its tensor `out` of `out_shape`, both float32."""
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))
    given = helper.make_tensor_value_info(out, TensorProto.FLOAT, list(out_shape))
    model = helper.make_model(
        helper.make_graph(graph.nodes, name, [image], [given], graph.constants),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR,
        producer_name="cellcount",
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _body(graph: Graph, spec: UnetConfig) -> str:
    x = graph.add("Transpose", ["image"], "image_first", perm=[0, 3, 1, 2])
    if spec.stem == 2:
        x = graph.convolve(x, "stem", stride=2)
    skips = []
    last = len(spec.filters) - 1
    for level, convolutions in enumerate(spec.encoder):
        for index in range(convolutions):
            x = graph.convolve(x, f"down{level}_{index}")
        if level < last:
            skips.append(x)
            x = graph.add("MaxPool", [x], f"pool{level}", kernel_shape=[2, 2], strides=[2, 2])
    for level in range(last - 1, -1, -1):
        if spec.up == "project":
            x = graph.grow(graph.convolve(x, f"project{level}"), f"grow{level}")
        else:
            x = graph.convolve(graph.grow(x, f"grow{level}"), f"convolve{level}")
        if spec.skip == "add":
            x = graph.add("Add", [skips[level], x], f"join{level}")
        else:
            x = graph.add("Concat", [skips[level], x], f"join{level}", axis=1)
        for index in range(spec.decoder[level]):
            x = graph.convolve(x, f"up{level}_{index}")
    return _half_maps(graph, spec, x) if spec.stem == 2 else _full_maps(graph, x)


def _full_maps(graph: Graph, x: str) -> str:
    x = graph.add("Sigmoid", [graph.convolve(x, LOGITS, activation=None)], "maps_flat")
    return graph.add("Transpose", [x], "maps", perm=[0, 2, 3, 1])


def _half_maps(graph: Graph, spec: UnetConfig, x: str) -> str:
    """The last layer, a transposed 2x2 convolution of stride 2: a 1x1 one whose channels are laid out as 2x2 pixels."""
    kernel, bias = graph.weights_of(LOGITS)
    flat = kernel.reshape(4 * spec.outputs, -1)[..., None, None]
    x = graph.add("Conv", [x, *graph.store(LOGITS, flat, np.tile(bias, 4))], LOGITS, kernel_shape=[1, 1])
    x = graph.add("Transpose", [graph.add("Sigmoid", [x], "maps_flat")], "maps_last", perm=[0, 2, 3, 1])
    x = graph.add("Reshape", [x, graph.integers("blocks", [0, 0, 0, 2, 2 * spec.outputs])], "maps_blocks")
    x = graph.add("Transpose", [x], "maps_rows", perm=[0, 1, 3, 2, 4])
    sides = graph.add("Shape", ["image"], "image_sides", start=0, end=3)
    shape = graph.add("Concat", [sides, graph.integers("outputs", [spec.outputs])], "maps_shape", axis=0)
    return graph.add("Reshape", [x, shape], "maps")


class Graph:
    """Nodes and constants under construction. Methods return the name of the tensor that they add."""

    def __init__(self, weights: Weights, growing: Growing) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._weights = weights
        self._growing = growing

    def add(self, kind: str, inputs: Iterable[str], name: str, **attributes: int | str | list[int]) -> str:
        from onnx import helper

        node = helper.make_node(kind, list(inputs), [name], name=name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
        self.nodes.append(node)
        return name

    def weights_of(self, layer: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            return self._weights[layer]
        except KeyError:
            raise ModelFault(
                f"network: the weights hold no layer {layer!r} (they hold {sorted(self._weights)})"
            ) from None

    def store(self, layer: str, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> list[str]:
        parts = {f"{layer}_kernel": kernel, f"{layer}_bias": bias}
        return [self._constant(name, np.ascontiguousarray(part, np.float32)) for name, part in parts.items()]

    def convolve(self, x: str, layer: str, *, stride: int = 1, activation: str | None = "Relu") -> str:
        """A convolution padded like Keras's "same" for inputs whose sides are multiples of the stride: an odd rest comes after."""
        kernel, bias = self.weights_of(layer)
        sides = kernel.shape[:2]
        rests = [max(side - stride, 0) for side in sides]
        before = [rest // 2 for rest in rests]
        pads = [*before, *(rest - first for rest, first in zip(rests, before, strict=True))]
        x = self.add(
            "Conv",
            [x, *self.store(layer, kernel.transpose(3, 2, 0, 1), bias)],
            layer if activation is None else f"{layer}_linear",
            kernel_shape=list(sides),
            strides=[stride, stride],
            pads=pads,
        )
        return x if activation is None else self.add(activation, [x], layer)

    def dense(self, x: str, layer: str, name: str) -> str:
        """A dense layer without activation, of a tensor (B, F); `name` is that of the node."""
        return self.add("Gemm", [x, *self.store(layer, *self.weights_of(layer))], name)

    def integers(self, name: str, values: list[int] | int) -> str:
        """A constant; it is stored once, however often it is asked for."""
        return self._constant(name, np.array(values, np.int64))

    def grow(self, x: str, name: str) -> str:
        """Every pixel becomes 2x2 equal ones."""
        if self._growing == "resize":
            twice = self._constant("twice", np.array([1, 1, 2, 2], np.float32))
            attributes = {
                "mode": "nearest",
                "coordinate_transformation_mode": "asymmetric",
                "nearest_mode": "floor",
            }
            return self.add("Resize", [x, "", twice], name, **attributes)
        x = self.add("Transpose", [x], f"{name}_last", perm=[0, 2, 3, 1])
        x = self._repeat(self._repeat(x, f"{name}_x", axis=2), f"{name}_y", axis=1)
        return self.add("Transpose", [x], name, perm=[0, 3, 1, 2])

    def _repeat(self, x: str, name: str, *, axis: int) -> str:
        """Every element along an axis twice: those at 0, 0, 1, 1, ..."""
        zero, one, two = (self.integers(word, number) for number, word in enumerate(("zero", "one", "two")))
        side = self.add(
            "Squeeze", [self.add("Shape", [x], f"{name}_shape", start=axis, end=axis + 1)], f"{name}_side"
        )
        places = self.add("Range", [zero, self.add("Mul", [side, two], f"{name}_end"), one], f"{name}_places")
        return self.add("Gather", [x, self.add("Div", [places, two], f"{name}_from")], name, axis=axis)

    def _constant(self, name: str, values: NDArray[np.generic]) -> str:
        from onnx import numpy_helper

        if all(constant.name != name for constant in self.constants):
            self.constants.append(numpy_helper.from_array(values, name))
        return name
