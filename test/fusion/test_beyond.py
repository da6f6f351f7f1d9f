"""The baselines beyond the paper against plain loops, and at limits with known answers."""

import pytest
import torch
import torch.nn.functional as F

from pam.errors import PamError
from pam.fusion import build_fusion
from pam.fusion.adapter import stack_frames

DIMS, STATES, WIDTH, EXPERTS = [6, 4], [3, 2], 8, 4
ADAPTERS = [{}, {"kind": "linear", "norm": True, "stack": 2}]


def make(name, dims=DIMS, states=STATES, **conf):
    torch.manual_seed(0)
    fusion = build_fusion(name, dims, states, WIDTH, EXPERTS, conf).double()
    for parameter in fusion.parameters():  # away from special starting values
        torch.nn.init.normal_(parameter, 0, 0.5)
    return fusion


def make_states(frames=6, dims=DIMS, states=STATES):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(3, s, frames, d, generator=generator, dtype=torch.float64)
        for d, s in zip(dims, states, strict=True)
    ]


def run(fusion, states, prompts=None):
    """The fusion on clips that are all as long as the batch."""
    return fusion(states, torch.full((len(states[0]),), states[0].shape[2]), prompts)


def plain_features(fusion, states):
    """f_{e,l} of every encoder, one state at a time."""
    return [
        [adapter(state[:, layer : layer + 1])[:, 0] for layer in range(state.shape[1])]
        for adapter, state in zip(fusion.adapters, states, strict=True)
    ]


def plain_sums(fusion, states):
    """Σ_l softmax(w_e)_l f_{e,l} of every encoder."""
    sums = []
    for logits, features in zip(fusion.layer_logits, plain_features(fusion, states), strict=True):
        weights = logits.exp() / logits.exp().sum()
        sums.append(sum(w * feature for w, feature in zip(weights, features, strict=True)))
    return sums


def plain_mlp(layers, x):
    return layers[2](F.gelu(layers[0](x)))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_concatenation_of_all_layers(adapter):
    states = make_states()
    linear = make("concat_all_layers", adapter=adapter)
    expected = linear.ffn_o(torch.cat(plain_sums(linear, states), -1))
    torch.testing.assert_close(run(linear, states), expected)
    wide = make("concat_all_layers", adapter=adapter, expansion=1.5)
    assert wide.ffn_o[0].out_features == 12
    expected = plain_mlp(wide.ffn_o, torch.cat(plain_sums(wide, states), -1))
    torch.testing.assert_close(run(wide, states), expected)


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_all_layers_of_one_encoder(adapter):
    one = {"dims": DIMS[:1], "states": STATES[:1]}
    fusion, states = make("single_all_layers", **one, adapter=adapter), make_states(**one)
    expected = fusion.ffn_o(plain_sums(fusion, states)[0])
    torch.testing.assert_close(run(fusion, states), expected)
    with pytest.raises(PamError, match="'single_all_layers' takes one encoder, 2 are configured"):
        make("single_all_layers")


def test_layer_weights_start_as_the_mean_and_can_choose_one_layer():
    fusion, states = make("concat_all_layers"), make_states()
    every = plain_features(fusion, states)
    with torch.no_grad():
        for logits in fusion.layer_logits:
            logits.zero_()
        means = [torch.stack(features).mean(0) for features in every]
        torch.testing.assert_close(fusion.features(states), means)
        fusion.layer_logits[0][1] = fusion.layer_logits[1][0] = 1e4
        chosen = fusion.features(states)
    torch.testing.assert_close(chosen, [every[0][1], every[1][0]])
    fresh = build_fusion("concat_all_layers", DIMS, STATES, WIDTH, EXPERTS, {})
    assert all((logits == 0).all() for logits in fresh.layer_logits)


