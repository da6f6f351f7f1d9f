"""Which utterances make which batch: equal probability per task, one task and like lengths a batch.

Everything is a function of (seed, epoch), so a resumed run sees the same batches, and so do any
number of processes, which share each of them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from torch.utils.data import DataLoader, Dataset

from pam.train.dataset import TrainingSet

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


class Batch(NamedTuple):
    """Utterances of one task, and the pass over that task which they belong to."""

    utts: list[str]
    number: int


@dataclass(frozen=True)
class Step:
    """A batch, what this process takes of it, and the batches that one update joins.

    Attributes:
        batch: what all processes take together.
        update: the utterances of all batches of the update, the optimizer's step.
        batches: how many batches that are (ESPnet's accum_grad).
        rank, world: this process and how many there are.
    """

    batch: Batch
    update: list[str]
    batches: int
    rank: int
    world: int

    @property
    def own(self) -> range:
        """The rows of the batch that count in this process: every `world`-th."""
        return range(self.rank, len(self.batch.utts), self.world)

    @property
    def rows(self) -> Sequence[int]:
        """The rows that it computes: all processes meet in every step, so where it has none of its
        own it computes the first one, which then counts nothing."""
        return self.own or [0]


class Utterances(Dataset):
    """A `TrainingSet` by steps: the entries of a step's rows, and its counts (`pam.model.joint`).

    Other processes' tokens are counted from their text: nothing is exchanged, no audio is read.
    """

    def __init__(self, dataset: TrainingSet):
        self.dataset = dataset

    def __getitem__(self, step: Step) -> tuple[Step, list[tuple[str, dict]], np.ndarray]:
        utts, world = step.batch.utts, step.world
        items = [(utts[row], self.dataset[utts[row]]) for row in step.rows]
        known = {utt: len(row["text"]) for utt, row in items}
        parts = (
            ([utts[row] for row in step.own], 1),
            (utts, world),
            (step.update, world * step.batches),
        )
        counts = [[self.tokens(some, known) / n, len(some) / n] for some, n in parts]
        return step, items, np.array(counts, dtype=np.float32)

    def tokens(self, utts: Iterable[str], known: Mapping[str, int]) -> int:
        """Answer tokens of utterances."""
        answer_ids = self.dataset.answer_ids
        return sum(known[utt] if utt in known else len(answer_ids(utt)) for utt in utts)


def loader(
    dataset: TrainingSet, steps: Sequence[Step], collate_fn: Callable, num_workers: int = 0
) -> DataLoader:
    """(utterances, batch) of every step."""
    options = {"batch_size": None, "num_workers": num_workers}
    return DataLoader(Utterances(dataset), sampler=steps, collate_fn=collate_fn, **options)


class TaskBatches:
    """The endless sequence of batches of one task: every pass shuffles and buckets anew."""

    def __init__(
        self, utts: Sequence[str], lengths: Mapping[str, int], max_utts: int, max_frames: int, seed
    ):
        self.utts, self.lengths = sorted(utts), lengths
        self.max_utts, self.max_frames, self.seed = max_utts, max_frames, list(seed)
        self.passes: dict[int, list[Batch]] = {}

    def one_pass(self, number: int) -> list[Batch]:
        """All utterances once, in the batches of pass `number`."""
        if number not in self.passes:
            rng = np.random.default_rng([*self.seed, number])
            blur = rng.uniform(1 - JITTER, 1 + JITTER, len(self.utts))
            frames = np.array([self.lengths[utt] for utt in self.utts]) * blur
            ordered = [self.utts[i] for i in np.argsort(frames, kind="stable")]
            batches = bucket(ordered, self.lengths, self.max_utts, self.max_frames)
            shuffled = [Batch(batches[i], number) for i in rng.permutation(len(batches))]
            self.passes = {number: shuffled}
        return self.passes[number]

    def slice(self, start: int, count: int) -> list[Batch]:
        """Batches number `start` … `start + count - 1`, counted over passes."""
        out: list[Batch] = []
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


def batches_by_task(
    utt2task: Mapping[str, str],
    lengths: Mapping[str, int],
    max_utts: int,
    max_frames: int,
    seed: int,
) -> list[TaskBatches]:
    """The batches of each task, in the order of the tasks' names."""
    by_task: dict[str, list[str]] = {}
    for utt, task in utt2task.items():
        by_task.setdefault(task, []).append(utt)
    return [
        TaskBatches(by_task[task], lengths, max_utts, max_frames, (seed, number))
        for number, task in enumerate(sorted(by_task))
    ]


def steps_of_passes(tasks: Sequence[TaskBatches], passes: float) -> int:
    """Batches of `passes` passes over the data: over one task exactly these passes.

    Tasks are sampled equally often, whatever their sizes. So of several tasks these are as many
    steps as the passes of all tasks together have batches; a small task is then read more often
    than that, a large one less.
    """
    whole = int(passes)
    steps = sum(len(task.one_pass(number)) for number in range(whole) for task in tasks)
    rest = passes - whole
    return steps + (math.ceil(rest * sum(len(t.one_pass(whole)) for t in tasks)) if rest else 0)


class TaskBalancedIterFactory(AbsIterFactory):
    """Training batches: each block of R steps has one batch of each of the R tasks, shuffled.

    Args:
        utt2task: task of every utterance.
        lengths: frames of every utterance.
        steps: batches an epoch (ESPnet's num_iters_per_epoch), a multiple of `accum_grad`.
        total: batches of all epochs; the last one may be shorter.
        max_utts, max_frames: limits of a batch, which the processes share.
        accum_grad: batches that an update joins.
        rank, world: this process and how many there are: see `Step`.
    """

    def __init__(
        self,
        dataset: TrainingSet,
        utt2task: Mapping[str, str],
        lengths: Mapping[str, int],
        steps: int,
        max_utts: int,
        max_frames: int,
        seed: int,
        collate_fn: Callable,
        total: float = math.inf,
        accum_grad: int = 1,
        num_workers: int = 0,
        rank: int = 0,
        world: int = 1,
    ):
        self.dataset, self.collate_fn, self.num_workers = dataset, collate_fn, num_workers
        self.steps, self.total, self.accum_grad, self.seed = steps, total, accum_grad, seed
        self.rank, self.world = rank, world
        self.tasks = batches_by_task(utt2task, lengths, max_utts, max_frames, seed)

    def batches(self, epoch: int) -> list[Batch]:
        """The batches of an epoch (counted from 1)."""
        first = (epoch - 1) * self.steps
        steps = int(min(self.steps, self.total - first))
        width = len(self.tasks)
        blocks = range(first // width, math.ceil((first + steps) / width))
        queues = [iter(task.slice(blocks.start, len(blocks))) for task in self.tasks]
        order = [
            int(number)
            for block in blocks
            for number in np.random.default_rng([self.seed, width, block]).permutation(width)
        ]
        drawn = [next(queues[number]) for number in order]
        skip = first - blocks.start * width
        return drawn[skip : skip + steps]

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> DataLoader:
        batches, steps = self.batches(epoch), []
        for start in range(0, len(batches), self.accum_grad):
            joint = batches[start : start + self.accum_grad]
            update = [utt for batch in joint for utt in batch.utts]
            steps += [Step(batch, update, len(joint), self.rank, self.world) for batch in joint]
        return loader(self.dataset, steps, self.collate_fn, self.num_workers)


class EveryUtteranceIterFactory(AbsIterFactory):
    """Validation batches: every utterance once, one task a batch, like lengths together."""

    def __init__(
        self,
        dataset: TrainingSet,
        utt2task: Mapping[str, str],
        lengths: Mapping[str, int],
        max_utts: int,
        max_frames: int,
        collate_fn: Callable,
        rank: int = 0,
        world: int = 1,
    ):
        self.dataset, self.collate_fn, self.rank, self.world = dataset, collate_fn, rank, world
        self.batches: list[list[str]] = []
        for task in sorted(set(utt2task.values())):
            utts = sorted(
                (utt for utt in utt2task if utt2task[utt] == task),
                key=lambda utt: (lengths[utt], utt),
            )
            self.batches += bucket(utts, lengths, max_utts, max_frames)

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> DataLoader:
        steps = [Step(Batch(utts, 0), utts, 1, self.rank, self.world) for utts in self.batches]
        return loader(self.dataset, steps, self.collate_fn)
