"""Fusions against plain transcriptions of the equations, at limits, and by contract."""

import pytest
import torch
import torch.nn.functional as F

from pam.errors import PamError
from pam.fusion import build_fusion
from pam.fusion.adapter import PreFusionAdapter, stack_frames
from pam.fusion.router import Router

DIMS, STATES, WIDTH, EXPERTS = [6, 4], [3, 2], 8, 4


def make(name="pam", dims=DIMS, states=STATES, **conf):
    torch.manual_seed(0)
    fusion = build_fusion(name, dims, states, WIDTH, EXPERTS, conf).double()
    for parameter in fusion.parameters():  # away from special starting values
        torch.nn.init.normal_(parameter, 0, 0.5)
    return fusion


def make_states(batch=3, frames=6, dims=DIMS, states=STATES, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(batch, s, frames, d, generator=generator, dtype=torch.float64)
        for d, s in zip(dims, states, strict=True)
    ]


def run(fusion, states, gate=None):
    """The fusion on clips that are all as long as the batch."""
    return fusion(states, torch.full((len(states[0]),), states[0].shape[2]), gate)


def one_hot(*experts):
    return F.one_hot(torch.tensor(experts), EXPERTS).double()


def plain_expert(expert, adapters, states):
    """Equations 4 to 6 written out, one state and one fused feature at a time."""
    features = []  # f_{e,l} in the order of W's columns
    lasts = []
    for adapter, state in zip(adapters, states, strict=True):
        for layer in range(state.shape[1]):
            features.append(adapter(state[:, layer : layer + 1])[:, 0])
        lasts.append(features[-1])
    weights = expert.layer_weights()
    fused = []
    for k in range(weights.shape[0]):
        g = torch.zeros_like(features[0])
        for column, feature in enumerate(features):
            g = g + weights[k, column] * feature
        fused.append(g)
    return expert.ffn_o(torch.cat(lasts + fused, -1))


