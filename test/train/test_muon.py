"""Muon against a plain reference by singular values, and which weights it trains."""

import pytest
import torch
from torch import nn
from toys import build_with_lora, warmup_of

from pam.train.muon import MOMENTUM, AdamWMuon, orthogonal, shares
from pam.train.task import PaMTask


def by_singular_values(matrix):
    left, _, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    return left @ right


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (6, 6), (1, 4)])
@pytest.mark.parametrize("scale", [1e-8, 1.0, 1e8])
def test_the_orthogonal_factor(shape, scale):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        orthogonal(matrix * scale).double(), by_singular_values(matrix), atol=1e-3, rtol=0
    )


def test_matrices_without_all_directions():
    assert not orthogonal(torch.zeros(4, 7)).any()
    one = torch.outer(torch.arange(1.0, 5), torch.ones(7))  # of rank 1
    torch.testing.assert_close(orthogonal(one), one / one.norm(), atol=1e-4, rtol=0)


def test_weak_directions_stay_weak():
    """From 1 % of the largest singular value on they become 1."""
    left, right = (torch.linalg.qr(torch.randn(n, 3, dtype=torch.double))[0] for n in (4, 6))
    matrix = left * torch.tensor([1.0, 0.02, 0.001]) @ right.mT
    expected = left * torch.tensor([1.0, 1.0, 0.1]) @ right.mT
    torch.testing.assert_close(orthogonal(matrix), expected, atol=1e-6, rtol=0)


def test_a_decomposition_that_fails_is_tried_in_double(monkeypatch):
    plain, matrix = torch.linalg.eigh, torch.randn(4, 6)

    def fails_in_float32(product):
        if product.dtype == torch.float32:
            raise torch.linalg.LinAlgError("the algorithm failed to converge")
        return plain(product)

    expected = orthogonal(matrix)
    monkeypatch.setattr(torch.linalg, "eigh", fails_in_float32)
    torch.testing.assert_close(orthogonal(matrix), expected, atol=1e-4, rtol=0)


def gradients(steps=4):
    drawn = torch.Generator().manual_seed(1)
    return [torch.randn(4, 6, generator=drawn) for _ in range(steps)]


def optimizer_of(weight, vector):
    groups = [
        {"params": [vector], "lr": 0.1, "weight_decay": 0.0},
        {"params": [weight], "lr": 0.2, "weight_decay": 0.5, "muon": True},
    ]
    return AdamWMuon(groups, fused=True)


def move(optimizer, weight, vector, gradients):
    for gradient in gradients:
        weight.grad, vector.grad = gradient.clone(), gradient[0].clone()
        optimizer.step()


def test_steps_are_those_of_a_plain_loop():
    weight, vector = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(6))
    left_alone, plain = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(6))
    optimizer, adamw = optimizer_of(weight, vector), torch.optim.AdamW([plain], 0.1, weight_decay=0)
    optimizer.add_param_group({"params": [left_alone], "muon": True})
    expected, mean = torch.ones(4, 6).double(), torch.zeros(4, 6).double()
    for gradient in gradients():
        move(optimizer, weight, vector, [gradient])
        plain.grad = gradient[0].clone()
        adamw.step()
        mean = MOMENTUM * mean + (1 - MOMENTUM) * gradient
        update = by_singular_values(MOMENTUM * mean + (1 - MOMENTUM) * gradient)
        expected = (1 - 0.2 * 0.5) * expected - 0.2 * 0.2 * 6**0.5 * update
    torch.testing.assert_close(weight.detach().double(), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(vector, plain)
    assert (left_alone == 1).all()  # without a gradient there is no step, and no decay


def test_processes_share_the_matrices_evenly():
    weights = [torch.empty(size, 2) for size in (15, 5, 40, 5, 24, 9)]
    assert shares(weights, 2) == [1, 0, 0, 0, 1, 1]
    assert shares(weights, 1) == [0] * 6 and shares([], 2) == []


def test_updates_are_near_those_of_pytorch():
    """PyTorch's Muon approximates the factor: its singular values are 0.7 to 1.2."""
    ours, theirs = nn.Parameter(torch.zeros(4, 6)), nn.Parameter(torch.zeros(4, 6))
    options = {"lr": 0.2, "weight_decay": 0.0}
    ours.grad, theirs.grad = gradients(1)[0], gradients(1)[0]
    AdamWMuon([{"params": [ours], "muon": True}], **options).step()
    torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **options).step()
    cosine = torch.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0)
    assert cosine > 0.95 and 0.7 < theirs.norm() / ours.norm() < 1.3


