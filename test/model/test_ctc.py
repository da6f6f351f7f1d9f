"""CTC against token embeddings: the formula, by brute force."""

import itertools
import math

import torch
import torch.nn.functional as F

from pam.model.ctc import SCALE, TokenEmbeddingCTC
from pam.model.warmup import CTCWarmupModel, load_warm_fusion


def make(width=5, vocabulary=7, tokens=(2, 4, 5)):
    torch.manual_seed(0)
    return TokenEmbeddingCTC(torch.randn(vocabulary, width), tokens, blank=1)


def collapse(path):
    return tuple(k for k, _ in itertools.groupby(path) if k != 0)


def test_loss_equals_the_sum_over_all_paths():
    ctc = make()
    features = torch.randn(1, 4, 5)
    target = [4, 2]
    logits = torch.stack(
        [F.cosine_similarity(features[0], ctc.blank[None], dim=-1) * SCALE + 2]
        + [F.cosine_similarity(features[0], row[None], dim=-1) * SCALE for row in ctc.known],
        dim=-1,
    )
    probability = logits.softmax(-1).detach()
    want = tuple({2: 1, 4: 2, 5: 3}[t] for t in target)
    total = sum(
        math.prod(float(probability[t, k]) for t, k in enumerate(path))
        for path in itertools.product(range(4), repeat=4)
        if collapse(path) == want
    )
    loss = ctc(features, torch.tensor([4]), torch.tensor([target]), torch.tensor([2]))
    torch.testing.assert_close(loss, torch.tensor([-math.log(total) / 2]), rtol=1e-4, atol=1e-4)


def test_padding_and_unknown_tokens_are_left_out():
    ctc = make()
    features = torch.randn(2, 6, 5)
    text = torch.tensor([[4, 2, 0, 0], [5, 1, 5, 2]])  # token 1 is not in the training text
    frames, lengths = torch.tensor([4, 6]), torch.tensor([2, 4])
    batch = ctc(features, frames, text, lengths)
    alone = ctc(features[:1, :4], frames[:1], torch.tensor([[4, 2]]), lengths[:1])
    known = ctc(features[1:], frames[1:], torch.tensor([[5, 5, 2]]), torch.tensor([3]))
    torch.testing.assert_close(batch, torch.cat([alone, known]))


def test_a_target_too_long_for_its_frames_counts_nothing():
    ctc = make()
    loss = ctc(torch.randn(1, 1, 5), torch.tensor([1]), torch.tensor([[4, 2]]), torch.tensor([2]))
    assert loss.tolist() == [0.0]


def test_warm_up_trains_the_fusion_only_and_hands_it_over(tiny_model, batch, tmp_path):
    tokens = {t for text in ("hello there", "two", "a") for t in tiny_model.llm.answer_ids(text)}
    warm = CTCWarmupModel(
        tiny_model, TokenEmbeddingCTC(tiny_model.llm.embeddings, tokens, tiny_model.llm.space)
    )
    optimizer = torch.optim.AdamW([p for p in warm.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss, stats, weight = warm(**batch)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < losses[0] and weight == 3
    assert set(stats) == {"loss"} | {f"ctc_{task}" for task in tiny_model.tasks}
    names = set(warm.state_dict())
    assert all(name.startswith(("model.fusion.", "ctc.")) for name in names)
    torch.save(warm.state_dict(), tmp_path / "last.pth")
    trained = {k: v.clone() for k, v in tiny_model.fusion.state_dict().items()}
    for parameter in tiny_model.fusion.parameters():
        parameter.data.zero_()
    load_warm_fusion(tiny_model, tmp_path / "last.pth")
    assert all(torch.equal(v, trained[k]) for k, v in tiny_model.fusion.state_dict().items())
