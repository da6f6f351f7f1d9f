"""`pool: after`: FFN_e hears native frames, and its features become frames at 25 Hz."""

import pytest
import torch
import torch.nn.functional as F

from pam.encoders.pooling import Pooling
from pam.errors import UserError
from pam.fusion import FUSIONS, build_fusion

DIMS, STATES, WIDTH, EXPERTS = [6, 4], [3, 2], 8, 4
HOPS = [320, 384]
FRAMES = torch.tensor([9, 1, 4, 7, 2])
NATIVE = [torch.tensor([18, 2, 7, 13, 3]), torch.tensor([15, 3, 6, 12, 5])]
NAMES = ["single", "average", "concat", "pam", "moe_audio"]
CONFS = [{"kind": "mlp"}, {"kind": "mlp", "norm": True}, {"kind": "linear", "norm": True}]


def make(name, adapter, **conf):
    torch.manual_seed(0)
    count = 1 if name == "single" else 2
    conf = {"adapter": adapter, **conf}
    fusion = build_fusion(name, DIMS[:count], STATES[:count], WIDTH, EXPERTS, conf).double()
    for parameter in fusion.parameters():  # away from special starting values
        torch.nn.init.normal_(parameter, 0, 0.5)
    fusion.refuse_native_frames()
    return fusion.eval()


def make_inputs(fusion, seed=0):
    """States at native rates, zero where padded, how they become frames, and a gate."""
    generator = torch.Generator().manual_seed(seed)
    states, pooling = [], []
    for number in range(len(fusion.adapters)):
        shape = (5, STATES[number], int(NATIVE[number].max()), DIMS[number])
        state = torch.randn(shape, generator=generator, dtype=torch.float64)
        real = torch.arange(shape[2]) < NATIVE[number][:, None]
        states.append(state.masked_fill(~real[:, None, :, None], 0.0))
        pooling.append(Pooling.make(NATIVE[number], HOPS[number], FRAMES))
    gate = F.one_hot(torch.arange(5) % EXPERTS, EXPERTS).double() if fusion.needs_gate else None
    return states, gate, pooling


def by_samples(features_SJD, hop, frames):
    """The mean of each output frame over its samples, every one of which has its native frame."""
    samples = features_SJD.repeat_interleave(hop, dim=1)
    parts = samples.split(640, dim=1)[:frames]
    return torch.stack([part.mean(dim=1) for part in parts], dim=1)


class Plain(torch.nn.Module):
    """Stands in for FFN_e behind a fusion that hears frames at 25 Hz: its states are features
    already."""

    def inner(self, features, pool=None):
        return features

    def project(self, features, weight_sum=1.0):
        return features


def plain(fusion, states, gate, row):
    """Equation 2 for every native frame of one clip, averaged; the rest as with `pool: before`."""
    adapters, features = fusion.adapters, []
    for number, state in enumerate(states):
        mine = state[row : row + 1, :, : NATIVE[number][row]]
        mapped = adapters[number](mine)[0]
        features.append(by_samples(mapped, HOPS[number], int(FRAMES[row]))[None])
    fusion.adapters = torch.nn.ModuleList([Plain() for _ in states])
    try:
        one = FRAMES[row : row + 1]
        return fusion(features, one, None if gate is None else gate[row : row + 1])[0]
    finally:
        fusion.adapters = adapters


@pytest.mark.parametrize("adapter", CONFS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_plain_formula(name, adapter):
    """Batched, and pooled before the last affine map, against each clip by itself."""
    fusion = make(name, adapter)
    states, gate, pooling = make_inputs(fusion)
    out = fusion(states, FRAMES, gate, pooling)
    assert out.shape == (5, 9, WIDTH) and torch.equal(fusion.output_lengths(FRAMES), FRAMES)
    for row, frames in enumerate(FRAMES.tolist()):
        # Shares are float32: 0.6 is off by 2e-8.
        expected = plain(fusion, states, gate, row)
        torch.testing.assert_close(out[row, :frames], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("adapter", CONFS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_equal_those_of_the_plain_formula(name, adapter):
    fusion = make(name, adapter)
    states, gate, pooling = make_inputs(fusion)
    out = fusion(states, FRAMES, gate, pooling)
    real = torch.arange(9) < FRAMES[:, None]
    parameters = list(fusion.parameters())
    rows = [plain(fusion, states, gate, row).square().sum() for row in range(5)]
    ours, reference = (
        torch.autograd.grad(loss, parameters, materialize_grads=True)  # experts may be idle
        for loss in (out[real].square().sum(), sum(rows))
    )
    for mine, expected in zip(ours, reference, strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_before_and_after_are_one_for_a_linear_map_alone(name):
    """The mean of affine maps is the map of the mean; GELU and a LayerNorm are no affine maps."""
    for adapter in ({"kind": "linear"}, *CONFS):
        fusion = make(name, adapter)
        states, gate, pooling = make_inputs(fusion)
        pooled = [pool(state) for pool, state in zip(pooling, states, strict=True)]
        before = fusion(pooled, FRAMES, gate)
        after = fusion(states, FRAMES, gate, pooling)
        real = torch.arange(9) < FRAMES[:, None]
        same = torch.allclose(before[real], after[real], rtol=1e-5, atol=1e-5)
        assert same == (adapter == {"kind": "linear"}), adapter


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_change_nothing(name):
    fusion = make(name, CONFS[0])
    states, gate, pooling = make_inputs(fusion)
    out = fusion(states, FRAMES, gate, pooling)
    assert out.isfinite().all()
    for row, frames in enumerate(FRAMES.tolist()):
        one = slice(row, row + 1)
        mine = [s[one, :, : NATIVE[number][row]] for number, s in enumerate(states)]
        alone = [
            Pooling.make(NATIVE[number][one], HOPS[number], FRAMES[one])
            for number in range(len(states))
        ]
        found = fusion(mine, FRAMES[one], None if gate is None else gate[one], alone)
        torch.testing.assert_close(found[0], out[row, :frames])


def test_fusions_without_an_ffn_refuse_and_so_does_a_stack():
    others = set(FUSIONS.names()) - set(NAMES)
    assert others == {"wavllm", "salmonn"}
    for name in sorted(others):
        fusion = build_fusion(name, DIMS, STATES, 12, EXPERTS, {})
        with pytest.raises(UserError, match="has no FFN_e to average frames after"):
            fusion.refuse_native_frames()
    with pytest.raises(UserError, match="pool: after: fusion_conf.adapter.stack is 2, .*stack=1"):
        make("pam", {"stack": 2})