@pytest.mark.parametrize("conf", [{}, {"rank": 2}, {"weights": "softmax"}, {"kind": "linear"}])
@pytest.mark.parametrize("norm, stack", [(False, 1), (True, 2)])
def test_mixture_equals_equations(conf, norm, stack):
    conf = dict(conf)
    adapter = {"kind": conf.pop("kind", "mlp"), "norm": norm, "stack": stack}
    fusion = make(**conf, adapter=adapter)
    states, gate = make_states(), one_hot(2, 0, 2)
    rows = []
    for row, expert in enumerate([2, 0, 2]):
        mine = [state[row : row + 1] for state in states]
        shared = plain_expert(fusion.shared, fusion.adapters, mine)
        rows.append(shared + plain_expert(fusion.experts[expert], fusion.adapters, mine))
    # float64: fusing before projecting only changes the order of sums
    torch.testing.assert_close(run(fusion, states, gate), torch.cat(rows), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weights", ["free", "softmax"])
@pytest.mark.parametrize("kind", ["mlp", "linear"])
@pytest.mark.parametrize("norm, stack", [(False, 1), (True, 2)])
def test_gradients_equal_those_of_the_plain_formula(weights, kind, norm, stack):
    fusion = make(weights=weights, adapter={"kind": kind, "norm": norm, "stack": stack})
    states = make_states(batch=1)
    parameters = [
        p
        for n, p in fusion.named_parameters()
        if n.split(".")[0] in ("adapters", "shared") or n.startswith("experts.3")
    ]
    ours = torch.autograd.grad(run(fusion, states, one_hot(3)).square().sum(), parameters)
    plain = plain_expert(fusion.shared, fusion.adapters, states)
    plain = plain + plain_expert(fusion.experts[3], fusion.adapters, states)
    reference = torch.autograd.grad(plain.square().sum(), parameters)
    for got, expected in zip(ours, reference, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_a_linear_adapter_is_one_affine_map_before_or_after_sums():
    adapter = PreFusionAdapter(6, WIDTH, 3, kind="linear", stack=2).double()
    x_BSTC = make_states()[0]
    joined = x_BSTC.reshape(3, 3, 3, 12)
    expected = joined @ adapter.last.weight.T + adapter.last.bias
    torch.testing.assert_close(adapter(x_BSTC), expected)
    mean = adapter.project(adapter.inner(x_BSTC).mean(1))
    torch.testing.assert_close(mean, expected.mean(1))


def test_equal_weights_give_the_mean_and_one_weight_gives_that_layer():
    fusion, states = make(), make_states(batch=1)
    expert, width = fusion.shared, WIDTH
    inner = [a.inner(s) for a, s in zip(fusion.adapters, states, strict=True)]
    every = torch.cat([a(s) for a, s in zip(fusion.adapters, states, strict=True)], 1)
    picked = torch.nn.Linear(5 * width, width).double()  # passes g_1 through
    torch.nn.init.zeros_(picked.bias)
    with torch.no_grad():
        picked.weight.zero_()
        picked.weight[:, 2 * width : 3 * width] = torch.eye(width)
        expert.ffn_o = picked
        last = [x[:, 0] for x in (every, every)]
        expert.weight.fill_(1 / 5)
        mean = expert(fusion.adapters, inner, last)
        expert.weight.zero_()
        expert.weight[0, 3] = 1.0
        third = expert(fusion.adapters, inner, last)
    torch.testing.assert_close(mean, every.mean(1))
    torch.testing.assert_close(third, every[:, 3])


def test_weights_start_as_the_mean():
    for weights in ("free", "softmax"):
        fusion = build_fusion("pam", DIMS, STATES, WIDTH, EXPERTS, {"weights": weights})
        torch.testing.assert_close(fusion.shared.layer_weights(), torch.full((3, 5), 0.2))


def test_only_the_routed_expert_and_the_shared_one_get_gradients():
    fusion = make()
    run(fusion, make_states(), one_hot(1, 1, 1)).sum().backward()
    touched = {n.split(".")[1] for n, p in fusion.named_parameters() if p.grad is not None}
    assert "1" in touched and fusion.experts[1].weight.grad.abs().sum() > 0
    assert all(fusion.experts[r].weight.grad is None for r in (0, 2, 3))
    assert fusion.shared.weight.grad.abs().sum() > 0


def test_average_and_concat_at_limits():
    average, states = make("average"), make_states()
    features = [a(s[:, -1:])[:, 0] for a, s in zip(average.adapters, states, strict=True)]
    torch.testing.assert_close(run(average, states), (features[0] + features[1]) / 2)
    concat = make("concat")
    features = [a(s[:, -1:])[:, 0] for a, s in zip(concat.adapters, states, strict=True)]
    torch.testing.assert_close(run(concat, states), concat.ffn_o(torch.cat(features, -1)))


def test_single_takes_one_encoder():
    with pytest.raises(PamError, match="takes one encoder, 2 are configured"):
        make("single")


def test_unknown_names_and_options_are_errors():
    with pytest.raises(PamError, match="unknown fusion 'pan': did you mean 'pam'"):
        build_fusion("pan", DIMS, STATES, WIDTH, EXPERTS, {})
    with pytest.raises(PamError, match="unknown option 'num_fussed'"):
        build_fusion("pam", DIMS, STATES, WIDTH, EXPERTS, {"num_fussed": 3})
    for conf, value in (
        ({"weights": "hard"}, "'hard' is not one of free, softmax"),
        ({"adapter": {"kind": "cnn"}}, "'cnn' is not one of mlp, linear"),
        ({"shared": False, "routed": False}, "there is no expert"),
        ({"adapter": {"knd": "mlp"}}, "unknown option 'knd': did you mean 'kind'"),
    ):
        with pytest.raises(PamError, match=value):
            build_fusion("pam", DIMS, STATES, WIDTH, EXPERTS, conf)


def test_stacking_joins_neighbours_and_drops_the_tail():
    x = torch.arange(10.0).view(1, 5, 2)
    assert stack_frames(x, 2).tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    assert torch.equal(stack_frames(x, 1), x)
    # what would leave a clip without any feature is filled up
    assert stack_frames(x, 6).tolist() == [[[*range(10), 0, 0]]]


def test_norm_has_no_parameters_and_ignores_scale():
    adapter = PreFusionAdapter(6, WIDTH, 3, norm=True).double()
    state = make_states()[0]
    torch.testing.assert_close(adapter(state), adapter(100 * state), rtol=1e-4, atol=1e-4)
    assert len(list(adapter.parameters())) == 4


def test_standardised_states_have_mean_0_and_variance_1_over_the_measured_frames():
    adapter = PreFusionAdapter(6, WIDTH, 3, kind="linear", standardize=True)
    assert adapter.needs_measuring
    frames = torch.randn(50, 3, 6) * torch.logspace(-1, 2, 6) + torch.arange(3.0)[:, None]
    adapter.measure(frames.split([7, 43]))  # clips of several lengths
    assert not adapter.needs_measuring
    seen = adapter.inner(frames.transpose(0, 1)[None])[0]  # [S, T, C]
    torch.testing.assert_close(seen.mean(1), torch.zeros(3, 6), rtol=0, atol=1e-4)
    torch.testing.assert_close(seen.std(1, correction=0), torch.ones(3, 6), rtol=1e-3, atol=0)
    last = adapter.inner(frames.transpose(0, 1)[None, -1:])[0]  # of the last state alone
    torch.testing.assert_close(last[0], seen[-1])
    assert set(adapter.state_dict()) >= {"shift", "scale"}
    assert not PreFusionAdapter(6, WIDTH, 3, norm=True).needs_measuring
    constant = PreFusionAdapter(6, WIDTH, 3, norm=True, standardize=True)
    constant.measure([torch.ones(9, 3, 6)])  # no division by zero
    assert constant.inner(torch.ones(1, 3, 4, 6)).isfinite().all()


def test_dropout_acts_in_training_only():
    fusion, states, gate = make(adapter={"dropout": 0.5}), make_states(), one_hot(0, 1, 2)
    assert not torch.equal(run(fusion, states, gate), run(fusion, states, gate))
    fusion.eval()
    torch.testing.assert_close(run(fusion, states, gate), run(make(), states, gate))


def test_router_gates():
    router = Router(WIDTH, EXPERTS)
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]])
    assert router.gate(logits).tolist() == [[0, 1, 0, 0]]
    assert router.gate(logits, torch.tensor([3])).tolist() == [[0, 0, 0, 1]]
    scaled = Router(WIDTH, EXPERTS, gate="probability").gate(logits)
    torch.testing.assert_close(scaled, logits.softmax(-1) * torch.tensor([0.0, 1, 0, 0]))
    with pytest.raises(PamError, match="router_conf.gate"):
        Router(WIDTH, EXPERTS, gate="sof")


