import numpy as np
import pytest
import torch
from toys import make_batch

from pam.analysis.importance import ablations, change, forced, num_experts, zeroed
from pam.model.build import build_model


def fuse(model, batch, gate=None):
    with torch.no_grad():
        return model.fuse(*model.states(batch), gate)[0]


def gate_for(model, batch, expert=1):
    return torch.nn.functional.one_hot(torch.full_like(batch["task"], expert), 4).float()


def shake(model):
    """Weights away from their special starting values."""
    with torch.no_grad():
        for parameter in model.fusion.parameters():
            parameter.normal_(0, 0.5)
    return model


def test_zeroing_an_encoder_is_feeding_it_zeros(tiny_model, batch):
    shake(tiny_model)
    gate = gate_for(tiny_model, batch)
    silent = batch | {"second": torch.zeros_like(batch["second"])}
    with zeroed(tiny_model, {"second": range(2)}):
        found = fuse(tiny_model, batch, gate)
    torch.testing.assert_close(found, fuse(tiny_model, silent, gate))
    assert not torch.allclose(found, fuse(tiny_model, batch, gate))  # and it ends


def test_zeroing_layers_by_the_plain_formula(tiny_model, batch):
    """Equations 2 to 6 with h_{first,0} = h_{first,2} = 0; one expert and the shared one."""
    shake(tiny_model)
    fusion, states = tiny_model.fusion, tiny_model.states(batch)[0]
    with zeroed(tiny_model, {"first": [0, 2]}):
        found = fuse(tiny_model, batch, gate_for(tiny_model, batch, 2))
    states[0] = states[0] * torch.tensor([0.0, 1.0, 0.0])[None, :, None, None]
    with torch.no_grad():
        f = [a(s) for a, s in zip(fusion.adapters, states, strict=True)]
        every = torch.cat(f, dim=1)
        expected = sum(
            e.ffn_o(
                torch.cat(
                    [
                        *(x[:, -1] for x in f),
                        *(torch.einsum("s,bstd->btd", w, every) for w in e.weight),
                    ],
                    dim=-1,
                )
            )
            for e in (fusion.shared, fusion.experts[2])
        )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_standardised_state_becomes_its_mean(tiny_config, batch):
    conf = {"adapter": {"kind": "linear", "standardize": True}}
    torch.manual_seed(0)
    model = shake(build_model(tiny_config | {"fusion_conf": conf}))
    for adapter in model.fusion.adapters:
        adapter.shift.normal_()
        adapter.scale.uniform_(0.5, 2.0)
    gate = gate_for(model, batch)
    means = batch["first"].unflatten(-1, (3, -1)).clone()
    means[:, :, [0, 2]] = model.fusion.adapters[0].shift[[0, 2]]
    with zeroed(model, {"first": [0, 2]}):
        found = fuse(model, batch, gate)
    expected = fuse(model, batch | {"first": means.flatten(2)}, gate)
    for row, frames in enumerate(batch["first_lengths"].tolist()):
        torch.testing.assert_close(found[row, :frames], expected[row, :frames])
    assert not torch.allclose(found, fuse(model, batch, gate))  # and it ends


def test_a_forced_expert_is_a_one_hot_gate(tiny_model, batch):
    shake(tiny_model)
    expected = fuse(tiny_model, batch, gate_for(tiny_model, batch, 3))
    with forced(tiny_model, 3):
        found = fuse(tiny_model, batch, gate_for(tiny_model, batch, 0))
    torch.testing.assert_close(found, expected)


def test_audio_routed_experts_can_be_forced(tiny_config, batch):
    torch.manual_seed(0)
    model = shake(build_model(tiny_config | {"fusion": "moe_audio"}))
    states = model.states(batch)[0]
    with torch.no_grad():
        expected = model.fusion.fuse(*model.fusion.features(states), gate_for(model, batch, 2))
    with forced(model, 2):
        found = fuse(model, batch)
    for row, frames in enumerate([7, 4, 5]):  # on padding no expert is chosen
        real = found[row, :frames], expected[row, :frames]
        torch.testing.assert_close(*real, rtol=1e-4, atol=1e-5)
    assert num_experts(model) == 4


def test_losses_of_utterances_are_those_of_the_model(tiny_model):
    tiny_model.eval()
    batch = make_batch(
        tiny_model,
        prompts=["How many?", "Write."],
        texts=["three", "one or two"],
        tasks=[2, 2],
        frames=[5, 8],
    )
    losses = tiny_model.utterance_losses(**batch)
    mean = tiny_model(**batch)[1]["loss_snv"]
    assert float(losses.sum() / batch["text_lengths"].sum()) == pytest.approx(float(mean), rel=1e-4)
    single = {k: v[:1] for k, v in batch.items() if not k.startswith("prompt")}
    single |= {k: batch[k] for k in ("prompt", "prompt_lengths")}
    single["prompt_index"] = batch["prompt_index"][:1]
    single["text"] = single["text"][:, : int(batch["text_lengths"][0])]
    alone = tiny_model.utterance_losses(**single)
    assert float(alone[0]) == pytest.approx(float(losses[0]), rel=1e-4)


def test_what_is_zeroed(tiny_model, tiny_config):
    found = ablations(tiny_model)
    assert list(found)[:2] == ["first", "second"]
    assert found["second"] == {"second": [0, 1]}
    for name, count in (("first", 3), ("second", 2)):
        parts = [layers[name] for key, layers in found.items() if key.startswith(f"{name} ")]
        assert sorted(sum(parts, [])) == list(range(count))
    concat = build_model(tiny_config | {"fusion": "concat", "fusion_conf": {}})
    assert list(ablations(concat)) == ["first", "second"]
    assert num_experts(concat) == 0
    one = build_model(tiny_config | {"fusion_conf": {"routed": False}})
    assert num_experts(one) == 0


def test_changes_resample_clusters():
    """Ten speakers of five utterances each: ten draws."""
    still = {"ac": {"sums": [0.0] * 50, "tokens": [1] * 50}}
    rises = np.repeat(np.random.default_rng(1).random(10), 5).tolist()
    after, widths = {"sums": rises, "tokens": [1] * 50}, []
    for clusters in (None, [f"s{n // 5}" for n in range(50)]):
        found = change(still, {"ac": {**after, "clusters": clusters}})["ac"]
        widths.append(found["ci95"][1] - found["ci95"][0])
    assert widths[1] > 1.8 * widths[0] and found["clusters"]["count"] == 10


def test_changes_are_per_token_and_paired():
    base = {"ac": {"sums": [1.0, 4.0], "tokens": [2, 8]}}
    other = {"ac": {"sums": [2.0, 8.0], "tokens": [2, 8]}}
    found = change(base, other)["ac"]
    assert (found["loss"], found["change"], found["count"]) == (1.0, 0.5, 2)
    assert found["ci95"] == [0.5, 0.5]  # every utterance rises by as much a token
    assert change(base, base)["ac"]["ci95"] == [0.0, 0.0]
    rng = np.random.default_rng(0)
    noisy = {"ac": {"sums": rng.random(50).tolist(), "tokens": [1] * 50}}
    still = {"ac": {"sums": [0.0] * 50, "tokens": [1] * 50}}
    low, high = change(still, noisy)["ac"]["ci95"]
    assert low < change(still, noisy)["ac"]["change"] < high
