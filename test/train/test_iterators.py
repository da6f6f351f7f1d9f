"""Batches: equal probability per task, one task each, deterministic, nothing lost."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam.train.iterators import EveryUtteranceIterFactory, TaskBalancedIterFactory, bucket

UTTS = {f"a-{i}": "asr" for i in range(50)} | {f"s-{i}": "snv" for i in range(5)}
LENGTHS = {utt: 10 + 7 * i % 40 for i, utt in enumerate(UTTS)}


def make(steps=10, seed=0, **kwargs):
    return TaskBalancedIterFactory(
        None, UTTS, LENGTHS, steps, max_utts=4, max_frames=120, seed=seed, collate_fn=None, **kwargs
    )


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 6), st.integers(10, 120)
)
def test_buckets_keep_every_utterance_within_the_limits(sizes, max_utts, max_frames):
    lengths = {f"u{i}": size for i, size in enumerate(sizes)}
    batches = bucket(list(lengths), lengths, max_utts, max_frames)
    assert [utt for batch in batches for utt in batch] == list(lengths)
    for batch in batches:
        padded = max(lengths[utt] for utt in batch) * len(batch)
        assert len(batch) <= max_utts and (padded <= max_frames or len(batch) == 1)


def test_tasks_come_equally_often_in_single_task_batches():
    batches = make(steps=20).batches(1)
    tasks = [{UTTS[utt] for utt in batch} for batch in batches]
    assert all(len(t) == 1 for t in tasks)
    assert Counter(t.pop() for t in tasks) == {"asr": 10, "snv": 10}


@pytest.mark.parametrize("steps", [3, 7, 10])
def test_epochs_continue_where_the_last_one_ended(steps):
    """Ten epochs of n steps are the same batches as one of 10 n: no batch is repeated or lost."""
    short, long = make(steps), make(10 * steps)
    assert [b for epoch in range(1, 11) for b in short.batches(epoch)] == long.batches(1)


def test_a_pass_has_every_utterance_once_and_passes_differ():
    asr = make().tasks[0]
    first, second = asr.one_pass(0), asr.one_pass(1)
    assert sorted(u for b in first for u in b) == sorted(u for u in UTTS if UTTS[u] == "asr")
    assert sorted(map(sorted, first)) != sorted(map(sorted, second))
    assert asr.slice(2, len(first)) == first[2:] + second[:2]


def test_batches_depend_on_seed_and_epoch_only():
    assert make().batches(3) == make().batches(3)
    assert make().batches(3) != make(seed=1).batches(3)
    assert make().batches(3) != make().batches(4)


def test_ranks_share_every_batch():
    whole = make(steps=6)
    parts = [make(steps=6, rank=rank, world=2) for rank in range(2)]
    loaders = [list(part.build_iter(1).batch_sampler) for part in parts]
    for batch, first, second in zip(whole.batches(1), *loaders, strict=True):
        assert sorted(first + second) == sorted(batch)


def test_no_rank_is_left_without_an_utterance():
    """Batches smaller than the world: every rank has one step for each of them, in both modes."""
    parts = [make(steps=6, rank=rank, world=8) for rank in range(8)]
    whole = make(steps=6).batches(1)
    shares = list(zip(*[list(p.build_iter(1).batch_sampler) for p in parts], strict=True))
    for batch, ranks in zip(whole, shares, strict=True):
        assert all(ranks) and {utt for mine in ranks for utt in mine} == set(batch)
    assert any(len(batch) < 8 for batch in whole)
    seen = [
        EveryUtteranceIterFactory(None, UTTS, LENGTHS, 4, 120, None, rank, world=8).mine
        for rank in range(8)
    ]
    assert {len(batches) for batches in seen} == {len(seen[0])}
    assert {utt for batches in seen for batch in batches for utt in batch} == set(UTTS)


def test_validation_has_every_utterance_once_in_single_task_batches():
    factory = EveryUtteranceIterFactory(None, UTTS, LENGTHS, 4, 120, collate_fn=None)
    batches = factory.mine
    assert sorted(utt for batch in batches for utt in batch) == sorted(UTTS)
    assert all(len({UTTS[utt] for utt in batch}) == 1 for batch in batches)