def test_a_standardizing_router_starts_at_the_statistics_of_the_prompts():
    prompts = torch.randn(50, WIDTH) * torch.logspace(-1, 2, WIDTH) + 3
    router = Router(WIDTH, EXPERTS, standardize=True)
    router.standardize_by(prompts)
    plain = Router(WIDTH, EXPERTS)
    plain.ffn.load_state_dict(router.ffn.state_dict())
    standard = (prompts - prompts.mean(0)) / prompts.std(0)
    torch.testing.assert_close(router(prompts), plain(standard), rtol=1e-4, atol=1e-5)
    assert {name for name, _ in plain.named_parameters()} == {"ffn.weight", "ffn.bias"}
    router.standardize_by(prompts[:1])  # a task with one prompt: no deviation, and no scale
    torch.testing.assert_close(router(prompts[:1]), plain.ffn.bias[None])
    assert torch.isfinite(router(prompts)).all()


def test_halves_of_the_mixture_are_what_is_left():
    """Table 11: with one expert the routed ones are gone, without shared the shared one."""
    whole, states, gate = make(), make_states(), one_hot(2, 0, 1)
    shared, routed = make(routed=False), make(shared=False)
    for half in (shared, routed):
        half.load_state_dict(whole.state_dict(), strict=False)
    assert (whole.needs_gate, shared.needs_gate, routed.needs_gate) == (True, False, True)
    names = {n.split(".")[0] for n, _ in shared.named_parameters()}
    assert names == {"adapters", "shared"}
    together = run(shared, states) + run(routed, states, gate)
    torch.testing.assert_close(together, run(whole, states, gate))


