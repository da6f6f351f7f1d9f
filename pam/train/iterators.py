"""Which utterances make which batch: equal probability per task, one task and like lengths a batch.

Everything is a function of (seed, epoch), so a resumed run sees the same batches.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from torch.utils.data import DataLoader, Dataset

JITTER = 0.1  # lengths are blurred by ±10 % before sorting, so that batches differ between passes


def bucket(
    utts: Sequence[str], lengths: Mapping[str, int], max_utts: int, max_frames: int
) -> list[list[str]]:
    """Cut a length-sorted list into batches of at most `max_utts` utterances and, padding
    included, `max_frames` frames (a longer single utterance is a batch of its own)."""
    batches: list[list[str]] = []
    longest = 0
    for utt in utts:
        longest = max(longest, lengths[utt])
        full = batches and len(batches[-1]) >= max_utts
        if not batches or full or longest * (len(batches[-1]) + 1) > max_frames:
            batches.append([])
            longest = lengths[utt]
        batches[-1].append(utt)
    return batches


def share(batch: Sequence[str], rank: int, world: int) -> list[str]:
    """The utterances of a batch that a process takes: every `world`-th.

    No process may be left without one, for all of them meet in every step: where there are fewer
    utterances than processes, some are taken twice.
    """
    return list(batch[rank::world]) or [batch[rank % len(batch)]]


class TaskBatches:
    """The endless sequence of batches of one task: every pass shuffles and buckets anew."""

    def __init__(
        self, utts: Sequence[str], lengths: Mapping[str, int], max_utts: int, max_frames: int, seed
    ):
        self.utts, self.lengths = sorted(utts), lengths
        self.max_utts, self.max_frames, self.seed = max_utts, max_frames, list(seed)
        self.passes: dict[int, list[list[str]]] = {}

    def one_pass(self, number: int) -> list[list[str]]:
        """All utterances once, in the batches of pass `number`."""
        if number not in self.passes:
            rng = np.random.default_rng([*self.seed, number])
            blur = rng.uniform(1 - JITTER, 1 + JITTER, len(self.utts))
            frames = np.array([self.lengths[utt] for utt in self.utts]) * blur
            ordered = [self.utts[i] for i in np.argsort(frames, kind="stable")]
            batches = bucket(ordered, self.lengths, self.max_utts, self.max_frames)
            self.passes = {number: [batches[i] for i in rng.permutation(len(batches))]}
        return self.passes[number]

    def slice(self, start: int, count: int) -> list[list[str]]:
        """Batches number `start` … `start + count - 1`, counted over passes."""
        out: list[list[str]] = []
        number = 0
        while len(out) < count:
            batches = self.one_pass(number)
            if start < len(batches):
                out.extend(batches[start : start + count - len(out)])
                start = 0
            else:
                start -= len(batches)
            number += 1
        return out


class TaskBalancedIterFactory(AbsIterFactory):
    """Training batches: each block of R steps has one batch of each of the R tasks, shuffled.

    Args:
        utt2task: task of every utterance.
        lengths: frames of every utterance.
        steps: batches an epoch (ESPnet's num_iters_per_epoch).
        max_utts, max_frames: limits of a batch.
        rank, world: this process and how many there are: each takes its `share` of a batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        utt2task: Mapping[str, str],
        lengths: Mapping[str, int],
        steps: int,
        max_utts: int,
        max_frames: int,
        seed: int,
        collate_fn: Callable,
        num_workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self.dataset, self.collate_fn, self.num_workers = dataset, collate_fn, num_workers
        self.steps, self.seed, self.rank, self.world = steps, seed, rank, world
        by_task: dict[str, list[str]] = {}
        for utt, task in utt2task.items():
            by_task.setdefault(task, []).append(utt)
        self.tasks = [
            TaskBatches(by_task[task], lengths, max_utts, max_frames, (seed, number))
            for number, task in enumerate(sorted(by_task))
        ]

    def batches(self, epoch: int) -> list[list[str]]:
        """The batches of an epoch (counted from 1)."""
        first = (epoch - 1) * self.steps
        width = len(self.tasks)
        blocks = range(first // width, math.ceil((first + self.steps) / width))
        queues = [iter(task.slice(blocks.start, len(blocks))) for task in self.tasks]
        order = [
            int(number)
            for block in blocks
            for number in np.random.default_rng([self.seed, width, block]).permutation(width)
        ]
        drawn = [next(queues[number]) for number in order]
        skip = first - blocks.start * width
        return drawn[skip : skip + self.steps]

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> DataLoader:
        mine = [share(batch, self.rank, self.world) for batch in self.batches(epoch)]
        return DataLoader(
            self.dataset,
            batch_sampler=mine,
            collate_fn=self.collate_fn,
            num_workers=self.num_workers,
        )


class EveryUtteranceIterFactory(AbsIterFactory):
    """Validation batches: every utterance once, one task a batch, like lengths together."""

    def __init__(
        self,
        dataset: Dataset,
        utt2task: Mapping[str, str],
        lengths: Mapping[str, int],
        max_utts: int,
        max_frames: int,
        collate_fn: Callable,
        rank: int = 0,
        world: int = 1,
    ):
        self.dataset, self.collate_fn = dataset, collate_fn
        batches: list[list[str]] = []
        for task in sorted(set(utt2task.values())):
            utts = sorted(
                (utt for utt in utt2task if utt2task[utt] == task),
                key=lambda utt: (lengths[utt], utt),
            )
            batches += bucket(utts, lengths, max_utts, max_frames)
        self.mine = [share(batch, rank, world) for batch in batches]

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> DataLoader:
        return DataLoader(self.dataset, batch_sampler=self.mine, collate_fn=self.collate_fn)
