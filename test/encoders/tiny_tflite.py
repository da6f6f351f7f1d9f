"""Writes small graphs of TensorFlow Lite, as its converter writes YAMNet's."""

import flatbuffers
import numpy as np
import tflite

CONVOLUTIONS = {
    "CONV_2D": ("Conv2DOptions", tflite.BuiltinOptions.Conv2DOptions),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", tflite.BuiltinOptions.DepthwiseConv2DOptions),
}
ELEMENT = {
    "float32": tflite.TensorType.FLOAT32,
    "int32": tflite.TensorType.INT32,
    "int8": tflite.TensorType.INT8,
}


def tflite_bytes(tensors: list[dict], operators: list[dict]) -> bytes:
    """tensors: `values`, or None where they are computed; `scale`, `zero` and `axis` of quantised
    ones. operators: `op`, `inputs`, `outputs`, `options` of a convolution."""
    b = flatbuffers.Builder()
    values = [t["values"] for t in tensors if t["values"] is not None]
    buffers = [table(b, "Buffer")]  # the empty one, of what is computed
    buffers += [table(b, "Buffer", Data=b.CreateNumpyVector(flat(v))) for v in values]
    filled = iter(range(1, len(buffers)))
    made = [_tensor(b, t, 0 if t["values"] is None else next(filled)) for t in tensors]
    ops = sorted({o["op"] for o in operators})
    codes = [getattr(tflite.BuiltinOperator, op) for op in ops]
    codes = [table(b, "OperatorCode", DeprecatedBuiltinCode=c, BuiltinCode=c) for c in codes]
    nodes = [_operator(b, o, ops.index(o["op"])) for o in operators]
    graph = table(b, "SubGraph", Tensors=vector(b, made), Operators=vector(b, nodes))
    parts = {"OperatorCodes": codes, "Subgraphs": [graph], "Buffers": buffers}
    b.Finish(table(b, "Model", **{k: vector(b, v) for k, v in parts.items()}), b"TFL3")
    return bytes(b.Output())


def _tensor(b: flatbuffers.Builder, tensor: dict, buffer: int) -> int:
    values, quantised = tensor["values"], None
    if "scale" in tensor:
        quantised = table(
            b,
            "QuantizationParameters",
            Scale=b.CreateNumpyVector(tensor["scale"].astype(np.float32)),
            ZeroPoint=b.CreateNumpyVector(tensor["zero"].astype(np.int64)),
            QuantizedDimension=tensor["axis"],
        )
    shape = [] if values is None else values.shape
    kind = ELEMENT["int8" if values is None else values.dtype.name]
    fields = {"Shape": b.CreateNumpyVector(np.array(shape, np.int32)), "Type": kind}
    return table(b, "Tensor", **fields, Buffer=buffer, Quantization=quantised)


def _operator(b: flatbuffers.Builder, operator: dict, code: int) -> int:
    fields = {key.capitalize(): operator[key] for key in ("inputs", "outputs")}
    fields = {k: b.CreateNumpyVector(np.array(v, np.int32)) for k, v in fields.items()}
    if operator["op"] in CONVOLUTIONS:
        name, kind = CONVOLUTIONS[operator["op"]]
        fields["BuiltinOptionsType"] = kind
        fields["BuiltinOptions"] = table(b, name, **operator["options"])
    return table(b, "Operator", OpcodeIndex=code, **fields)


def table(b: flatbuffers.Builder, name: str, **fields: int | None) -> int:
    getattr(tflite, f"{name}Start")(b)
    for key, value in fields.items():
        if value is not None:
            getattr(tflite, f"{name}Add{key}")(b, value)
    return getattr(tflite, f"{name}End")(b)


def vector(b: flatbuffers.Builder, tables: list[int]) -> int:
    b.StartVector(4, len(tables), 4)
    for offset in reversed(tables):
        b.PrependUOffsetTRelative(offset)
    return b.EndVector()


def flat(values: np.ndarray) -> np.ndarray:
    return np.frombuffer(values.tobytes(), np.uint8)
