"""Exact decoding: a batch of any size gives what single utterances give."""

import random
from pathlib import Path

import pytest
import torch
from toys import make_batch

from pam.config import load_yaml
from pam.decode import exact
from pam.decode.exact import READ_ROWS, ROWS, greedy_exact, padded, power_above
from pam.decode.greedy import greedy
from pam.model.build import build_model

ROOT = Path(__file__).resolve().parents[2]
PROMPTS = ["Write it down, please.", "How many?", "What can be heard in this clip? Say it briefly."]


def clips_of(model, batch):
    """Single rows without padding."""
    for row in range(len(batch["task"])):
        lengths = {s.name: batch[f"{s.name}_lengths"][row : row + 1] for s in model.shapes}
        yield {name: batch[name][row : row + 1, : int(n)] for name, n in lengths.items()}, lengths


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 3, ROWS, 2 * ROWS + 3])
def test_in_float32_it_is_the_plain_search(tiny_model, rows):
    """Of rows that end at different steps and have caches of different lengths."""
    prompts = [PROMPTS[row % 3] for row in range(rows)]
    prompts[-1] = "Write it down. " * 12  # a longer cache
    frames = [3 + 5 * row for row in range(rows)]
    batch = make_batch(tiny_model, prompts, ["a"] * rows, [0] * rows, frames)
    names = [s.name for s in tiny_model.shapes]
    features = {name: batch[name] for name in names}
    lengths = {name: batch[f"{name}_lengths"] for name in names}
    options = {"max_new_tokens": 40, "max_tokens_per_second": 20.0}
    plain = greedy(tiny_model, features, lengths, prompts, **options)
    found = greedy_exact(tiny_model, clips_of(tiny_model, batch), prompts, **options)
    assert found.tokens == plain.tokens and found.experts == plain.experts
    assert rows <= 3 or len({len(row) for row in found.tokens}) > 1
    torch.testing.assert_close(found.posteriors, plain.posteriors)


@torch.no_grad()
def test_every_pass_has_a_shape_that_follows_from_the_row(tiny_model, monkeypatch):
    """Rows of a group are of one length, with padding, and so are their caches."""
    shapes = {}
    read = type(tiny_model.llm).read

    def seen(self, embeds, mask, positions, cache):
        shapes.setdefault(self.group, set()).add((*embeds.shape, mask.shape[1]))
        return read(self, embeds, mask, positions, cache)

    monkeypatch.setattr(type(tiny_model.llm), "read", seen)
    frames = [3, 90, 5, 140, 8, 9, 10, 11, 12, 13, 200]
    prompts = [PROMPTS[row % 3] for row in range(len(frames))]
    batch = make_batch(tiny_model, prompts, ["a"] * len(frames), [0] * len(frames), frames)
    clips = list(clips_of(tiny_model, batch))
    tiny_model.llm.group = "together"
    greedy_exact(tiny_model, clips, prompts, 9)
    for row, (clip, prompt) in enumerate(zip(clips, prompts, strict=True)):
        tiny_model.llm.group = row
        greedy_exact(tiny_model, [clip], [prompt], 9)
    alone = set().union(*(shapes[row] for row in range(len(frames))))
    assert shapes["together"] == alone
    assert {shape[0] for shape in alone if shape[1] == 1} == {ROWS}
    assert {shape[0] for shape in alone if shape[1] > 1} == {READ_ROWS}


def test_there_is_always_padding():
    assert [power_above(n, 128) for n in (1, 127, 128, 255, 256)] == [128, 128, 256, 256, 512]
    assert [padded(n) for n in (1, 15, 16, 31, 32)] == [16, 16, 32, 32, 48]


@torch.no_grad()
def test_rows_that_end_make_the_groups_fewer(tiny_model, monkeypatch):
    """Steps of a group are counted: 20 rows of which one goes on cost one group, not three."""
    steps = []
    read = exact.Group.read
    monkeypatch.setattr(exact.Group, "read", lambda self: steps.append(1) or read(self))
    monkeypatch.setattr(exact, "token_limits", lambda *_: torch.tensor([next(limits)]))
    monkeypatch.setattr(type(tiny_model.llm), "eos", property(lambda self: -1))
    limits = iter([2] * 19 + [10])
    batch = make_batch(tiny_model, ["x"] * 20, ["a"] * 20, [0] * 20, [4] * 20)
    found = greedy_exact(tiny_model, clips_of(tiny_model, batch), ["x"] * 20)
    assert [len(row) for row in found.tokens] == [2] * 19 + [10]
    assert len(steps) == 3 + 8


@pytest.fixture(scope="module")
def mini_model():
    """The real LLM in its own type, under a mixture of random weights."""
    scale = load_yaml(ROOT / "conf/scale/mini.yaml")
    keys = ("encoders", "llm_conf", "fusion_conf", "router_conf", "model_conf")
    config = {key: scale[key] for key in keys}
    torch.manual_seed(0)
    tasks = ["asr_clean", "asr_noisy", "snv", "ac"]
    model = build_model(config | {"fusion": "pam", "tasks": tasks}).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.02)
    return model


@pytest.mark.models
@torch.no_grad()
def test_a_batch_gives_what_single_rows_give_in_bfloat16(mini_model):
    """24 rows in batches of 1, 2, 8 and 24; the tokens, and the posteriors to the last bit."""
    assert mini_model.llm.embeddings.dtype == torch.bfloat16 and mini_model.bf16
    generator, draw = torch.Generator().manual_seed(1), random.Random(1)
    clips, prompts = [], []
    for row in range(24):
        frames = draw.randrange(3, 100)
        shapes = {s.name: (1, frames, s.num_states * s.dim) for s in mini_model.shapes}
        states = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        clips.append((states, dict.fromkeys(states, torch.tensor([frames]))))
        prompts.append(f"{PROMPTS[row % 3]} {row % 7} " * draw.choice([1, 1, 1, 2, 8]))
    found = {}
    for size in (1, 2, 8, 24):
        # Alone a row's steps cost as much as eight rows': a few of them.
        some = range(0, 24, {1: 8, 2: 4}.get(size, 1))
        for start in range(0, len(some), size):
            rows = list(some)[start : start + size]
            chosen = [clips[row] for row in rows], [prompts[row] for row in rows]
            out = greedy_exact(mini_model, *chosen, max_new_tokens=4)
            for place, row in enumerate(rows):
                answer = out.tokens[place], out.posteriors[place].tolist()
                assert found.setdefault(row, answer) == answer
    assert len({tuple(tokens) for tokens, _ in found.values()}) > 10
