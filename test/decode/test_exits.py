"""Early exit in decoding: against a plain computation, token by token and layer by layer."""

import math

import pytest
import torch
from transformers import AutoTokenizer, DynamicCache, LlamaConfig, LlamaForCausalLM

from pam.decode.engine import Engine
from pam.decode.exits import EarlyExit, Exits
from pam.decode.row import Row
from pam.decode.search import Greedy, search
from pam.errors import PamError
from pam.llm.causal_lm import CausalLM
from pam.llm.criteria import CRITERIA, Check
from pam.llm.prompts import PromptStates
from pam.model.exits import ExitGate

LAYERS, LIMIT = 5, 10
SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
}
TEXTS = [[3, 5], [9, 8, 7, 6, 50], [100, 200, 30]]


@pytest.fixture(scope="module")
def lm(tiny_llm, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "deep"
    tokenizer = AutoTokenizer.from_pretrained(tiny_llm)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=0, **SIZES)
    LlamaForCausalLM(config).save_pretrained(folder)
    return CausalLM(str(folder), dtype="float32", lora_rank=0).double()


@torch.no_grad()
def read(lm, ids) -> tuple[torch.Tensor, DynamicCache]:
    cache = DynamicCache()
    embeds = lm.embed(torch.tensor([ids]))
    out = lm.backbone(inputs_embeds=embeds, past_key_values=cache, use_cache=True)
    return out.last_hidden_state[:, -1], cache


def rows_of(lm):
    for number, ids in enumerate(TEXTS):
        pooled, cache = read(lm, ids)
        mask = torch.ones(1, len(ids), dtype=torch.bool)
        keys, values = [x.keys for x in cache.layers], [x.values for x in cache.layers]
        yield Row(number, PromptStates(pooled, keys, values, mask), LIMIT)


def sure(exits, states, logits, step) -> bool:
    """Whether to exit, from the states and the logits of one token at the checked layers."""
    layer = len(states)
    before = states[-2] if layer > 1 else None
    tokens = [one.argmax(-1) for one in logits]
    score = CRITERIA[exits.criterion](Check(logits[-1], states[-1], before, tokens))
    return bool(score >= exits.threshold_at(step, LIMIT))


@torch.no_grad()
def one_by_one(lm, ids, exits: Exits) -> tuple[list[int], list[int]]:
    """Tokens and exit layers of a text, with the library's own cache and layers."""
    hidden, cache = read(lm, ids)
    said, layers, backbone = [], [], lm.backbone
    token = int(lm.logits(hidden).argmax())
    while token != lm.eos:
        said.append(token)
        if len(said) == LIMIT:
            break
        if exits.cache == "recompute":  # keys and values are those of the whole LLM
            _, cache = read(lm, [*ids, *said[:-1]])
        position = torch.tensor([[len(ids) + len(said) - 1]])
        state = lm.embed(torch.tensor([[token]]))
        inputs = {
            "position_embeddings": backbone.rotary_emb(state, position),
            "past_key_values": cache,
            "attention_mask": None,
        }
        states, logits = [], []
        for number, layer in enumerate(backbone.layers, 1):
            state = layer(state, **inputs)
            if number not in exits.stops(LAYERS):
                continue
            states.append(state[0])
            logits.append(lm.logits(backbone.norm(state[0])))
            exits_here = exits.criterion == "static" and number == exits.first
            if number == LAYERS or exits_here or sure(exits, states, logits, len(said)):
                break
        for upper in backbone.layers[number:]:
            if exits.cache == "copy":
                kept = cache.layers[number - 1]
                last = kept.keys[:, :, -1:], kept.values[:, :, -1:]
                cache.update(*last, upper.self_attn.layer_idx)
            elif exits.cache == "propagate":
                upper.self_attn(hidden_states=upper.input_layernorm(state), **inputs)
        layers.append(number)
        token = int(logits[-1].argmax())
    return said, layers


CASES = [
    Exits("softmax", 0.05, 1, 1),
    Exits("margin", 0.02, 2, 1, decay=4.0),
    Exits("entropy", 0.06, 1, 2),
    Exits("cosine", 0.8, 1, 1),
    Exits("patience", 2, 1, 1),
]


