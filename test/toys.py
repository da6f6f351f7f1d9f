"""Toy inputs that several rooms' tests make."""

import json
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence


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
