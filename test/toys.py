"""Toy inputs that several rooms' tests make."""

import torch
from torch.nn.utils.rnn import pad_sequence


def make_batch(model, prompts, texts, tasks, frames, seed=0) -> dict:
    """A batch of random encoder states, as the collate function makes it."""
    generator = torch.Generator().manual_seed(seed)
    distinct = sorted(set(prompts))
    ids = [torch.tensor(model.llm.prompt_ids(p)) for p in distinct]
    answers = [torch.tensor([*model.llm.answer_ids(t), model.llm.eos]) for t in texts]
    batch = {
        "prompt": pad_sequence(ids, batch_first=True),
        "prompt_lengths": torch.tensor([len(x) for x in ids]),
        "prompt_index": torch.tensor([distinct.index(p) for p in prompts]),
        "text": pad_sequence(answers, batch_first=True),
        "text_lengths": torch.tensor([len(x) for x in answers]),
        "task": torch.tensor(tasks),
    }
    for shape in model.shapes:
        size = (len(texts), max(frames), shape.num_states * shape.dim)
        batch[shape.name] = torch.randn(size, generator=generator)
        batch[f"{shape.name}_lengths"] = torch.tensor(frames)
    return batch