@pytest.mark.parametrize("cache", ["recompute", "copy", "propagate"])
@pytest.mark.parametrize("exits", CASES, ids=lambda exits: exits.criterion)
def test_tokens_and_layers_are_those_of_a_plain_computation(lm, exits, cache):
    """In float64, for several rows at once and for one."""
    exits = Exits(**{**vars(exits), "cache": cache})
    expected = {number: one_by_one(lm, ids, exits) for number, ids in enumerate(TEXTS)}
    layers = {layer for _, found in expected.values() for layer in found}
    assert len(layers) > 1, "the threshold separates nothing"
    for rows in (len(TEXTS), 1):
        early = EarlyExit(lm, exits)
        found = list(search(Engine(lm, 64, rows), rows_of(lm), early))
        assert {row.key: (row.said, row.exits[: len(row.said)]) for row in found} == {
            key: (said, exit_layers) for key, (said, exit_layers) in expected.items()
        }


@pytest.mark.parametrize("cache", ["recompute", "copy", "propagate"])
@pytest.mark.parametrize("layer", [1, 3, LAYERS])
def test_a_static_exit(lm, layer, cache):
    exits = Exits("static", first=layer, cache=cache)
    expected = {number: one_by_one(lm, ids, exits) for number, ids in enumerate(TEXTS)}
    found = list(search(Engine(lm, 64), rows_of(lm), EarlyExit(lm, exits)))
    assert {row.key: row.said for row in found} == {
        key: said for key, (said, _) in expected.items()
    }
    assert {layer for row in found for layer in row.exits} == {layer}


@pytest.mark.parametrize("no_repeat", [0, 1])
def test_no_exit_is_greedy_search(lm, no_repeat):
    engine = Engine(lm, 64, no_repeat=no_repeat)
    plain = {row.key: row.said for row in search(engine, rows_of(lm), Greedy())}
    assert no_repeat == all(len(set(said)) == len(said) for said in plain.values())
    for exits in (Exits("softmax", 1.0, LAYERS), Exits("static", first=LAYERS)):
        found = list(search(engine, rows_of(lm), EarlyExit(lm, exits)))
        assert {row.key: row.said for row in found} == plain
        assert all(row.layers == LAYERS * len(row.exits) == LAYERS * row.heads for row in found)


@pytest.mark.parametrize("criterion", sorted(CRITERIA.keys() - {"gate"}))
def test_an_early_token_repeats_nothing(lm, criterion):
    """The criteria can use the logits that are left."""
    early = EarlyExit(lm, Exits(criterion, 1 if criterion == "patience" else 0.0))
    found = list(search(Engine(lm, 64, no_repeat=1), rows_of(lm), early))
    assert all(len(set(row.said)) == len(row.said) for row in found)
    assert {layer for row in found for layer in row.exits} != {LAYERS}
    assert all(math.isfinite(row.logprob) for row in found)


def test_computed_layers_are_counted(lm):
    """Recomputed layers too: every token but those after the last full one has all of them."""
    for cache in ("copy", "recompute"):
        exits = Exits("softmax", 0.05, 2, 1, cache=cache)
        for row in search(Engine(lm, 64), rows_of(lm), EarlyExit(lm, exits)):
            assert row.heads == sum(layer - 1 for layer in row.exits)
            if cache == "copy":
                assert row.layers == sum(row.exits)
                continue
            deepest, needed = 0, 0  # a token is computed as deep as any later token passes
            for layer in reversed(row.exits):
                deepest = max(deepest, layer)
                needed += deepest
            assert row.layers == needed


