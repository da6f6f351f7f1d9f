"""Toy inputs that several rooms' tests make."""

import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

FRAME = 640  # samples of a frame at 25 Hz
MILLISECONDS = 300_000  # at most, for one answer: a busy machine takes minutes to start a browser


class ToyEncoder(nn.Module):
    """States that depend on the samples: [B, S, T, D_e] and a mask, as the contract says."""

    def __init__(self, num_states, dim):
        super().__init__()
        self.num_states, self.dim = num_states, dim

    def forward(self, audio, lengths):
        from pam.errors import PamError

        if int(lengths.min()) < FRAME:
            raise PamError(f"a clip of {int(lengths.min())} samples is too short for ToyEncoder")
        frames = lengths // FRAME
        longest = int(frames.max())
        blocks_BT = audio[:, : longest * FRAME].unflatten(1, (longest, FRAME)).abs().mean(2)
        weights = torch.arange(1.0, 1 + self.num_states * self.dim, device=audio.device)
        scale_SD = weights.view(self.num_states, 1, -1)
        states = blocks_BT[:, None, :, None] * scale_SD
        return states, torch.arange(longest, device=audio.device) < frames[:, None]


def small_config(llm: str) -> dict:
    """A configuration of a small PaM system in float32 over two encoders that are not loaded."""
    return {
        "encoders": {
            "first": {"family": "whisper", "path": "nowhere", "dim": 6, "num_states": 3},
            "second": {"family": "wavlm", "path": "nowhere", "dim": 4, "num_states": 2},
        },
        "llm_conf": {"path": llm, "dtype": "float32", "lora_rank": 2, "lora_alpha": 4},
        "fusion": "pam",
        "fusion_conf": {"num_fused": 2},
        "router_conf": {},
        "tasks": ["asr_clean", "asr_noisy", "snv", "ac"],
        "model_conf": {"bf16": False},
        "feats": "dumped",
    }


def tone(rate):
    """A second of 440 Hz."""
    return np.sin(2 * np.pi * 440 * np.arange(rate) / rate).astype(np.float32) * 0.5


def build_with_lora(config):
    """The model of a configuration; LoRA, which starts as zero, matters in it."""
    from pam.model.build import build_model

    torch.manual_seed(1)
    model = build_model(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    return model


def warmup_of(model):
    """The model of the CTC warm-up, with two tokens."""
    from pam.model.ctc import TokenEmbeddingCTC
    from pam.model.warmup import CTCWarmupModel

    return CTCWarmupModel(model, TokenEmbeddingCTC(model.llm.embeddings, [1, 2], model.llm.space))


def make_batch(model, prompts, texts, tasks, frames, seed=0) -> dict:
    """A batch of random encoder states, as the collate function makes it."""
    generator = torch.Generator().manual_seed(seed)
    distinct = sorted(set(prompts))
    ids = [torch.tensor(model.llm.prompt_ids(p)) for p in distinct]
    answers = [torch.tensor([*model.llm.answer_ids(t), model.llm.eos]) for t in texts]
    batch = {
        "prompt": pad_sequence(ids, batch_first=True),
        "prompt_lengths": torch.tensor([len(x) for x in ids]),
        "prompt_index": torch.tensor([[distinct.index(p)] for p in prompts]),
        "text": pad_sequence(answers, batch_first=True),
        "text_lengths": torch.tensor([len(x) for x in answers]),
        "task": torch.tensor(tasks),
    }
    for shape in model.shapes:
        size = (len(texts), max(frames), shape.num_states * shape.dim)
        batch[shape.name] = torch.randn(size, generator=generator)
        batch[f"{shape.name}_lengths"] = torch.tensor(frames)
    return batch


def plain_row(model, batch, row, read=None):
    """One utterance without cache, padding or batching: prompt, audio, answer in one pass.

    `read` are the answers' tokens as the LLM reads them, where these are not those it predicts.

    Returns logits of the answer's tokens, the tokens, and the router's logits.
    """
    index = batch["prompt_index"][row, 0]
    prompt = batch["prompt"][index, : batch["prompt_lengths"][index]]
    text = batch["text"][row, : batch["text_lengths"][row]]
    words = text[:-1] if read is None else read[row, : len(text) - 1]
    frames = batch[f"{model.shapes[0].name}_lengths"][row]
    states = [
        batch[s.name][row : row + 1, :frames].unflatten(-1, (s.num_states, s.dim)).transpose(1, 2)
        for s in model.shapes
    ]
    llm = model.llm
    prompt_states = llm.backbone(inputs_embeds=llm.embed(prompt)[None]).last_hidden_state
    router_logits = model.router(prompt_states[:, -1])
    gate = F.one_hot(batch["task"][row : row + 1], len(model.tasks)).float()
    audio = model.fuse(states, frames[None], gate)[0][0]
    whole = torch.cat([llm.embed(prompt), audio, llm.embed(words)])
    hidden = llm.backbone(inputs_embeds=whole[None]).last_hidden_state[0]
    return llm.logits(hidden[len(prompt) + len(audio) - 1 :]), text, router_logits


def write_architectures(folder: Path, llm: str) -> None:
    """Describe the LLM in the folder `llm`, and the encoder `nowhere`, by their sizes only."""
    config = json.loads((Path(llm) / "config.json").read_text())
    keys = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers")
    keys += ("num_attention_heads", "num_key_value_heads", "tie_word_embeddings")
    known = {"class": "transformers:LlamaForCausalLM", "config": {k: config[k] for k in keys}}
    (folder / f"{Path(llm).name}.json").write_text(json.dumps(known))
    whisper = "transformers.models.whisper.modeling_whisper:WhisperEncoder"
    shape = {"d_model": 8, "encoder_layers": 1, "encoder_attention_heads": 2}
    known = {"class": whisper, "config": shape}
    known |= {"inputs": {"input_features": [1, 80, 3000]}, "seconds": 30}
    (folder / "nowhere.json").write_text(json.dumps(known))
