"""An LLM's layers in parts give what its whole pass gives, or its family is refused."""

import pytest
import torch
from families import tiny_of
from test_families import load
from transformers import DynamicCache

from pam.errors import PamError
from pam.llm.depth import Depth

STACKS = ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3_text", "phi3", "olmo2"]
# Where the final norm's input is x + FFN(norm(x)): the families that offer points in a layer.
PLAIN = ["llama", "qwen2", "qwen3", "mistral", "gemma", "phi3"]
REFUSED = {
    "gpt2": "no plain list of layers",
    "bloom": "no plain list of layers",
    "opt": "no plain list of layers",
    "granite": "its layers in parts give other states",  # the decoder scales its input
}


@pytest.fixture
def words():
    return torch.randint(300, (2, 9), generator=torch.Generator().manual_seed(0))


def close(got, expected):
    # float32 through scaled weights; worst seen 2e-6 of the largest value
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("family", STACKS)
@torch.no_grad()
def test_parts_give_what_the_whole_gives(monkeypatch, tiny_llm, family, words):
    lm = load(monkeypatch, tiny_llm, tiny_of(family, num_hidden_layers=3))
    depth = Depth(lm)
    assert len(depth) == 3
    embeds = lm.embed(words)
    whole = lm.backbone(inputs_embeds=embeds, use_cache=False, output_hidden_states=True)
    with depth.record() as states:
        lm.backbone(inputs_embeds=embeds, use_cache=False)
    hidden = embeds
    for first, last in ((0, 1), (1, 2), (2, 3)):
        hidden = depth.run(hidden, first, last, use_cache=False)
        close(hidden, states[last - 1])
        if last < 3:
            close(hidden, whole.hidden_states[last])
    close(depth.run(depth.run(embeds, 0, 2, use_cache=False), 2, 3, use_cache=False), hidden)
    own = lm.llm(inputs_embeds=embeds, use_cache=False).logits
    close(depth.logits(hidden), own)
    assert not torch.allclose(depth.logits(states[0]), own, atol=1e-3)
    with depth.record() as after:
        pass
    lm.backbone(inputs_embeds=embeds, use_cache=False)
    assert after == []  # the hooks are gone


@torch.no_grad()
def test_a_part_continues_from_a_cache(monkeypatch, tiny_llm, words):
    """As decoding does: the prefix in the cache of each part, then one token."""
    lm = load(monkeypatch, tiny_llm, tiny_of("llama", num_hidden_layers=3))
    depth, embeds = Depth(lm), lm.embed(words)
    cache = DynamicCache()
    for columns in (slice(0, 8), slice(8, 9)):
        positions = torch.arange(9)[None, columns].expand(2, -1)
        seen = torch.arange(columns.stop) <= positions[..., None]
        mask = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        common = {"position_ids": positions, "past_key_values": cache, "use_cache": True}
        common["attention_mask"] = mask[:, None]
        hidden = depth.run(embeds[:, columns], 0, 2, **common)
        hidden = depth.run(hidden, 2, 3, **common)
    whole = lm.llm(inputs_embeds=embeds, use_cache=False).logits
    close(depth.logits(hidden)[:, 0], whole[:, -1])


@pytest.mark.parametrize("family", PLAIN)
@torch.no_grad()
def test_the_points_in_a_layer_are_after_attention_and_after_ffn(
    monkeypatch, tiny_llm, family, words
):
    lm = load(monkeypatch, tiny_llm, tiny_of(family, num_hidden_layers=3))
    depth, embeds = Depth(lm, sublayers=True), lm.embed(words)
    with depth.record() as layers:
        lm.backbone(inputs_embeds=embeds, use_cache=False)
    with depth.record(sublayers=True) as states:
        lm.backbone(inputs_embeds=embeds, use_cache=False)
    assert len(states) == 6
    for layer, middle, end, expected in zip(
        depth.layers, states[::2], states[1::2], layers, strict=True
    ):
        assert torch.equal(end, expected)
        close(middle + layer.mlp(layer.post_attention_layernorm(middle)), end)
        assert not torch.allclose(middle, end)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_is_no_plain_stack_is_refused(monkeypatch, tiny_llm, family):
    lm = load(monkeypatch, tiny_llm, tiny_of(family))
    with pytest.raises(PamError, match=f"family {family} cannot be used: .*") as error:
        Depth(lm)
    error.match(REFUSED[family])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["gemma3_text", "olmo2"])
def test_a_family_of_other_layers_has_no_points_in_them(monkeypatch, tiny_llm, family):
    lm = load(monkeypatch, tiny_llm, tiny_of(family))
    with pytest.raises(PamError, match="its layers ") as error:
        Depth(lm, sublayers=True)
    assert "\n" not in str(error.value)


def test_parts_that_give_other_states_are_refused(monkeypatch, tiny_llm):
    """A decoder that does more than run its layers in order."""
    lm = load(monkeypatch, tiny_llm, tiny_of("llama"))
    plain = lm.backbone.forward

    def forward(*args, **kwargs):
        out = plain(*args, **kwargs)
        out.last_hidden_state = out.last_hidden_state * 1.1
        return out

    monkeypatch.setattr(lm.backbone, "forward", forward)
    with pytest.raises(PamError, match="its layers in parts give other states than one pass"):
        Depth(lm)
