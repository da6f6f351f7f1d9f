"""Exact decoding: a batch of any size gives what single utterances give."""

import random
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from toys import make_batch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.models.llama.modeling_llama import LlamaModel

from pam.config import load_yaml
from pam.decode import decoder
from pam.decode.decoder import Decoder
from pam.decode.drafters import DRAFTERS
from pam.decode.engine import ITEMS, SLOT_STEP
from pam.decode.exact import READ_ROWS, ExactMemory, padded, power_above
from pam.decode.greedy import greedy
from pam.decode.request import Request
from pam.decode.settings import Settings
from pam.errors import PamError
from pam.model.build import build_model
from pam.paths import resolve_model

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ["Write it down, please.", "How many?", "What can be heard in this clip? Say it briefly."]


def clips_of(model, batch):
    """The features of single rows."""
    for row in range(len(batch["task"])):
        yield {
            s.name: batch[s.name][row, : int(batch[f"{s.name}_lengths"][row])] for s in model.shapes
        }


def answer(model, clips, prompts, limit=128, per_second=0.0, **settings):
    """The answers, in the order of the clips."""
    requests = [
        Request(row, prompt, lambda clip=clip: clip, limit, per_second)
        for row, (clip, prompt) in enumerate(zip(clips, prompts, strict=True))
    ]
    answers = Decoder(model, Settings(**settings)).answers(requests)
    return sorted(answers, key=lambda answered: answered.key)


def test_prompts_are_remembered_up_to_a_size(tiny_model, monkeypatch):
    one = ExactMemory(tiny_model)
    one(["a"])
    memory = ExactMemory(tiny_model, most=3 * one.nbytes)
    learnt, learn = [], memory.learn
    monkeypatch.setattr(memory, "learn", lambda new: (learnt.append(list(new)), learn(new)))
    memory(["a", "b", "c"])
    memory(["a", "d"])  # b was used longest ago
    assert list(memory.known) == ["c", "a", "d"]
    memory(["a", "b", "e", "f", "g"])  # all of a call are needed
    assert list(memory.known) == ["a", "b", "e", "f", "g"]
    assert learnt == [["a", "b", "c"], ["d"], ["b", "e", "f", "g"]]
    assert memory.nbytes == 5 * one.nbytes == sum(s.nbytes for s in memory.known.values())
    memory(["h"])
    assert list(memory.known) == ["f", "g", "h"]
    states = memory.known["h"]
    assert not any(x.requires_grad for x in (states.pooled, *states.keys, *states.values))


def two_clips(model):
    batch = make_batch(model, PROMPTS[:2], ["a"] * 2, [0] * 2, [9, 30])
    return list(clips_of(model, batch))


def test_rows_of_long_inputs_are_not_more_than_the_inputs(tiny_model, monkeypatch):
    """32 rows of minutes of audio would be gigabytes."""
    clips, rows, plain = two_clips(tiny_model), [], decoder.Engine

    def engine(lm, slots, number, *others):
        rows.append(number)
        return plain(lm, slots, number, *others)

    monkeypatch.setattr(decoder, "Engine", engine)
    found = [answer(tiny_model, clips, PROMPTS[:2], 20)]
    monkeypatch.setattr(decoder, "LONG", 0)
    found.append(answer(tiny_model, clips, PROMPTS[:2], 20))
    assert rows[0] == ITEMS and rows[-1] < 3
    assert [row.tokens for row in found[0]] == [row.tokens for row in found[1]]


def test_limits_may_differ_within_a_batch(tiny_model):
    clips = two_clips(tiny_model)
    requests = [
        Request(row, PROMPTS[row], lambda clip=clip: clip, 3 + row)
        for row, clip in enumerate(clips)
    ]
    settings = Settings(exact=False, batch_size=4)
    found = {a.key: len(a.tokens) for a in Decoder(tiny_model, settings).answers(requests)}
    assert found == {0: 3, 1: 4}