def test_the_gate_decides(lm):
    """A gate that is sure from layer 3 on, and another that knows too few layers."""
    gate = ExitGate(range(1, LAYERS), lm.width)
    with torch.no_grad():
        gate.bias[:] = torch.tensor([-9.0, -9.0, 9.0, 9.0])
    early = EarlyExit(lm, Exits("gate", 0.5), gate)
    static = EarlyExit(lm, Exits("static", first=3))
    found = [
        {row.key: (row.said, row.exits) for row in search(Engine(lm, 64), rows_of(lm), strategy)}
        for strategy in (early, static)
    ]
    assert found[0] == found[1]
    with pytest.raises(PamError, match=r"layer 3 has no gate: .* among \[2, 4\]"):
        EarlyExit(lm, Exits("gate", 0.5, first=2), ExitGate([2, 4], lm.width))
    EarlyExit(lm, Exits("gate", 0.5, first=2, stride=2), ExitGate([2, 4], lm.width))


def check_of(logits, hidden=None, before=None, tokens=(), gate=None) -> Check:
    hidden = torch.zeros(len(logits), 3) if hidden is None else hidden
    return Check(logits, hidden, before, [torch.tensor(t) for t in tokens], gate)


def test_scores_of_the_criteria():
    probabilities = torch.tensor([[0.7, 0.2, 0.1], [1 / 3, 1 / 3, 1 / 3]])
    check = check_of(probabilities.log(), gate=torch.tensor([0.2, 0.9]))
    close = torch.testing.assert_close
    close(CRITERIA["softmax"](check), torch.tensor([0.7, 1 / 3]))
    close(CRITERIA["margin"](check), torch.tensor([0.5, 0.0]))
    entropy = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1))
    close(CRITERIA["entropy"](check), torch.tensor([1 - entropy / math.log(3), 0.0]))
    close(CRITERIA["gate"](check), torch.tensor([0.2, 0.9]))
    one, other = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    close(CRITERIA["cosine"](check_of(torch.zeros(1, 3), one, other)), torch.tensor([24 / 25]))
    close(CRITERIA["cosine"](check_of(torch.zeros(1, 3), one)), torch.tensor([-1.0]))
    tokens = [[1, 5, 2, 3], [2, 5, 2, 4], [2, 5, 1, 4]]
    close(
        CRITERIA["patience"](check_of(torch.zeros(4, 3), tokens=tokens)),
        torch.tensor([2.0, 3, 1, 2]),
    )


def test_the_threshold_falls_along_the_answer():
    assert Exits("margin", 0.8).threshold_at(7, 10) == 0.8
    exits = Exits("margin", 0.8, decay=4.0)
    assert exits.threshold_at(0, 10) == pytest.approx(0.82)
    assert exits.threshold_at(10, 10) == pytest.approx(0.72 + 0.1 * math.exp(-4))
    assert Exits("margin", 1.0, decay=4.0).threshold_at(0, 10) == 1.0


def test_checked_layers():
    assert Exits("margin", first=2, stride=3).stops(9) == [2, 5, 8, 9]
    assert Exits("margin", first=1, stride=1).stops(3) == [1, 2, 3]
    assert Exits("static", first=4).stops(9) == [4, 9]
    assert Exits("static", first=9).stops(9) == [9]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"criterion": "margn"}, "early_exit 'margn': did you mean 'margin'"),
        ({"criterion": "margin", "cache": "copi"}, "exit_cache 'copi': did you mean 'copy'"),
        ({"criterion": "margin", "threshold": 1.5}, "threshold 1.5: must be 0 to 1 for margin"),
        ({"criterion": "margin", "threshold": math.nan}, "threshold nan: must be 0 to 1"),
        ({"criterion": "patience", "threshold": 0.9}, "must be 1 to 5 for patience"),
        ({"criterion": "margin", "first": 6}, "exit_layer 6: must be 1 to 5, the last layer"),
        ({"criterion": "margin", "first": 0}, "exit_layer 0: must be 1 to 5"),
        ({"criterion": "margin", "stride": 0}, "exit_stride 0: must be at least 1"),
        ({"criterion": "margin", "decay": -1}, "exit_decay -1: must be 0 or more"),
        ({"criterion": "gate"}, "this experiment has no trained gate"),
    ],
)
def test_values_that_cannot_be(lm, options, message):
    with pytest.raises(PamError, match=message):
        EarlyExit(lm, Exits(**options))