def test_a_checkpoint_goes_on_exactly():
    whole = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(6))
    move(optimizer_of(*whole), *whole, gradients())
    begun = nn.Parameter(torch.ones(4, 6)), nn.Parameter(torch.ones(6))
    before = optimizer_of(*begun)
    move(before, *begun, gradients()[:2])
    resumed = tuple(nn.Parameter(weight.detach().clone()) for weight in begun)
    after = optimizer_of(*resumed)
    after.load_state_dict(before.state_dict())
    move(after, *resumed, gradients()[2:])
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_a_checkpoint_of_adamw_alone_goes_on():
    old, new = nn.Parameter(torch.ones(6)), nn.Parameter(torch.ones(6))
    before, after = torch.optim.AdamW([old], 0.1), AdamWMuon([{"params": [new]}], lr=0.5)
    for optimizer, weights in ((before, old), (after, new)):
        weights.grad = torch.ones(6)
        if optimizer is after:
            optimizer.load_state_dict(before.state_dict())
        optimizer.step()
    assert after.param_groups[0]["lr"] == 0.1 and not after.param_groups[0]["muon"]
    assert after.state[new]["step"] == 2


def muons_of(config, phase, **rates):
    """The weights that Muon trains, by name, with their rates; and the optimizer."""

    class Args:
        optim_conf = {"lr": 1e-3, "lora_lr": 2e-3, **rates}

    model = build_with_lora(config)
    if phase == "ctc":
        model = warmup_of(model)
    (optimizer,) = PaMTask.build_optimizers(Args, model)
    names = {id(weight): name for name, weight in model.named_parameters()}
    trained = {
        names[id(weight)].removeprefix("model."): group["lr"]
        for group in optimizer.param_groups
        for weight in group["params"]
        if group["muon"]
    }
    return trained, optimizer


@pytest.mark.parametrize("phase", ["ctc", "llm"])
@pytest.mark.parametrize("rate", [4e-3, 0])
def test_muon_trains_the_matrices_of_pam(tiny_config, phase, rate):
    rates = {"muon_lr": rate, "lr_factors": {"second": 0.5}}
    muons, optimizer = muons_of(tiny_config, phase, **rates)
    adapters = [
        f"fusion.adapters.{n}.{layer}.weight" for n in (0, 1) for layer in ("first", "last")
    ]
    experts = [f"fusion.{expert}.ffn_o.weight" for expert in ("shared", "experts.0", "experts.3")]
    assert muons.keys() >= {*adapters, *experts} if rate else not muons
    assert all(name.endswith((".first.weight", ".last.weight", ".ffn_o.weight")) for name in muons)
    assert all(lr == (2e-3 if "adapters.1." in name else 4e-3) for name, lr in muons.items())
    assert optimizer.param_groups[0]["lr"] == 1e-3  # the first rate of a log is lr itself


@pytest.mark.parametrize(
    "fusion, conf, trained",
    [
        ("moe_audio", {}, "adapters.0.first.weight"),
        ("prompt_mixture", {}, "adapters.0.first.weight"),
        ("transformer", {"heads": 2, "layers": 1}, "self_attn.in_proj_weight"),
        ("wavllm", {}, "branches.1.convs.0.weight"),
    ],
)
def test_routers_are_left_out_and_attention_and_convolutions_are_not(
    tiny_config, fusion, conf, trained
):
    muons, optimizer = muons_of(
        tiny_config | {"fusion": fusion, "fusion_conf": conf}, "ctc", muon_lr=4e-3
    )
    assert any(name.endswith(trained) for name in muons), sorted(muons)
    assert not any("router" in name for name in muons)
    for group in optimizer.param_groups:
        for weight in group["params"]:
            weight.grad = torch.randn_like(weight)
    before = [weight.clone() for group in optimizer.param_groups for weight in group["params"]]
    optimizer.step()
    after = [weight for group in optimizer.param_groups for weight in group["params"]]
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
