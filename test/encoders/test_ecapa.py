"""ECAPA-TDNN against a slow transcription: one frame, one band, one group at a time."""

import hashlib
import math
import re
from pathlib import Path

import pytest
import torch
from tiny import ecapa_weights, save_ecapa
from torch import Tensor

from pam.encoders import load_encoder
from pam.encoders.ecapa import mel_filters
from pam.encoders.pooling import pool_frames
from pam.errors import PamError
from pam.model.architecture import on_meta

DILATIONS = [1, 2, 3, 4]


def clip(samples: int) -> Tensor:
    audio = 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))
    audio[: samples // 4] *= 1e-6  # more than 80 dB below the rest
    return audio


def run(encoder, audio: Tensor) -> Tensor:
    return encoder(audio[None], torch.tensor([len(audio)]))[0]


def plain_filter(band: int, hertz: float, bands: int) -> float:
    """SpeechBrain's triangle: both sides are as wide as the left one."""
    top = 2595 * math.log10(1 + 8000 / 700)
    low, centre = (700 * (10 ** (top * i / (bands + 1) / 2595) - 1) for i in (band, band + 1))
    return max(0.0, 1 - abs(hertz - centre) / (centre - low))


def plain_log_mel(audio: Tensor) -> Tensor:
    """[J, M]: windows centred on every 10 ms, silence around the clip."""
    window = torch.tensor([0.54 - 0.46 * math.cos(2 * math.pi * n / 400) for n in range(400)])
    padded = torch.cat([torch.zeros(200), audio, torch.zeros(200)])
    filters = torch.tensor(
        [[plain_filter(m, 40.0 * f, bands=6) for f in range(201)] for m in range(6)]
    )
    rows = []
    for start in range(0, len(audio) + 1, 160):
        power = torch.fft.rfft(padded[start : start + 400] * window).abs().square()
        rows.append(10 * (filters @ power).clamp(min=1e-10).log10())
    level = torch.stack(rows)
    level = level.clamp(min=level.max() - 80)
    return level - level.mean(dim=0)


def plain_tdnn(x: Tensor, w: dict[str, Tensor], name: str, dilation: int = 1) -> Tensor:
    """Convolution with mirrored ends, ReLU, batch norm. x: [J, C]."""
    weight, bias = w[f"{name}.conv.conv.weight"], w[f"{name}.conv.conv.bias"]
    reach = weight.shape[2] // 2
    out = torch.zeros(len(x), len(weight))
    for j in range(len(x)):
        out[j] = bias
        for k in range(-reach, reach + 1):
            at = abs(j + k * dilation)
            at = at if at < len(x) else 2 * (len(x) - 1) - at
            out[j] += weight[:, :, k + reach] @ x[at]
    mean, variance = w[f"{name}.norm.norm.running_mean"], w[f"{name}.norm.norm.running_var"]
    scaled = (out.clamp(min=0) - mean) / (variance + 1e-5).sqrt()
    return scaled * w[f"{name}.norm.norm.weight"] + w[f"{name}.norm.norm.bias"]


def plain_block(x: Tensor, w: dict[str, Tensor], name: str, dilation: int) -> Tensor:
    inner = plain_tdnn(x, w, f"{name}.tdnn1")
    groups = [inner[:, :4]]
    for i in range(1, 4):
        heard = inner[:, 4 * i : 4 * i + 4]
        heard = heard if i == 1 else heard + groups[-1]
        groups.append(plain_tdnn(heard, w, f"{name}.res2net_block.blocks.{i - 1}", dilation))
    out = plain_tdnn(torch.cat(groups, dim=1), w, f"{name}.tdnn2")
    gate = out.mean(dim=0)
    for conv, function in (("conv1", torch.relu), ("conv2", torch.sigmoid)):
        key = f"{name}.se_block.{conv}.conv"
        gate = function(w[f"{key}.weight"][:, :, 0] @ gate + w[f"{key}.bias"])
    return x + gate * out


@pytest.mark.parametrize("samples", [640, 3000, 5600])
def test_equals_the_plain_transcription(tiny_encoders, samples):
    w = ecapa_weights()
    states = [plain_tdnn(plain_log_mel(clip(samples)), w, "blocks.0", DILATIONS[0])]
    for i in (1, 2, 3):
        states.append(plain_block(states[-1], w, f"blocks.{i}", DILATIONS[i]))
    native = samples // 160 + 1
    assert tiny_encoders["ecapa"].native_length(samples) == len(states[0]) == native
    lengths = torch.tensor([samples])
    theirs, _ = pool_frames(torch.stack(states)[None], torch.tensor([native]), 160, lengths)
    ours = run(tiny_encoders["ecapa"], clip(samples))
    # Worst measured: 3.2e-7 of the largest state.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5 * theirs.abs().max().item())


def test_filters_of_the_published_models():
    """80 bands: narrow ones, of which none may be empty."""
    filters = mel_filters(80)
    assert filters.shape == (80, 201) and filters.max() <= 1
    assert filters.sum(dim=1).min() > 0.1
    for band in (0, 17, 79):
        exact = [plain_filter(band, 40.0 * f, bands=80) for f in range(201)]
        torch.testing.assert_close(filters[band], torch.tensor(exact), rtol=0, atol=1e-5)


def test_shortest_clip(tiny_encoders):
    """The widest convolution mirrors four frames, hence needs five: 40 ms."""
    encoder = tiny_encoders["ecapa"]
    assert (encoder.output_length(639), encoder.output_length(640)) == (0, 1)


def test_a_folder_made_of_the_loaded_model_is_the_model(tiny_encoders, tmp_path):
    encoder = tiny_encoders["ecapa"]
    encoder.model.save_pretrained(tmp_path)
    again = load_encoder({"family": "ecapa", "path": str(tmp_path)})
    assert torch.equal(run(again, clip(9000)), run(encoder, clip(9000)))


def test_the_converter_of_fetch_models(tiny_encoders, tmp_path, monkeypatch):
    """From a file of any name, as --local may give it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "tools"))
    from convert.ecapa import convert

    convert(save_ecapa(tmp_path).rename(tmp_path / "blob"), tmp_path / "made")
    again = load_encoder({"family": "ecapa", "path": str(tmp_path / "made")})
    assert torch.equal(run(again, clip(9000)), run(tiny_encoders["ecapa"], clip(9000)))


def test_names_and_shapes_of_the_published_weights():
    """Of the pinned embedding_model.ckpt, whose list this digest is: 231 tensors."""
    model = on_meta("cache:ecapa-voxceleb").state_dict()
    shapes = {
        re.sub(r"\b(conv|norm)(\d?)\.(?=\w+$)", r"\1\2.\1.", key): [*value.shape]
        for key, value in model.items()
    }
    for name, (out, inputs) in {"mfa": (3072, 3072), "asp.tdnn": (128, 9216)}.items():
        shapes |= {f"{name}.conv.conv.weight": [out, inputs, 1], f"{name}.conv.conv.bias": [out]}
        shapes |= norm_shapes(f"{name}.norm.norm", out)
    shapes |= {"asp.conv.conv.weight": [3072, 128, 1], "asp.conv.conv.bias": [3072]}
    shapes |= {"fc.conv.weight": [192, 6144, 1], "fc.conv.bias": [192]}
    shapes |= norm_shapes("asp_bn.norm", 6144)
    lines = [f"{key} {shape}" for key, shape in sorted(shapes.items())]
    assert len(lines) == 231
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert digest == "84f66264cbcc96c40dc7346ee98759e89b0fc99e163188d24d5b19b0f43e56f8"


def norm_shapes(name: str, channels: int) -> dict[str, list[int]]:
    kept = ("weight", "bias", "running_mean", "running_var")
    shapes = {f"{name}.{part}": [channels] for part in kept}
    return shapes | {f"{name}.num_batches_tracked": []}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("blocks.2.tdnn1.conv.conv.bias", None, r"lacks the weights blocks\.2\.tdnn1\.conv"),
        ("blocks.1.shortcut.conv.weight", torch.zeros(1), "unknown weights blocks.1.shortcut"),
        ("blocks.4.res2net_block.blocks.0.conv.conv.weight", torch.zeros(4, 4, 3), "has 5 blocks"),
        ("blocks.0.conv.conv.weight", None, "holds no 'blocks.0.conv.conv.weight'"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(tmp_path, key, value, message):
    weights = ecapa_weights() | {key: value}
    path = tmp_path / "embedding_model.ckpt"
    torch.save({k: v for k, v in weights.items() if v is not None}, path)
    with pytest.raises(PamError, match=message):
        load_encoder({"family": "ecapa", "path": str(path)})
