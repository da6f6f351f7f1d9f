"""YAMNet against a slow transcription: one window, one position, one patch at a time."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from pam.encoders.pooling import pool_frames
from pam.encoders.yamnet import SameConv, mel_filters
from pam.model.architecture import count, encoder_flops, on_meta

STRIDES = [2, 1, 2, 1]  # of the tiny model


def clip(samples: int) -> Tensor:
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(samples))


def native(encoder, audio: Tensor) -> Tensor:
    return encoder.native(audio[None], torch.tensor([len(audio)]))[0][0]


def plain_filter(band: int, hertz: float) -> float:
    """TensorFlow's linear_to_mel_weight_matrix: straight lines over mel, between 66 edges."""

    def mel(hz: float) -> float:
        return 1127 * math.log(1 + hz / 700)

    low, centre, high = (
        mel(125) + (mel(7500) - mel(125)) * i / 65 for i in (band, band + 1, band + 2)
    )
    up, down = (mel(hertz) - low) / (centre - low), (high - mel(hertz)) / (high - centre)
    return max(0.0, min(up, down))


def plain_patch(audio: Tensor, frame: int) -> Tensor:
    """[F, M]: 96 windows around the frame, silence where there is no clip."""
    window = torch.tensor([0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)])
    filters = torch.tensor([[plain_filter(m, 31.25 * f) for f in range(257)] for m in range(64)])
    silence = torch.zeros(20_000)
    around = torch.cat([silence, audio, silence])
    rows = []
    for i in range(96):
        start = 20_000 + 7680 * frame - 3960 + 160 * i
        padded = torch.cat([around[start : start + 400] * window, torch.zeros(112)])
        rows.append(torch.log(filters @ torch.fft.rfft(padded).abs() + 0.001))
    return torch.stack(rows)


def plain_conv(x: Tensor, weight: Tensor, bias: Tensor, stride: int) -> Tensor:
    """Height and width are divided by the stride and rounded up; then ReLU6. x: [C, h, w]."""
    height, width = (-(-size // stride) for size in x.shape[1:])
    kernel = weight.shape[2]
    zeros = [
        max((out - 1) * stride + kernel - size, 0)
        for out, size in zip((height, width), x.shape[1:], strict=True)
    ]
    top, left = zeros[0] // 2, zeros[1] // 2  # an odd zero comes last
    out = bias[:, None, None].repeat(1, height, width)
    for k, row in np.ndindex(kernel, height):
        for at, column in np.ndindex(kernel, width):
            h, w = row * stride + k - top, column * stride + at - left
            if 0 <= h < x.shape[1] and 0 <= w < x.shape[2]:
                heard = x[:, h, w]
                if weight.shape[1] == 1 < len(x):  # a filter for each channel
                    out[:, row, column] += weight[:, 0, k, at] * heard
                else:
                    out[:, row, column] += weight[:, :, k, at] @ heard
    return out.clamp(0, 6)


def plain_states(patch: Tensor, w: dict[str, Tensor]) -> Tensor:
    """[S, D]: of the last two of three blocks, which are as wide."""
    x = plain_conv(patch[None], w["stem.weight"], w["stem.bias"], STRIDES[0])
    states = []
    for i in range(3):
        for part, stride in (("depthwise", STRIDES[i + 1]), ("pointwise", 1)):
            name = f"blocks.{i}.{part}"
            x = plain_conv(x, w[f"{name}.weight"], w[f"{name}.bias"], stride)
        states.append(x.mean(dim=(1, 2)))
    return torch.stack(states[1:])


@pytest.mark.parametrize("samples", [480, 7680, 17_000])
def test_equals_the_plain_transcription(tiny_specs, tiny_encoders, samples):
    w = load_file(Path(tiny_specs["yamnet"]["path"], "model.safetensors"))
    frames = math.ceil(samples / 7680)
    states = [plain_states(plain_patch(clip(samples), j), w) for j in range(frames)]
    theirs = torch.stack(states, dim=1)
    encoder = tiny_encoders["yamnet"]
    ours = native(encoder, clip(samples))
    assert ours.shape == (2, frames, 16) and (theirs > 0).float().mean() > 0.3
    # Worst measured: 2.2e-7 of the largest state.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=5e-5 * theirs.abs().max().item())
    pooled, _ = encoder(clip(samples)[None], torch.tensor([samples]))
    lengths = torch.tensor([frames]), 7680, torch.tensor([samples])
    torch.testing.assert_close(pooled, pool_frames(ours[None], *lengths)[0])


@pytest.mark.parametrize("size", [(6, 4), (5, 3), (1, 2)])
@pytest.mark.parametrize("stride", [1, 2])
def test_padding_is_tensorflows(size, stride):
    torch.manual_seed(1)
    conv, x = SameConv(2, 3, 3, stride).requires_grad_(False), torch.randn(2, *size)
    theirs = plain_conv(x, conv.weight, conv.bias, stride)
    torch.testing.assert_close(conv(x[None])[0], theirs)


def test_filters_are_tensorflows():
    plain = torch.tensor([[plain_filter(m, 31.25 * f) for f in range(257)] for m in range(64)])
    torch.testing.assert_close(mel_filters(), plain, rtol=0, atol=1e-6)
    assert plain.sum(dim=1).min() > 0.1 and plain[:, 0].eq(0).all()


@pytest.mark.parametrize("samples", [1, 480, 7680, 7681, 40_000])
def test_every_sample_is_in_a_patch(tiny_encoders, samples):
    """Its own frame's, whichever sample it is."""
    encoder = tiny_encoders["yamnet"]
    quiet = encoder.patches(clip(samples)[None])[0]
    assert len(quiet) == encoder.native_length(samples) == -(-samples // 7680)
    for at in {0, samples // 2, samples - 1}:
        audio = clip(samples)
        audio[at] += 1
        heard = (encoder.patches(audio[None])[0] != quiet).any(dim=2).any(dim=1)
        assert heard[at // 7680]


def test_a_patch_has_its_frame_in_the_middle(tiny_encoders):
    """Frame 2 hears as far before its stretch of 0.48 s as after it: 3960 samples."""
    encoder = tiny_encoders["yamnet"]
    silent = encoder.patches(torch.zeros(1, 5 * 7680))[0, 2]
    for beyond, heard in [(3900, True), (4000, False)]:
        for at in (2 * 7680 - beyond, 3 * 7680 + beyond):
            click = torch.zeros(1, 5 * 7680)
            click[0, at] = 100
            assert (encoder.patches(click)[0, 2] != silent).any() == heard


def test_sizes_of_the_published_network():
    """Its authors state 3.7 M parameters and 69.2 M multiply-adds a patch: with 521 classes."""
    model = on_meta("cache:yamnet")
    assert count(model) == 3_195_456 and round((count(model) + 521 * 1025) / 1e6, 1) == 3.7
    flops, seconds = encoder_flops("cache:yamnet")
    assert seconds == 25 * 7680 / 16000
    assert flops / 25 / 2 + 521 * 1024 == pytest.approx(69.2e6, rel=0.01)
