"""YAMNet's converter on graphs that are written here, whole and damaged."""

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import tflite
import torch
from safetensors.torch import load_file
from tiny_tflite import tflite_bytes
from torch import Tensor

from pam.encoders import load_encoder
from pam.encoders.yamnet import SameConv
from pam.errors import PamError


def graph(model: torch.nn.Module) -> tuple[list[dict], list[dict], dict[str, Tensor]]:
    """A graph in int8 of the model's size, and the weights it has, by our names."""
    generator = np.random.default_rng(5)
    tensors, operators, weights = [{"values": None}], [], {}
    for name, conv in model.named_modules():
        if isinstance(conv, SameConv):
            i, groups, channels = len(tensors), conv.groups, conv.out_channels
            shape = (channels, *conv.kernel_size, conv.in_channels // groups)
            values = generator.integers(-127, 128, shape).astype(np.int8)
            scale, zero = generator.uniform(0.01, 0.02, channels), np.arange(channels) % 2
            bias = generator.integers(-900, 900, channels).astype(np.int32)
            weight = (values - zero[:, None, None, None]) * scale[:, None, None, None]
            weights[f"{name}.weight"] = torch.from_numpy(weight.transpose(0, 3, 1, 2)).float()
            weights[f"{name}.bias"] = torch.from_numpy(bias * scale).float()
            if groups > 1:
                values = values.transpose(3, 1, 2, 0)
            by = {"scale": scale, "zero": zero, "axis": 3 if groups > 1 else 0}
            tensors += [{"values": values} | by]
            tensors += [{"values": bias} | by | {"axis": 0, "zero": 0 * zero}, {"values": None}]
            options = {"StrideH": conv.stride[0], "StrideW": conv.stride[1]}
            options |= {"FusedActivationFunction": tflite.ActivationFunctionType.RELU6}
            options |= {"Padding": tflite.Padding.SAME, "DilationHFactor": 1, "DilationWFactor": 1}
            op = "DEPTHWISE_CONV_2D" if groups > 1 else "CONV_2D"
            node = {"op": op, "inputs": [i - 1, i, i + 1], "outputs": [i + 2], "options": options}
            operators.append(node)
    last = operators[-1]["outputs"][0]
    operators.append({"op": "MEAN", "inputs": [last], "outputs": [last + 1]})
    return [*tensors, {"values": None}], operators, weights


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """The converter: (tensors, operators), or bytes, to the folder that it makes."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    from convert.yamnet import convert as run

    def of(*parts) -> Path:
        file, folder = tmp_path / "blob", tmp_path / "made"
        file.write_bytes(parts[0] if len(parts) == 1 else tflite_bytes(*parts))
        run(file, folder)
        return folder

    return of


def test_the_converter_of_fetch_models(tiny_encoders, convert):
    """Weights and sizes are the graph's: value - zero point, times the scale of the channel."""
    ours = tiny_encoders["yamnet"]
    tensors, operators, weights = graph(ours.model)
    made = load_encoder({"family": "yamnet", "path": str(convert(tensors, operators))})
    assert list(made.model.config.channels) == list(ours.model.config.channels)
    assert list(made.model.config.strides) == [2, 1, 2, 1]
    state = made.model.state_dict()
    assert state.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(state[name], weight, rtol=1e-6, atol=0)
    states, _ = made(torch.zeros(1, 9000), torch.tensor([9000]))
    assert states.shape == (1, 2, 15, 16)


def test_weights_that_are_not_quantised(tiny_encoders, convert):
    tensors, operators, _ = graph(tiny_encoders["yamnet"].model)
    tensors[1] = {"values": np.full((6, 3, 3, 1), 0.25, np.float32)}
    weights = load_file(convert(tensors, operators) / "model.safetensors")
    assert weights["stem.weight"].eq(0.25).all()


def option(at: int, **changed):
    return lambda tensors, operators: operators[at]["options"].update(changed)


def heard(at: int, index: int):
    return lambda tensors, operators: operators[at]["inputs"].__setitem__(0, index)


def values(at: int, made):
    return lambda tensors, operators: tensors.__setitem__(at, {"values": made})


RELU = tflite.ActivationFunctionType.RELU
WRONG = {
    "activation": (
        option(2, FusedActivationFunction=RELU),
        r"blocks\.0\.pointwise has the options",
    ),
    "padding": (option(0, Padding=tflite.Padding.VALID), "stem has the options .*'padding': 1"),
    "dilation": (
        option(1, DilationWFactor=2),
        r"depthwise has the options .*'dilations': \(1, 2\)",
    ),
    "strides": (option(1, StrideW=2), r"depthwise has the options {'strides': \(1, 2\)"),
    "stride of 1 x 1": (option(2, StrideW=2, StrideH=2), r"pointwise has the options"),
    "order": (heard(2, 3), r"CONV_2D hears tensors \[3, 7, 8\], not \[6\]"),
    "no inputs": (lambda _, operators: operators[1]["inputs"].clear(), r"hears tensors \[\]"),
    "no mean": (lambda _, operators: operators.pop(), "do not alternate as MobileNet's do"),
    "no convolution": (lambda _, operators: operators.clear(), "do not alternate"),
    "two in a row": (lambda _, operators: operators.pop(1), "do not alternate"),
    "no bias": (lambda _, operators: operators[0]["inputs"].pop(), "stem lacks its weight or"),
    "no weight": (values(1, None), "stem lacks its weight or its bias"),
    "kernel": (values(1, np.zeros((6, 5, 5, 1), np.float32)), r"stem are \(6, 5, 5, 1\) and"),
    "width": (values(4, np.zeros((1, 3, 3, 7), np.float32)), r"depthwise are \(1, 3, 3, 7\) and"),
    "bias": (values(5, np.zeros(7, np.int32)), r"and \(7,\), expected .*\(6,\)\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_other_graphs_are_refused(tiny_encoders, convert, case):
    damage, message = WRONG[case]
    tensors, operators, _ = deepcopy(graph(tiny_encoders["yamnet"].model))
    damage(tensors, operators)
    with pytest.raises(PamError, match=f"blob: not YAMNet's graph: .*{message}") as error:
        convert(tensors, operators)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kept", [0, 6, 300, 0.5, 0.9])
def test_files_that_are_cut_off_are_one_line(tiny_encoders, convert, kept):
    """From the end, where the tables lie that the beginning points to, or altogether."""
    data = tflite_bytes(*graph(tiny_encoders["yamnet"].model)[:2])
    with pytest.raises(PamError, match="blob: not a graph of TensorFlow Lite, or d") as error:
        convert(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("seed", range(40))
def test_files_with_wrong_bytes_end_in_one_line_or_well(tiny_encoders, convert, seed):
    """Weights that differ are for the checksum of tools/fetch_models.py to find."""
    data = bytearray(tflite_bytes(*graph(tiny_encoders["yamnet"].model)[:2]))
    generator = np.random.default_rng(seed)
    for at in generator.integers(8, len(data), 20):
        data[at] = generator.integers(256)
    try:
        convert(bytes(data))
    except PamError as error:
        assert "\n" not in str(error)
