"""Reads graphs in ONNX Runtime's own format (.ort, a flatbuffer) without running them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.tools.ort_format_model.ort_flatbuffers_py.fbs.InferenceSession import (
    InferenceSession,
)

# The element types of the format that we meet (its TensorDataType).
ELEMENT = {1: np.float32, 2: np.uint8, 3: np.int8, 6: np.int32, 7: np.int64, 10: np.float16}


@dataclass
class Node:
    op: str
    name: str
    inputs: list[str]


def read_ort(path: Path) -> tuple[dict[str, np.ndarray], list[Node]]:
    """The graph's constants by name, and its nodes in order."""
    model = InferenceSession.GetRootAsInferenceSession(bytearray(path.read_bytes()), 0).Model()
    graph = model.Graph()
    tensors = [graph.Initializers(i) for i in range(graph.InitializersLength())]
    nodes = [graph.Nodes(i) for i in range(graph.NodesLength())]
    return {t.Name().decode(): _array(t) for t in tensors}, [_node(n) for n in nodes]


def _array(tensor) -> np.ndarray:
    shape = [tensor.Dims(i) for i in range(tensor.DimsLength())]
    raw = tensor.RawDataAsNumpy()
    return np.frombuffer(raw.tobytes(), ELEMENT[tensor.DataType()]).reshape(shape)


def _node(node) -> Node:
    inputs = [node.Inputs(i).decode() for i in range(node.InputsLength())]
    return Node(node.OpType().decode(), node.Name().decode(), inputs)