@torch.no_grad()
@pytest.mark.parametrize("size", [0, 2])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 3}, {"exact": False, "batch_size": 4}])
@pytest.mark.parametrize("rows", [1, 3, 19])
def test_in_float32_it_is_the_plain_search(tiny_model, rows, settings, size):
    """Of rows that end at different steps and have caches of different lengths."""
    prompts = [PROMPTS[row % 3] for row in range(rows)]
    prompts[-1] = "Write it down. " * 12  # a longer cache
    frames = [3 + 5 * row for row in range(rows)]
    batch = make_batch(tiny_model, prompts, ["a"] * rows, [0] * rows, frames)
    names = [s.name for s in tiny_model.shapes]
    features = {name: batch[name] for name in names}
    lengths = {name: batch[f"{name}_lengths"] for name in names}
    plain = greedy(tiny_model, features, lengths, prompts, 40, None, None, 20.0, size)
    clips = clips_of(tiny_model, batch)
    found = answer(tiny_model, clips, prompts, 40, 20.0, no_repeat_ngram_size=size, **settings)
    pairs = [list(pairwise(row.tokens)) for row in found]
    assert (size == 2) == all(len(set(row)) == len(row) for row in pairs)
    assert [row.tokens for row in found] == plain.tokens
    assert [row.text for row in found] == plain.texts
    assert [row.expert for row in found] == plain.experts
    assert rows <= 3 or len({len(row.tokens) for row in found}) > 1
    torch.testing.assert_close(torch.stack([row.posterior for row in found]), plain.posteriors)
    torch.testing.assert_close([row.logprob for row in found], plain.logprobs, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_every_pass_has_a_shape_that_follows_from_the_row(tiny_model, monkeypatch):
    """Prompt and audio are read in rows of one length, with padding; so is every token."""
    together, alone = set(), set()
    shapes = together
    forward = LlamaModel.forward

    def seen(self, *args, attention_mask, past_key_values, inputs_embeds, **others):
        slots = attention_mask.shape[-1]
        shapes.add((*inputs_embeds.shape, slots))
        return forward(
            self,
            *args,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            **others,
        )

    frames = [3, 90, 5, 140, 8, 9, 10, 11, 12, 13, 200]
    prompts = [PROMPTS[row % 3] for row in range(len(frames))]
    batch = make_batch(tiny_model, prompts, ["a"] * len(frames), [0] * len(frames), frames)
    clips = list(clips_of(tiny_model, batch))
    decoder = Decoder(tiny_model, Settings())
    monkeypatch.setattr(LlamaModel, "forward", seen)
    requests = [Request(row, prompts[row], lambda r=row: clips[r], 9) for row in range(len(clips))]
    assert len(list(decoder.answers(requests))) == len(clips)
    shapes = alone
    for request in requests:
        decoder.memory.known.clear()
        assert len(list(decoder.answers([request]))) == 1
    assert together == alone
    assert {shape[0] for shape in alone if shape[1] == 1} == {ITEMS}
    assert {shape[0] for shape in alone if shape[1] > 1} == {READ_ROWS}
    assert all(shape[3] % SLOT_STEP == 0 for shape in alone if shape[1] == 1)


def test_there_is_always_padding():
    assert [power_above(n, 128) for n in (1, 127, 128, 255, 256)] == [128, 128, 256, 256, 512]
    assert [padded(n) for n in (1, 15, 16, 31, 32)] == [16, 16, 32, 32, 48]


@pytest.fixture(scope="module")
def six_layers(tmp_path_factory):
    """A folder with the first six layers of the real LLM: kernels depend on shapes alone."""
    source = resolve_model(load_yaml(ROOT / "conf/scale/mini.yaml")["llm_conf"]["path"])
    folder = tmp_path_factory.mktemp("six layers")
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    AutoModelForCausalLM.from_pretrained(source, num_hidden_layers=6).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def mini_model(request, six_layers):
    """These layers, under a mixture of random weights."""
    scale = load_yaml(ROOT / "conf/scale/mini.yaml")
    keys = ("encoders", "llm_conf", "fusion_conf", "router_conf", "model_conf")
    config = {key: scale[key] for key in keys}
    config["llm_conf"] = config["llm_conf"] | {"dtype": request.param, "path": six_layers}
    config["model_conf"] = config["model_conf"] | {"bf16": request.param == "bfloat16"}
    torch.manual_seed(0)
    tasks = ["asr_clean", "asr_noisy", "snv", "ac"]
    model = build_model(config | {"fusion": "pam", "tasks": tasks}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    return model


@pytest.mark.models
@pytest.mark.parametrize("mini_model", ["bfloat16", "float32"], indirect=True)
@torch.no_grad()
def test_a_batch_gives_what_single_rows_give_in_any_type(mini_model):
    """14 rows at once, 5, and alone, with and without drafts; posteriors too, bit for bit."""
    generator, draw = torch.Generator().manual_seed(1), random.Random(1)
    clips, prompts = [], []
    for row in range(14):
        frames = draw.randrange(3, 100)
        shapes = {s.name: (frames, s.num_states * s.dim) for s in mini_model.shapes}
        clips.append({n: torch.randn(shape, generator=generator) for n, shape in shapes.items()})
        prompts.append(f"{PROMPTS[row % 3]} {row % 7} " * draw.choice([1, 1, 1, 2, 8]))

    def found(rows, **settings):
        some = [clips[row] for row in rows], [prompts[row] for row in rows]
        answers = answer(mini_model, *some, limit=5, **settings)
        return [(a.tokens, a.posterior.tolist(), a.logprob) for a in answers]

    expected = found(range(14))
    assert len({tuple(tokens) for tokens, *_ in expected}) > 7
    assert found(range(5)) == expected[:5]
    assert found(range(2), batch_size=1) == expected[:2]
    assert [found([row])[0] for row in range(2, 5)] == expected[2:5]
    for drafter in DRAFTERS.names():
        assert found(range(3), drafter=drafter) == expected[:3]


@torch.no_grad()
def test_a_float32_llm_under_autocast(tiny_model):
    """As `dtype: float32` with `bf16: true` trains: passes, and every answer is that alone."""
    tiny_model.bf16 = True
    batch = make_batch(tiny_model, PROMPTS, ["a"] * 3, [0] * 3, [4, 9, 30])
    clips = list(clips_of(tiny_model, batch))
    for drafter in ("none", "exit_layer"):
        found = [a.tokens for a in answer(tiny_model, clips, PROMPTS, 9, drafter=drafter)]
        for row, (clip, prompt) in enumerate(zip(clips, PROMPTS, strict=True)):
            (alone,) = answer(tiny_model, [clip], [prompt], 9)
            assert alone.tokens == found[row]


def test_an_llm_without_engine_decodes_one_by_one(tiny_model, monkeypatch, caplog):
    batch = make_batch(tiny_model, PROMPTS, ["a"] * 3, [0] * 3, [4, 9, 30])
    clips = list(clips_of(tiny_model, batch))
    expected = [a.tokens for a in answer(tiny_model, clips, PROMPTS, 9)]
    with monkeypatch.context() as patch:
        patch.setattr("pam.decode.decoder.shortest_window", lambda lm: 20)
        assert [a.tokens for a in answer(tiny_model, clips, PROMPTS, 9)] == expected
    monkeypatch.setattr("pam.decode.decoder.engine_fault", lambda lm: "it is too odd")
    assert [a.tokens for a in answer(tiny_model, clips, PROMPTS, 9)] == expected
    assert "at a time and without drafts, since with this LLM it is too odd" in caplog.text
    assert [a.tokens for a in answer(tiny_model, clips, PROMPTS, 9, drafter="ctc")] == expected
    with pytest.raises(PamError, match="only greedy search can be used: it is too odd"):
        answer(tiny_model, clips, PROMPTS, 9, beam=2)
