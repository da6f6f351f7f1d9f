"""Pooling against a loop over samples."""

import pytest
import torch

from pam.encoders.pooling import clip_length, overlaps, pool_frames, pooled_length


def by_samples(states, length, hop):
    """Spread every native frame over its samples, then average the samples of each output frame."""
    samples = states[:, :length].repeat_interleave(hop, dim=1)
    return torch.stack([part.mean(dim=1) for part in samples.split(640, dim=1)], dim=1)


@pytest.mark.parametrize("hop", [320, 384, 640, 160, 8000, 1000])
def test_equals_the_mean_over_samples(hop):
    lengths = [7, 1, 4, 6]
    states = torch.randn(4, 2, 7, 3, dtype=torch.float64)
    for row, length in zip(states, lengths, strict=True):
        row[:, length:] = float("nan")
    pooled, mask = pool_frames(states, torch.tensor(lengths), hop)
    assert pooled.shape == (4, 2, pooled_length(7, hop), 3)
    for i, length in enumerate(lengths):
        frames = pooled_length(length, hop)
        assert mask[i].sum() == frames and mask[i, :frames].all()
        expected = by_samples(states[i], length, hop)
        torch.testing.assert_close(pooled[i, :, :frames], expected, rtol=1e-5, atol=1e-5)
        assert pooled[i, :, frames:].eq(0).all()


def test_fifty_a_second_is_the_mean_of_two():
    states = torch.randn(1, 1, 5, 2)
    pooled, _ = pool_frames(states, torch.tensor([5]), 320)
    expected = torch.stack([states[0, 0, 0:2].mean(0), states[0, 0, 2:4].mean(0), states[0, 0, 4]])
    torch.testing.assert_close(pooled[0, 0], expected)


def test_slow_frames_repeat():
    pooled, mask = pool_frames(torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([2]), 8000)
    assert pooled.flatten().tolist() == [1.0] * 12 + [1.5] + [2.0] * 12
    assert mask.all()


def test_frames_end_with_the_clip():
    """Three native frames of 160 ms, of which the clip fills two and one sample."""
    states = torch.arange(1.0, 4.0).reshape(1, 1, 3, 1).repeat(2, 1, 1, 1)
    samples = torch.tensor([5121, 2000])
    pooled, mask = pool_frames(states, torch.tensor([3, 1]), 2560, samples)
    assert pooled[0].flatten().tolist() == [1.0] * 4 + [2.0] * 4 + [3.0]
    assert pooled[1].flatten().tolist() == [1.0] * 4 + [0.0] * 5
    assert mask.sum(dim=1).tolist() == [9, 4] == [clip_length(3, 2560, 5121), 4]


def test_constant_frames_stay_constant():
    for hop in (320, 384, 417):
        pooled, mask = pool_frames(torch.full((1, 1, 50, 1), 3.0), torch.tensor([41]), hop)
        torch.testing.assert_close(pooled[0, 0, mask[0]], torch.full((int(mask.sum()), 1), 3.0))


@pytest.mark.parametrize("hop", [320, 384, 160, 2560])
def test_shares_are_those_of_the_dense_matrix(hop):
    """Of clips that end before their native frames do."""
    lengths, frames = torch.tensor([60, 31, 2]), torch.tensor([11, 5, 1])
    x = torch.randn(3, 2, 60, 4)
    dense = torch.zeros(3, 11, 60)
    for row, (native, count) in enumerate(zip(lengths.tolist(), frames.tolist(), strict=True)):
        for t in range(count):
            for sample in range(t * 640, (t + 1) * 640):
                if sample // hop < native:
                    dense[row, t, sample // hop] += 1
    dense /= dense.sum(2, keepdim=True).clamp(min=1)
    pooled, mask = pool_frames(x, lengths, hop, samples=frames * 640)
    assert torch.equal(mask.sum(1), frames)
    torch.testing.assert_close(pooled, torch.einsum("btj,bsjd->bstd", dense, x))
    overlapped, shares = overlaps(lengths, hop, frames)
    total = shares.sum(0)
    torch.testing.assert_close(total, (torch.arange(11) < frames[:, None]).float())
    assert len(overlapped) == {320: 2, 384: 3, 160: 4, 2560: 1}[hop]  # no more than needed


def test_bfloat16_is_summed_in_float32():
    x = (1 + torch.rand(1, 1, 25, 4)).bfloat16()
    pooled, exact = (pool_frames(y, torch.tensor([25]), 384)[0] for y in (x, x.float()))
    assert pooled.dtype == torch.bfloat16
    torch.testing.assert_close(pooled, exact.bfloat16(), rtol=0, atol=0)