def plain_choice(router, x):
    """Equations 11 and 12 for one vector: its expert and that one's probability."""
    p = router.ffn(x).softmax(-1)
    return int(p.argmax()), p.max()


@pytest.mark.parametrize("stack", [1, 2])
def test_every_frame_is_routed_by_its_audio(stack):
    fusion, states = make("moe_audio", adapter={"stack": stack}), make_states(frames=8)
    out = run(fusion, states)
    x = torch.cat([a(s[:, -1:])[:, 0] for a, s in zip(fusion.adapters, states, strict=True)], -1)
    chosen = set()
    for row in range(3):
        mine = [state[row : row + 1] for state in states]
        shared = plain_expert(fusion.shared, fusion.adapters, mine)[0]
        for frame in range(8 // stack):
            expert, p = plain_choice(fusion.router, x[row, frame])
            routed = plain_expert(fusion.experts[expert], fusion.adapters, mine)[0, frame]
            torch.testing.assert_close(out[row, frame], shared[frame] + p * routed)
            chosen.add(expert)
    assert len(chosen) > 1


def test_every_utterance_is_routed_by_its_mean():
    fusion, states = make("moe_audio", level="utterance"), make_states(batch=6)
    out = run(fusion, states)
    x = torch.cat([a(s[:, -1:])[:, 0] for a, s in zip(fusion.adapters, states, strict=True)], -1)
    choices = [plain_choice(fusion.router, x[row].mean(0)) for row in range(6)]
    for row, (expert, p) in enumerate(choices):
        mine = [state[row : row + 1] for state in states]
        shared = plain_expert(fusion.shared, fusion.adapters, mine)
        routed = plain_expert(fusion.experts[expert], fusion.adapters, mine)
        torch.testing.assert_close(out[row : row + 1], shared + p * routed)
    assert len({expert for expert, _ in choices}) > 1
    with pytest.raises(PamError, match="'clip' is not one of frame, utterance"):
        make("moe_audio", level="clip")


def plain_conv(conv, x, stride):
    """A convolution over three frames [T, C], one output at a time, and its GLU."""
    x = F.pad(x, (0, 0, 1, 1))
    out = []
    for start in range(0, len(x) - 2, stride):
        window = x[start : start + 3]
        both = torch.einsum("oik,ki->o", conv.weight, window) + conv.bias
        half = len(both) // 2
        out.append(both[:half] * both[half:].sigmoid())
    return torch.stack(out)


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_wavllm_equals_its_formula(frames):
    fusion = make("wavllm", conv_channels=3, channels=5, bottleneck=2)
    states = make_states(batch=1, frames=frames)
    features = []
    for branch, state in zip(fusion.branches, states, strict=True):
        u = plain_conv(branch.convs[0], state[0, -1], 1)
        u = plain_conv(branch.convs[1], u, 2)
        v = branch.norm(branch.up(F.gelu(branch.down(u)))) + u
        features.append(branch.project(v))
    expected = fusion.ffn_o(torch.cat(features, -1))
    torch.testing.assert_close(run(fusion, states)[0], expected)


SALMONN = {"window": 3, "queries": 2, "hidden": 8, "heads": 2, "ffn": 8}


def test_salmonn_hears_one_window_at_a_time():
    fusion, states = make("salmonn", **SALMONN).eval(), make_states(batch=1, frames=7)
    whole = run(fusion, states)
    for window in range(3):  # 3, 3 and 1 frames: the tail is kept
        part = [state[:, :, 3 * window : 3 * window + 3] for state in states]
        torch.testing.assert_close(run(fusion, part), whole[:, 2 * window : 2 * window + 2])
    clip = make("salmonn", **SALMONN | {"window": 0}).eval()
    clip.load_state_dict(fusion.state_dict())
    assert run(clip, states).shape == (1, 2, WIDTH)
    part = [state[:, :, :3] for state in states]
    torch.testing.assert_close(run(clip, part), whole[:, :2])


def test_salmonn_normalises_its_encoders_and_has_no_order_of_queries():
    """LayerNorm: scale does not count; the frames of a window have no order in cross-attention."""
    fusion, states = make("salmonn", **SALMONN).eval(), make_states(batch=1, frames=3)
    out = run(fusion, states)
    scaled = [100 * state for state in states]
    torch.testing.assert_close(run(fusion, scaled), out, rtol=1e-4, atol=1e-4)
    turned = [state.flip(2) for state in states]
    torch.testing.assert_close(run(fusion, turned), out)


def test_salmonn_refuses_sizes_that_cannot_be():
    for conf, message in (
        ({"heads": 3}, "8 is no multiple of heads, 3"),
        ({"window": -1}, "expected 0 or more frames"),
        ({"queries": 0}, "at least one query"),
    ):
        with pytest.raises(PamError, match=message):
            make("salmonn", **SALMONN | conf)


def test_the_paper_s_parameter_counts():
    """The table of counts in section 4.5: concatenation 37, reduced PaM 29 in all and 26 active."""

    def count(module):
        return sum(p.numel() for p in module.parameters())

    with torch.device("meta"):
        shape = {"dims": [768] * 3, "states": [13] * 3, "width": 2048, "num_experts": 4}
        lora = 36 * (32 * (2048 + 2048) + 32 * (2048 + 256))
        assert lora == 7_372_800
        router = count(Router(2048, 4))
        concat = count(build_fusion("concat", conf={}, **shape)) + lora
        reduced = build_fusion("pam", conf={"rank": 64}, **shape)
        full = build_fusion("pam", conf={}, **shape)
    assert round(concat / 1e6, 2) == 37.27
    assert round((count(reduced) + router + lora) / 1e6, 2) == 29.29
    assert round(count(reduced.shared) / 1e6, 2) == 0.92
    active = count(reduced) - 3 * count(reduced.shared) + router + lora
    assert round(active / 1e6, 2) == 26.53
    assert round(count(full.shared) / 1e6, 2) == 25.17
    assert round((count(full) + router + lora) / 1e6, 1) == 150.5


def test_parameter_counts_that_the_paper_does_not_print():
    """By hand, from the sizes in A.3's open-source codebases and D_e = 768, D = 2048."""
    conv = (3 * 768 + 1) * 512 + (3 * 256 + 1) * 2048
    bottleneck = 1025 * 512 + 513 * 1024 + 2 * 1024
    wavllm = 3 * (conv + bottleneck + 1025 * 2048) + (3 * 2048 + 1) * 2048
    attention, cross = 4 * 769 * 768, 2 * 769 * 768 + 2 * 2305 * 768
    layer = attention + cross + 769 * 3072 + 3073 * 768 + 3 * 2 * 768
    salmonn = 3 * 2 * 768 + 32 * 768 + 2 * 768 + 2 * layer + 769 * 2048
    with torch.device("meta"):
        shape = {"dims": [768] * 3, "states": [13] * 3, "width": 2048, "num_experts": 4}
        for name, expected in (("wavllm", wavllm), ("salmonn", salmonn)):
            fusion = build_fusion(name, conf={}, **shape)
            assert sum(p.numel() for p in fusion.parameters()) == expected
    assert (round(wavllm / 1e6, 2), round(salmonn / 1e6, 2)) == (30.3, 25.23)
