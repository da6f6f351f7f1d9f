"""Parts of a batch, over processes and accumulated batches, add up to the joint batch."""

import pytest
import torch
from toys import make_batch

from pam.model.ctc import TokenEmbeddingCTC
from pam.model.joint import own_counts, shares
from pam.model.statistics import task_statistics
from pam.model.warmup import CTCWarmupModel

PROMPTS = ["Write it down.", "How many speakers?", "Write what you can hear.", "Say how many."]
TEXTS = ["hello there, all of you", "two", "a", "three"]
TASKS = [0, 2, 0, 2]
# Two batches of one task each, in two processes: the rows of each, (0, 2) in one of them.
# The second process has no row of the second batch and computes one that counts nothing.
PARTS = [[([0], True), ([2], True)], [([1, 3], True), ([1], False)]]


def part_of(batch, rows):
    """Rows of a batch, padded no more than they need, as `Collate` gives them."""
    part = {}
    for name, value in batch.items():
        if name in ("prompt", "prompt_lengths"):
            part[name] = value
        elif f"{name}_lengths" in batch:
            part[name] = value[rows][:, : batch[f"{name}_lengths"][rows].max()]
        else:
            part[name] = value[rows]
    return part


def counts_of(batch, rows):
    return torch.tensor([batch["text_lengths"][rows].sum(), len(rows)], dtype=torch.float32)


def parts_of(batch):
    """Every process' part of every batch, with its counts."""
    everything = counts_of(batch, [0, 1, 2, 3]) / (2 * 2)
    for processes in PARTS:
        rows = [row for own, counted in processes if counted for row in own]
        whole = counts_of(batch, rows) / 2
        for own, counted in processes:
            mine = counts_of(batch, own) * counted
            yield part_of(batch, own) | {"counts": torch.stack([mine, whole, everything])}


@pytest.fixture(params=["llm", "ctc"])
def model(request, tiny_model):
    if request.param == "llm":
        return tiny_model
    tokens = {token for text in TEXTS for token in tiny_model.llm.answer_ids(text)}
    return CTCWarmupModel(tiny_model, TokenEmbeddingCTC(tiny_model.llm.embeddings, tokens, 1))


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_gradients_add_up_to_those_of_the_joint_batch(model, tiny_model):
    """As ESPnet adds them: the mean over processes and batches."""
    batch = make_batch(tiny_model, PROMPTS, TEXTS, TASKS, [30, 27, 28, 29])
    joint, losses = gradients(model, model(**batch)[0]), []
    total = {name: torch.zeros_like(gradient) for name, gradient in joint.items()}
    for part in parts_of(batch):
        loss = model(**part)[0] / 4
        losses.append(loss.item())
        for name, gradient in gradients(model, loss).items():
            total[name] += gradient
    assert sum(losses) == pytest.approx(model(**batch)[0].item(), abs=1e-5)
    assert losses[3] == 0 and len({round(loss, 3) for loss in losses}) == 4
    for name, gradient in joint.items():
        torch.testing.assert_close(total[name], gradient, rtol=1e-5, atol=1e-6, msg=name)


def test_statistics_add_up_to_those_of_the_batch(model, tiny_model):
    """Of every batch: the mean over processes, their weights being equal."""
    batch = make_batch(tiny_model, PROMPTS, TEXTS, TASKS, [30, 27, 28, 29])
    results = [model(**part)[1:] for part in parts_of(batch)]
    for rows, processes in (([0, 2], results[:2]), ([1, 3], results[2:])):
        _, expected, weight = model(**part_of(batch, rows))
        weights = [w for _, w in processes]
        assert weights[0] == weights[1] and sum(weights) == weight
        for name, value in expected.items():
            mean = sum(stats[name] for stats, _ in processes) / 2
            torch.testing.assert_close(mean, value, rtol=1e-5, atol=1e-5, equal_nan=True, msg=name)


def test_a_whole_batch_has_all_of_itself():
    for pair in shares(own_counts(7, 3, torch.device("cpu"))):
        assert pair.tokens == pair.utts == 1


def test_a_share_scales_statistics():
    index, values = torch.tensor([1, 1]), torch.tensor([2.0, 4.0])
    stats = task_statistics(["a", "b"], index, torch.tensor(0.5), loss=values)
    assert stats["loss_b"] == 1.5 and stats["loss_a"].isnan()