@pytest.mark.parametrize("stack", [1, 2])
def test_concatenation_of_normed_layers(stack):
    fusion, states = make("concat_norm_layers", stack=stack), make_states(frames=7)
    rows = []
    for row in range(3):
        frames = []
        for t in range(7):
            joined = []
            for state in states:
                for layer in range(state.shape[1]):
                    h = state[row, layer, t]
                    joined.append((h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt())
            frames.append(fusion.linear.weight @ torch.cat(joined))
        rows.append(plain_mlp(fusion.mlp, stack_frames(torch.stack(frames), stack)))
    torch.testing.assert_close(run(fusion, states), torch.stack(rows))


def test_no_layer_counts_more_because_it_is_larger():
    fusion, states = make("concat_norm_layers"), make_states()
    larger = [state * torch.tensor([1.0, 100, 9])[: state.shape[1], None, None] for state in states]
    torch.testing.assert_close(run(fusion, larger), run(fusion, states), rtol=1e-3, atol=1e-3)


def plain_layer(layer, x_ED, heads):
    """A Transformer layer with LayerNorm first, one head and one query at a time."""
    normed = layer.norm1(x_ED)
    projected = F.linear(normed, layer.self_attn.in_proj_weight, layer.self_attn.in_proj_bias)
    size, read = WIDTH // heads, []
    for q, k, v in zip(*(part.split(size, -1) for part in projected.chunk(3, -1)), strict=True):
        rows = []
        for query in q:
            scores = torch.stack([query @ key for key in k]) / size**0.5
            rows.append(scores.softmax(0) @ v)
        read.append(torch.stack(rows))
    x_ED = x_ED + layer.self_attn.out_proj(torch.cat(read, -1))
    return x_ED + layer.linear2(F.gelu(layer.linear1(layer.norm2(x_ED))))


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_the_transformer_reads_one_frame_at_a_time(adapter):
    options = {"heads": 2, "layers": 2, "expansion": 1.5, "adapter": adapter}
    fusion, states = make("transformer", **options).eval(), make_states()
    tokens_BUED = torch.stack(plain_sums(fusion, states), 2)
    rows = []
    for clip in tokens_BUED:
        frames = []
        for x_ED in clip:
            for layer in fusion.transformer.layers:
                x_ED = plain_layer(layer, x_ED, heads=2)
            frames.append(fusion.transformer.norm(x_ED).mean(0))
        rows.append(torch.stack(frames))
    torch.testing.assert_close(run(fusion, states), torch.stack(rows))
    with torch.no_grad():  # PyTorch's fast path
        torch.testing.assert_close(run(fusion, states), torch.stack(rows))


def test_the_width_of_the_transformer_must_fit_its_heads():
    with pytest.raises(PamError, match="heads: 3 does not divide the LLM's width, 8"):
        make("transformer", heads=3)


def plain_prompt_mixture(fusion, states, weights_MS):
    """Equations 5 and 6 for one row with these layer weights."""
    every = plain_features(fusion, states)
    features = [feature for own in every for feature in own]
    fused = [sum(w * f for w, f in zip(row, features, strict=True)) for row in weights_MS]
    return fusion.ffn_o(torch.cat([own[-1] for own in every] + fused, -1))


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("rank", [0, 3])
def test_every_prompt_has_its_own_layer_weights(adapter, rank):
    fusion = make("prompt_mixture", adapter=adapter, rank=rank)
    states, prompts = make_states(), torch.randn(3, WIDTH).double()
    router, rows = fusion.router, []
    for row in range(3):
        standard = (prompts[row] - router.shift) * router.scale
        weights_MS = (router.ffn.weight @ standard + router.ffn.bias).view(3, 5).softmax(-1)
        mine = [state[row : row + 1] for state in states]
        rows.append(plain_prompt_mixture(fusion, mine, weights_MS))
    torch.testing.assert_close(run(fusion, states, prompts), torch.cat(rows))


def test_without_a_prompt_the_weights_are_those_of_the_mean_prompt():
    """In the CTC warm-up. `standardize_by` makes the mean of the training prompts zero."""
    fusion, states = make("prompt_mixture"), make_states()
    prompts = torch.randn(20, WIDTH).double() + 3
    fusion.router.standardize_by(prompts)
    weights_MS = fusion.router.ffn.bias.view(3, 5).softmax(-1)
    expected = plain_prompt_mixture(fusion, states, weights_MS)
    torch.testing.assert_close(run(fusion, states), expected)
    torch.testing.assert_close(run(fusion, states, prompts.mean(0).expand(3, -1)), expected)
    run(fusion, states).square().sum().backward()
    assert fusion.router.ffn.bias.grad.abs().sum() > 0
    assert fusion.router.ffn.weight.grad.abs().sum() == 0


def test_prompts_start_near_the_mean():
    fusion = build_fusion("prompt_mixture", DIMS, STATES, 64, EXPERTS, {})
    weights_BMS = fusion.layer_weights(torch.randn(50, 64))
    assert (weights_BMS - 0.2).abs().max() < 0.1
    torch.testing.assert_close(weights_BMS.sum(-1), torch.ones(50, 3))
    unprompted = fusion.layer_weights(fusion.router.shift[None])
    torch.testing.assert_close(unprompted, torch.full((1, 3, 5), 0.2))


def test_gradients_reach_the_prompt():
    """The LLM's LoRA can be trained through h_prompt, where it acts on prompts."""
    fusion, prompts = make("prompt_mixture"), torch.randn(3, WIDTH).double().requires_grad_()
    run(fusion, make_states(), prompts).square().sum().backward()
    assert (prompts.grad.abs().sum(1) > 0).all()
