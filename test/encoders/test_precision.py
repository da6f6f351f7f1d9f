"""An encoder in a low precision does not depend on a convolution that the processor gets wrong."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pam.encoders import load_encoder
from pam.encoders.precision import WIDE, keep_narrow_convolutions_in_float32

RIGHT = F.conv1d


def conv1d_of_a_faulty_processor(x, weight, *args, **kwargs):
    """What oneDNN does with AMX: rubbish for bfloat16 and narrow groups."""
    out = RIGHT(x, weight, *args, **kwargs)
    return out * torch.nan if x.dtype != torch.float32 and 1 < weight.shape[1] < WIDE else out


@pytest.fixture
def faulty_processor(monkeypatch):
    monkeypatch.setattr(F, "conv1d", conv1d_of_a_faulty_processor)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("case", ["wav2vec2_base", "hubert_large", "wavlm_large", "beats"])
def test_states_are_right_on_a_faulty_processor(
    tiny_specs, tiny_encoders, faulty_processor, case, dtype
):
    clip = 0.1 * torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    spec = tiny_specs[case]
    coarse = load_encoder({**spec, "conf": spec["conf"] | {"dtype": dtype}})
    states, _ = coarse(clip, torch.tensor([8000]))
    exact, _ = tiny_encoders[case](clip, torch.tensor([8000]))
    similar = F.cosine_similarity(states.float(), exact, dim=-1)
    assert similar.min() > 0.99


@pytest.mark.parametrize("kernel", [3, 16])
@pytest.mark.parametrize("channels", [2, 8, 14, 15])
@pytest.mark.parametrize("groups", [1, 4])
def test_a_narrow_convolution_is_the_rounded_float32_one(channels, groups, kernel):
    torch.manual_seed(0)
    conv = nn.Conv1d(channels * groups, 8 * groups, kernel, groups=groups).to(torch.bfloat16)
    x = torch.randn(2, channels * groups, 40).to(torch.bfloat16)
    keep_narrow_convolutions_in_float32(conv)
    out = conv(x)
    exact = RIGHT(x.float(), conv.weight.float(), conv.bias.float(), groups=groups)
    assert out.dtype == conv.weight.dtype == torch.bfloat16
    assert torch.equal(out, exact.to(torch.bfloat16))


@pytest.mark.parametrize("channels", [1, WIDE])
def test_other_convolutions_stay_as_they_are(channels):
    conv = nn.Conv1d(4 * channels, 4, 16, groups=4)
    keep_narrow_convolutions_in_float32(conv)
    assert "_conv_forward" not in vars(conv)
