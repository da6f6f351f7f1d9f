"""Every family that transformers offers gives what its own forward pass gives, or is refused."""

import pytest
import torch
from families import FAMILIES, tiny_of

from pam.encoders.padding import padding_mask
from pam.errors import PamError
from pam.llm import causal_lm
from pam.llm.causal_lm import CausalLM
from pam.llm.prompts import pad_left

STATE = "used: it keeps a recurrent state|used: its layer . keeps more than keys and values"
PARTS = "used: its logits in a batch and in parts differ|used: it cannot be read in parts"
WIDTHS = "used: its embeddings are 256 wide, its states 32"
TOKENS = "used: it uses more of a token than its embedding|used: it cannot be read in parts"
REASONS = {
    STATE: "axk2 bailing_hybrid bamba deepseek_v32 deepseek_v4 dots3_note dots3_note_text "
    "falcon_h1 falcon_mamba glm_moe_dsa granitemoehybrid hy_v4 inkling2_text inkling_text jamba "
    "kimi_linear lfm2 lfm2_moe lfm3 mamba mamba2 minimax nemotron_h olmo_hybrid qwen3_5 "
    "qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_next qwen4_exp qwen4_exp_text recurrent_gemma "
    "rwkv xlstm zamba zamba2 zaya",
    # They count positions by themselves, or keep no cache.
    PARTS: "bart bigbird_pegasus blenderbot blenderbot-small camembert cpmant ctrl data2vec-text "
    "marian mbart mvp openai-gpt pegasus plbart prophetnet roberta roberta-prelayernorm roformer "
    "trocr xlm xlm-roberta xlm-roberta-xl xlnet xmod",
    TOKENS: "gemma4 gemma4_text",
    WIDTHS: "rembert",
}
REFUSED = {family: why for why, families in REASONS.items() for family in families.split()}

PROMPTS = ("Is it so?", "a")  # longer and shorter than the windows of 6 tokens
FRAMES, WORDS = (5, 9), "or not"


def load(monkeypatch, tiny_llm, llm, **options):
    """`llm` with the byte tokenizer, as if it had been read from a folder."""
    monkeypatch.setattr(causal_lm, "load_frozen", lambda *_: llm.requires_grad_(False))
    return CausalLM(tiny_llm, **{"dtype": "float32", "lora_rank": 0, **options})


@torch.no_grad()
def rows_of(lm):
    """Embeddings of audio and words, each row's frames, and its logits in the family's own pass."""
    words = lm.embed(torch.tensor(lm.answer_ids(WORDS)))
    audio = torch.randn(2, max(FRAMES), lm.width, generator=torch.Generator().manual_seed(0))
    audio = audio / audio.norm(dim=-1, keepdim=True) * lm.embedding_norm()
    rows = [torch.cat([audio[row, :n], words]) for row, n in enumerate(FRAMES)]
    own = []
    for prompt, row in zip(PROMPTS, rows, strict=True):
        embeds = torch.cat([lm.embed(torch.tensor(lm.prompt_ids(prompt))), row])[None]
        own.append(lm.llm(inputs_embeds=embeds, use_cache=False).logits[0, -len(row) :].float())
    return rows, own


def begin(lm, rows):
    """Prompts read first, then rows padded on the right: logits, mask, positions, cache."""
    states = lm.read_prompts(*lm.prompt_batch(PROMPTS))
    embeds = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    real = padding_mask([len(row) for row in rows], embeds.shape[1])
    mask = torch.cat([states.mask, real], 1)
    positions = states.mask.sum(1, keepdim=True) + torch.arange(embeds.shape[1])
    cache = states.cache()
    return lm.logits(lm.read(embeds, mask, positions, cache)), mask, positions, cache


@torch.no_grad()
def assert_batches_give_what_rows_give(lm):
    rows, own = rows_of(lm)
    logits, *_ = begin(lm, rows)  # as training reads
    for row, expected in enumerate(own):
        # float32 through scaled weights; worst seen 1e-4 of the largest logit
        close = 1e-3 * float(expected.abs().max())
        torch.testing.assert_close(logits[row, : len(expected)], expected, rtol=0, atol=close)
    audio = [row[:n] for row, n in zip(rows, FRAMES, strict=True)]  # as decoding does, by token
    _, mask, _, cache = begin(lm, audio)
    mask = pad_left(cache, mask)
    words = rows[0][FRAMES[0] :]
    for step, word in enumerate(words):
        position = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, mask.new_ones(2, 1)], 1)
        logits = lm.logits(lm.read(word.expand(2, 1, -1), mask, position, cache))[:, 0]
        for row, expected in enumerate(own):
            close = 1e-3 * float(expected.abs().max())
            at = expected[FRAMES[row] + step]
            torch.testing.assert_close(logits[row], at, rtol=0, atol=close)


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_give_the_familys_own_logits_or_it_is_refused(monkeypatch, tiny_llm, family):
    llm = tiny_of(family)
    if family in REFUSED:
        with pytest.raises(PamError, match=f"family {llm.config.model_type} cannot") as error:
            load(monkeypatch, tiny_llm, llm)
        assert "\n" not in str(error.value)
        error.match(REFUSED[family])
    else:
        assert_batches_give_what_rows_give(load(monkeypatch, tiny_llm, llm))
        assert_lora_learns(load(monkeypatch, tiny_llm, llm, lora_rank=2, lora_targets="all-linear"))


def assert_lora_learns(lm):
    """Each matrix of LoRA gets a gradient: all layers that it adapts take part in the pass."""
    for name, parameter in lm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    rows, _ = rows_of(lm)
    begin(lm, rows)[0].logsumexp(-1).sum().backward()
    adapted = {name: p for name, p in lm.named_parameters() if p.requires_grad}
    assert adapted and all("lora_" in name for name in adapted)
    assert [name for name, p in adapted.items() if p.grad is None] == []


@pytest.mark.parametrize(
    "family, factor", [("llama", 1), ("gemma", 32**0.5), ("gemma3_text", 32**0.5)]
)
def test_the_norm_is_that_of_embeddings_as_the_llm_reads_them(
    monkeypatch, tiny_llm, family, factor
):
    lm = load(monkeypatch, tiny_llm, tiny_of(family))
    raw = lm.embeddings.norm(dim=-1).mean().item()
    assert lm.embedding_norm() == pytest.approx(factor * raw, rel=1e-5)
    monkeypatch.setattr(causal_lm, "NORM_ROWS", 7)
    assert lm.embedding_norm() == pytest.approx(factor * raw, rel=1e-5)
