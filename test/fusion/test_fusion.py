"""Fusions against plain transcriptions of the equations, at limits, and by contract."""

import pytest
import torch
import torch.nn.functional as F

from pam.errors import UserError
from pam.fusion import FUSIONS, build_fusion
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
    torch.testing.assert_close(fusion(states, gate), torch.cat(rows), rtol=1e-10, atol=1e-10)


def test_gradients_equal_those_of_the_plain_formula():
    fusion, states = make(), make_states(batch=1)
    parameters = [
        p
        for n, p in fusion.named_parameters()
        if n.split(".")[0] in ("adapters", "shared") or n.startswith("experts.3")
    ]
    ours = torch.autograd.grad(fusion(states, one_hot(3)).square().sum(), parameters)
    plain = plain_expert(fusion.shared, fusion.adapters, states)
    plain = plain + plain_expert(fusion.experts[3], fusion.adapters, states)
    reference = torch.autograd.grad(plain.square().sum(), parameters)
    for got, expected in zip(ours, reference, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


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
    fusion(make_states(), one_hot(1, 1, 1)).sum().backward()
    touched = {n.split(".")[1] for n, p in fusion.named_parameters() if p.grad is not None}
    assert "1" in touched and fusion.experts[1].weight.grad.abs().sum() > 0
    assert all(fusion.experts[r].weight.grad is None for r in (0, 2, 3))
    assert fusion.shared.weight.grad.abs().sum() > 0


def contract_case(name):
    dims, states = (DIMS[:1], STATES[:1]) if name == "single" else (DIMS, STATES)
    return make(name, dims, states), make_states(dims=dims, states=states)


@pytest.mark.parametrize("name", FUSIONS.names())
def test_contract_shape_neighbours_and_gradients(name):
    fusion, states = contract_case(name)
    gate = one_hot(0, 1, 2)
    out = fusion(states, gate)
    assert out.shape == (3, 6, WIDTH)
    for row in range(3):
        alone = fusion([s[row : row + 1] for s in states], gate[row : row + 1])
        torch.testing.assert_close(alone[0], out[row])
    out.sum().backward()
    fusion([s[:1] for s in states], one_hot(3)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in fusion.parameters())


def test_average_and_concat_at_limits():
    average, states = make("average"), make_states()
    features = [a(s[:, -1:])[:, 0] for a, s in zip(average.adapters, states, strict=True)]
    torch.testing.assert_close(average(states), (features[0] + features[1]) / 2)
    concat = make("concat")
    features = [a(s[:, -1:])[:, 0] for a, s in zip(concat.adapters, states, strict=True)]
    torch.testing.assert_close(concat(states), concat.ffn_o(torch.cat(features, -1)))


def test_single_takes_one_encoder():
    with pytest.raises(UserError, match="takes one encoder, 2 are configured"):
        make("single")


def test_unknown_names_and_options_are_errors():
    with pytest.raises(UserError, match="unknown fusion 'pan': did you mean 'pam'"):
        build_fusion("pan", DIMS, STATES, WIDTH, EXPERTS, {})
    with pytest.raises(UserError, match="unknown option 'num_fussed'"):
        build_fusion("pam", DIMS, STATES, WIDTH, EXPERTS, {"num_fussed": 3})
    for conf, value in (
        ({"weights": "hard"}, "'hard' is not one of free, softmax"),
        ({"adapter": {"kind": "cnn"}}, "'cnn' is not one of mlp, linear"),
        ({"adapter": {"knd": "mlp"}}, "unknown option 'knd': did you mean 'kind'"),
    ):
        with pytest.raises(UserError, match=value):
            build_fusion("pam", DIMS, STATES, WIDTH, EXPERTS, conf)


def test_stacking_joins_neighbours_and_drops_the_tail():
    x = torch.arange(10.0).view(1, 5, 2)
    assert stack_frames(x, 2).tolist() == [[[0, 1, 2, 3], [4, 5, 6, 7]]]
    assert torch.equal(stack_frames(x, 1), x)


def test_norm_has_no_parameters_and_ignores_scale():
    adapter = PreFusionAdapter(6, WIDTH, norm=True).double()
    state = make_states()[0]
    torch.testing.assert_close(adapter(state), adapter(100 * state), rtol=1e-4, atol=1e-4)
    assert len(list(adapter.parameters())) == 4


def test_dropout_acts_in_training_only():
    fusion, states, gate = make(adapter={"dropout": 0.5}), make_states(), one_hot(0, 1, 2)
    assert not torch.equal(fusion(states, gate), fusion(states, gate))
    fusion.eval()
    torch.testing.assert_close(fusion(states, gate), make()(states, gate))


def test_router_gates():
    router = Router(WIDTH, EXPERTS)
    logits = torch.tensor([[0.0, 2.0, 1.0, -1.0]])
    assert router.gate(logits).tolist() == [[0, 1, 0, 0]]
    assert router.gate(logits, torch.tensor([3])).tolist() == [[0, 0, 0, 1]]
    scaled = Router(WIDTH, EXPERTS, gate="probability").gate(logits)
    torch.testing.assert_close(scaled, logits.softmax(-1) * torch.tensor([0.0, 1, 0, 0]))
    with pytest.raises(UserError, match="router_conf.gate"):
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
