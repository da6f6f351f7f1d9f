"""What every fusion of the registry must keep, whatever it computes."""

import pytest
import torch
import torch.nn.functional as F

from pam.fusion import FUSIONS, build_fusion

DIMS, STATES, WIDTH, EXPERTS = [6, 4], [3, 2], 8, 4
SMALL = {
    "wavllm": {"conv_channels": 3, "channels": 6, "bottleneck": 2},
    "salmonn": {"window": 3, "queries": 2, "hidden": 8, "heads": 2, "ffn": 8},
}
STACKED = {"adapter": {"kind": "linear", "norm": True, "stack": 2}}
STANDARD = {"adapter": STACKED["adapter"] | {"standardize": True}}
CASES = [(name, SMALL.get(name, {})) for name in FUSIONS.names()] + [
    ("single", STACKED),
    ("average", STACKED),
    ("concat", STACKED),
    ("pam", STACKED),
    ("pam", STANDARD),
    ("average", STANDARD),
    ("concat_all_layers", STANDARD),
    ("pam", {"shared": False, "rank": 2}),
    ("pam", {"routed": False}),
    ("moe_audio", STACKED),
    ("moe_audio", STACKED | {"level": "utterance"}),
    ("salmonn", SMALL["salmonn"] | {"window": 0}),
    ("single_all_layers", STACKED | {"expansion": 1.5}),
    ("concat_all_layers", STACKED | {"expansion": 2.0}),
    ("concat_norm_layers", {"stack": 2}),
    ("transformer", STACKED | {"layers": 2, "heads": 2, "expansion": 1.0}),
    ("prompt_mixture", STACKED | {"num_fused": 2, "rank": 3}),
]
LENGTHS = torch.tensor([9, 1, 4, 7, 2])


def case_id(case) -> str:
    name, conf = case
    return "-".join([name, *(f"{k}={v}" for k, v in conf.items() if k not in SMALL["wavllm"])])


@pytest.fixture(params=CASES, ids=case_id)
def fusion(request):
    name, conf = request.param
    torch.manual_seed(0)
    count = 1 if name.startswith("single") else 2
    fusion = build_fusion(name, DIMS[:count], STATES[:count], WIDTH, EXPERTS, conf).double()
    for parameter in fusion.parameters():  # away from special starting values
        torch.nn.init.normal_(parameter, 0, 0.5)
    for adapter in getattr(fusion, "adapters", ()):
        if getattr(adapter, "needs_measuring", False):
            adapter.measure([3 + 5 * torch.randn(40, *adapter.shift.shape)])
    fusion.count = count
    return fusion.eval()  # without dropout


def make_states(fusion, lengths=LENGTHS, seed=0):
    """Random states, zero where padded, and a gate: every expert is used, or a prompt each."""
    generator = torch.Generator().manual_seed(seed)
    batch, frames = len(lengths), int(lengths.max())
    real = torch.arange(frames) < lengths[:, None]
    states = []
    for dim, count in list(zip(DIMS, STATES, strict=True))[: fusion.count]:
        state = torch.randn(batch, count, frames, dim, generator=generator, dtype=torch.float64)
        states.append(state.masked_fill(~real[:, None, :, None], 0.0))
    gate = None
    if fusion.needs_gate:
        gate = F.one_hot(torch.arange(batch) % EXPERTS, EXPERTS).double()
    elif fusion.reads_prompt:
        gate = torch.randn(batch, WIDTH, generator=generator, dtype=torch.float64)
    return states, gate


def test_an_encoder_has_parts_of_its_own_or_none_has(fusion):
    parts = list(fusion.encoder_parts())
    assert len(parts) in (0, fusion.count)
    owned = [id(weight) for part in parts for weight in part.parameters()]
    assert len(set(owned)) == len(owned)
    assert set(owned) <= {id(weight) for weight in fusion.parameters()}


@pytest.mark.parametrize("frames", range(1, 10))
def test_as_many_features_as_promised_and_never_none(fusion, frames):
    lengths = torch.tensor([frames, max(frames - 1, 1)])
    states, gate = make_states(fusion, lengths)
    out = fusion(states, lengths, gate)
    promised = fusion.output_lengths(lengths)
    assert out.shape == (2, int(promised[0]), WIDTH)
    assert promised.dtype == torch.int64 and (promised >= 1).all() and promised[1] <= promised[0]


def test_neighbours_and_padding_change_nothing(fusion):
    states, gate = make_states(fusion)
    out = fusion(states, LENGTHS, gate)
    assert out.isfinite().all()
    for row, frames in enumerate(LENGTHS.tolist()):
        one = slice(row, row + 1)
        mine = [state[one, :, :frames] for state in states]
        alone = fusion(mine, LENGTHS[one], None if gate is None else gate[one])
        real = int(fusion.output_lengths(LENGTHS[one]))
        assert alone.shape[1] == real
        torch.testing.assert_close(out[row, :real], alone[0])


def test_no_real_feature_listens_to_padding(fusion):
    """By gradients, of clips that are longer than what is stacked."""
    lengths = LENGTHS.clamp(min=2)
    states, gate = make_states(fusion, lengths)
    for state in states:
        state.requires_grad_()
    out = fusion(states, lengths, gate)
    real = torch.arange(out.shape[1]) < fusion.output_lengths(lengths)[:, None]
    out[real].square().sum().backward()
    for state in states:
        heard = state.grad.abs().sum((1, 3)) > 0  # [B, T]
        assert not (heard & (torch.arange(9) >= lengths[:, None])).any()
        assert heard[0].sum() >= 8  # an odd tail may be dropped


def test_every_weight_gets_a_gradient(fusion):
    lengths = torch.full((32,), 9)
    states, gate = make_states(fusion, lengths)
    fusion(states, lengths, gate).square().sum().backward()
    for name, parameter in fusion.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A key's bias adds the same to every score, so softmax does not see it.
        if not name.endswith("attention.key.bias"):
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("experts", [1, 2, 7])
@pytest.mark.parametrize("name", ["pam", "moe_audio"])
def test_any_number_of_experts(name, experts):
    fusion = build_fusion(name, DIMS, STATES, WIDTH, experts, {})
    states = [torch.randn(14, s, 5, d) for s, d in zip(STATES, DIMS, strict=True)]
    gate = F.one_hot(torch.arange(14) % experts, experts).float() if fusion.needs_gate else None
    assert fusion(states, torch.full((14,), 5), gate).shape == (14, 5, WIDTH)
