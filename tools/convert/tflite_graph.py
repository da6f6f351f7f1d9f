"""Reads graphs of TensorFlow Lite (.tflite, a flatbuffer) without running them."""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tflite

from pam.errors import PamError

# The element types of the format that we meet.
ELEMENT = {
    tflite.TensorType.FLOAT32: np.float32,
    tflite.TensorType.INT32: np.int32,
    tflite.TensorType.INT8: np.int8,
}
CONVOLUTIONS = {
    "CONV_2D": tflite.Conv2DOptions,
    "DEPTHWISE_CONV_2D": tflite.DepthwiseConv2DOptions,
}


@dataclass
class Node:
    """inputs, outputs: indices of tensors. options: of a convolution; strides and dilations are
    those of height and width."""

    op: str
    inputs: list[int]
    outputs: list[int]
    options: dict[str, int | tuple[int, int]]


def read_tflite(path: Path) -> tuple[dict[int, np.ndarray], list[Node]]:
    """The graph's constants by index, quantised ones as float32, and its nodes in order."""
    data = path.read_bytes()
    try:
        if not tflite.Model.ModelBufferHasIdentifier(data, 0):
            raise ValueError("it does not begin as one")
        model = tflite.Model.GetRootAs(data, 0)
        (graph,) = (model.Subgraphs(i) for i in range(model.SubgraphsLength()))
        tensors = [graph.Tensors(i) for i in range(graph.TensorsLength())]
        sizes = [model.Buffers(tensor.Buffer()).DataLength() for tensor in tensors]
        constants = {i: _array(model, tensors[i]) for i, size in enumerate(sizes) if size}
        nodes = [_node(model, graph.Operators(i)) for i in range(graph.OperatorsLength())]
    except (ValueError, TypeError, LookupError, AttributeError, struct.error) as error:
        reason = " ".join(str(error).split())
        raise PamError(f"{path}: not a graph of TensorFlow Lite, or damaged: {reason}") from error
    return constants, nodes


def _array(model: tflite.Model, tensor: tflite.Tensor) -> np.ndarray:
    raw = model.Buffers(tensor.Buffer()).DataAsNumpy()
    shape = [tensor.Shape(i) for i in range(tensor.ShapeLength())]
    values = np.frombuffer(raw.tobytes(), ELEMENT[tensor.Type()]).reshape(shape)
    quantised = tensor.Quantization()
    return _dequantised(values, quantised) if quantised and quantised.ScaleLength() else values


def _dequantised(values: np.ndarray, by: tflite.QuantizationParameters) -> np.ndarray:
    """(value - zero point) · scale, each for all of the tensor or for one index of an axis."""
    along = [1] * values.ndim
    along[by.QuantizedDimension()] = -1
    zero, scale = (part.reshape(along) for part in (by.ZeroPointAsNumpy(), by.ScaleAsNumpy()))
    return ((values.astype(np.float64) - zero) * scale).astype(np.float32)


def _node(model: tflite.Model, operator: tflite.Operator) -> Node:
    code = model.OperatorCodes(operator.OpcodeIndex())
    op = tflite.opcode2name(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()))
    inputs, outputs = operator.InputsAsNumpy().tolist(), operator.OutputsAsNumpy().tolist()
    return Node(op, inputs, outputs, _options(operator, op) if op in CONVOLUTIONS else {})


def _options(operator: tflite.Operator, op: str) -> dict[str, int | tuple[int, int]]:
    table, options = operator.BuiltinOptions(), CONVOLUTIONS[op]()
    options.Init(table.Bytes, table.Pos)
    return {
        "strides": (options.StrideH(), options.StrideW()),
        "dilations": (options.DilationHFactor(), options.DilationWFactor()),
        "padding": options.Padding(),
        "activation": options.FusedActivationFunction(),
    }
