"""Batches: equal probability per task, one task each, deterministic, nothing lost."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pam.train.iterators import (
    EveryUtteranceIterFactory,
    TaskBalancedIterFactory,
    TaskBatches,
    batches_by_task,
    bucket,
    limits,
    steps_of_passes,
)

UTTS = {f"a-{i}": "asr" for i in range(50)} | {f"s-{i}": "snv" for i in range(5)}
LENGTHS = {utt: 10 + 7 * i % 40 for i, utt in enumerate(UTTS)}


def make(steps=10, seed=0, **kwargs):
    return TaskBalancedIterFactory(
        None, UTTS, LENGTHS, steps, max_utts=4, max_frames=120, seed=seed, collate_fn=None, **kwargs
    )


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
    st.integers(1, 6),
    st.integers(10, 120),
    st.integers(1, 3),
)
def test_buckets_keep_every_utterance_within_the_limits(sizes, max_utts, max_frames, shares):
    """Whoever of the processes that split a batch: none has more than the limits."""
    lengths = {f"u{i}": size for i, size in enumerate(sizes)}
    batches = bucket(list(lengths), lengths, max_utts, max_frames, shares)
    assert [utt for batch in batches for utt in batch] == list(lengths)
    for batch in batches:
        for own in filter(None, (batch[rank::shares] for rank in range(shares))):
            padded = max(lengths[utt] for utt in own) * len(own)
            assert len(own) <= max_utts and (padded <= max_frames or len(own) == 1)


def test_limits_of_a_job_and_of_each_gpu():
    batch = {"max_utts": 2, "max_frames": 100}
    assert limits({"batch": batch}, 3) == {**batch, "shares": 1}
    assert limits({"batch": {**batch, "per": "job"}}, 3) == {**batch, "shares": 1}
    assert limits({"batch": {**batch, "per": "gpu"}}, 3) == {**batch, "shares": 3}
    same = dict.fromkeys(UTTS, 40)
    whole = bucket(list(same), same, **limits({"batch": {**batch, "per": "gpu"}}, 3))
    assert [len(utts) for utts in whole] == [6] * 9 + [1]


def test_tasks_come_equally_often_in_single_task_batches():
    batches = make(steps=20).batches(1)
    tasks = [{UTTS[utt] for utt in batch.utts} for batch in batches]
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
    assert sorted(u for b in first for u in b.utts) == sorted(u for u in UTTS if UTTS[u] == "asr")
    assert sorted(sorted(b.utts) for b in first) != sorted(sorted(b.utts) for b in second)
    assert {b.number for b in first} == {0} and {b.number for b in second} == {1}
    assert asr.slice(2, len(first)) == first[2:] + second[:2]


def test_batches_depend_on_seed_and_epoch_only():
    assert make().batches(3) == make().batches(3)
    assert make().batches(3) != make(seed=1).batches(3)
    assert make().batches(3) != make().batches(4)


def test_less_jitter_has_less_padding_and_still_depends_on_seed_and_epoch_only():
    lengths = {utt: 100 + 13 * i % 101 for i, utt in enumerate(UTTS)}

    def batches(jitter, number=0):
        limits = {"max_utts": 4, "max_frames": 10_000, "seed": 0, "jitter": jitter}
        asr, _ = batches_by_task(UTTS, lengths, **limits)
        return [batch.utts for batch in asr.one_pass(number)]

    def padded(batches):
        return sum(max(lengths[utt] for utt in batch) * len(batch) for batch in batches)

    assert padded(batches(0.0)) < padded(batches(0.02)) < padded(batches(0.1))
    assert batches(0.02) == batches(0.02) != batches(0.02, 1)
    [first, second] = [{frozenset(batch) for batch in batches(0.0, n)} for n in (0, 1)]
    assert first == second  # without jitter only the order changes
    default = batches_by_task(UTTS, lengths, max_utts=4, max_frames=10_000, seed=0)[0]
    assert [batch.utts for batch in default.one_pass(0)] == batches(0.1)


def everywhere(world, **kwargs):
    """The steps of all processes, together step by step."""
    parts = [make(steps=6, rank=rank, world=world, **kwargs) for rank in range(world)]
    return list(zip(*[list(part.build_iter(1).sampler) for part in parts], strict=True))


def own(step):
    return [step.batch.utts[row] for row in step.own]


def test_ranks_share_every_batch():
    for batch, ranks in zip(make(steps=6).batches(1), everywhere(world=2), strict=True):
        assert sorted(own(ranks[0]) + own(ranks[1])) == sorted(batch.utts)


def test_no_rank_is_left_without_an_utterance_and_none_counts_twice():
    """Batches smaller than the world: every rank computes one in each step, in both modes."""
    factories = [
        EveryUtteranceIterFactory(None, UTTS, LENGTHS, 4, 120, None, rank=rank, world=8)
        for rank in range(8)
    ]
    validation = zip(*[factory.build_iter(1).sampler for factory in factories], strict=True)
    steps = [*everywhere(world=8), *validation]
    for ranks in steps:
        assert all(step.rows for step in ranks)
        assert sorted(utt for step in ranks for utt in own(step)) == sorted(ranks[0].batch.utts)
    assert any(len(ranks[0].batch.utts) < 8 for ranks in steps)


def test_an_update_joins_batches_and_no_batch_is_left():
    loader = make(steps=6, accum_grad=3).build_iter(1)
    steps = list(loader.sampler)
    assert [step.batch for step in steps] == make(steps=6).batches(1)
    for three in (steps[:3], steps[3:]):
        joint = [utt for step in three for utt in step.batch.utts]
        assert all(step.update == joint and step.batches == 3 for step in three)


def test_the_last_epoch_ends_with_the_training():
    factory = make(steps=10, total=24)
    assert [len(factory.batches(epoch)) for epoch in (1, 2, 3)] == [10, 10, 4]
    assert factory.batches(3) == make(steps=10).batches(3)[:4]


def test_an_epoch_computes_no_pass_of_earlier_epochs_again(monkeypatch):
    """Its time does not grow with the number of epochs; its batches are those of a new process."""
    factory, computed, one_pass = make(steps=12), [], TaskBatches.one_pass

    def watched(own, number):
        computed.append(number)
        return one_pass(own, number)

    monkeypatch.setattr(TaskBatches, "one_pass", watched)
    for epoch in [*range(1, 30), 7]:
        computed.clear()
        batches = factory.batches(epoch)
        assert len(computed) <= 6  # six batches of the large task, and six of three or four passes
        assert batches == make(steps=12).batches(epoch)


@pytest.mark.parametrize("passes", [1, 5])
def test_passes_over_one_task_are_exact(passes):
    """Also where `max_frames`, not `max_utts`, ends a batch."""
    asr = {utt: task for utt, task in UTTS.items() if task == "asr"}
    limits = {"max_utts": 8, "max_frames": 120, "seed": 0}
    steps = steps_of_passes(batches_by_task(asr, LENGTHS, **limits), passes)
    assert steps > passes * math.ceil(len(asr) / 8)
    factory = TaskBalancedIterFactory(None, asr, LENGTHS, steps, collate_fn=None, **limits)
    seen = Counter(utt for batch in factory.batches(1) for utt in batch.utts)
    assert seen == dict.fromkeys(asr, passes)


def test_passes_over_several_tasks_are_as_many_steps_as_all_have_batches():
    limits = {"max_utts": 4, "max_frames": 1000, "seed": 0}
    tasks = batches_by_task(UTTS, LENGTHS, **limits)
    assert steps_of_passes(tasks, 1) == math.ceil(50 / 4) + math.ceil(5 / 4)
    assert steps_of_passes(tasks, 2) == 2 * steps_of_passes(tasks, 1)
    assert steps_of_passes(tasks, 0.5) == 8  # half of 15
    assert steps_of_passes(tasks, 1.5) == 23


def test_validation_has_every_utterance_once_in_single_task_batches():
    factory = EveryUtteranceIterFactory(None, UTTS, LENGTHS, 4, 120, collate_fn=None)
    batches = factory.batches
    assert sorted(utt for batch in batches for utt in batch) == sorted(UTTS)
    assert all(len({UTTS[utt] for utt in batch}) == 1 for batch in batches)
