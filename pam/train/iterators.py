"""The sampler: tasks are equally probable; a batch has one task and utterances of similar length.

All batches are a function of (seed, epoch). So a resumed run sees the same batches, and so do
several processes, which split each batch among them.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from espnet2.iterators.abs_iter_factory import AbsIterFactory
from torch.utils.data import DataLoader, Dataset

from pam.train.dataset import TrainingSet
from pam.train.signals import outlive_signals

JITTER = 0.1  # default of `length_jitter`


def limits(config: Mapping[str, Any], gpus: int) -> dict[str, int]:
    """The limits of each of `shares` equal parts of a batch.

    With `batch.per: gpu` each GPU has a part of the configured limits. Otherwise these are the
    limits of the whole batch, which the processes split.
    """
    batch = config["batch"]
    shares = gpus if batch.get("per") == "gpu" else 1
    return {name: batch[name] for name in ("max_utts", "max_frames")} | {"shares": shares}


def bucket(
    utts: Sequence[str],
    lengths: Mapping[str, int],
    max_utts: int,
    max_frames: int,
    shares: int = 1,
) -> list[list[str]]:
    """Cut a length-sorted list into batches. Each of the `shares` of a batch has at most `max_utts`
    utterances and `max_frames` frames, padding included. Longer utterances have a share each."""
    batches: list[list[str]] = []
    longest = 0
    for utt in utts:
        longest = max(longest, lengths[utt])
        rows = math.ceil((len(batches[-1]) + 1) / shares) if batches else 1
        if not batches or rows > max_utts or (longest * rows > max_frames and rows > 1):
            batches.append([])
            longest = lengths[utt]
        batches[-1].append(utt)
    return batches


class Batch(NamedTuple):
    """Utterances of one task, and the number of the pass over that task."""

    utts: list[str]
    number: int


@dataclass(frozen=True)
class Step:
    """One process's share of a batch, and the update that the batch belongs to.

    Attributes:
        batch: the whole batch, which the processes split among them.
        update: the utterances of all batches of the update (one step of the optimizer).
        batches: number of batches of the update (ESPnet's accum_grad).
        rank, world: index of this process and number of processes.
    """

    batch: Batch
    update: list[str]
    batches: int
    rank: int
    world: int

    @property
    def own(self) -> range:
        """The rows of the batch that this process counts: every `world`-th."""
        return range(self.rank, len(self.batch.utts), self.world)

    @property
    def rows(self) -> Sequence[int]:
        """The rows that this process computes.

        Every process must take part in every step. A process without rows of its own computes the
        first row of the batch, with weight zero.
        """
        return self.own or [0]


class Utterances(Dataset):
    """Maps a step to the entries of its rows and to its counts (`pam.model.joint`).

    The tokens of other processes' rows are counted from their text, without communication and
    without reading audio.
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
        """Number of answer tokens of utterances."""
        answer_ids = self.dataset.answer_ids
        return sum(known[utt] if utt in known else len(answer_ids(utt)) for utt in utts)


def loader(
    dataset: TrainingSet,
    steps: Sequence[Step],
    collate_fn: Callable,
    num_workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader:
    """Yields (utterances, batch) for every step. `pin_memory` makes copies to a GPU faster."""
    options = {"batch_size": None, "num_workers": num_workers, "pin_memory": pin_memory}
    options |= {"collate_fn": collate_fn, "worker_init_fn": outlive_signals}
    return DataLoader(Utterances(dataset), sampler=steps, **options)


def rest_of(whole: DataLoader, done: int) -> DataLoader:
    """What `loader` made, without its first `done` batches."""
    steps, dataset = whole.sampler[done:], whole.dataset.dataset
    return loader(dataset, steps, whole.collate_fn, whole.num_workers, whole.pin_memory)


class TaskBatches:
    """The endless sequence of batches of one task. Every pass shuffles and buckets again.

    Lengths change at random by at most the share `jitter` before sorting, so that batches differ
    by pass.
    """

    def __init__(
        self,
        utts: Sequence[str],
        lengths: Mapping[str, int],
        max_utts: int,
        max_frames: int,
        seed,
        jitter: float = JITTER,
        shares: int = 1,
    ):
        self.utts, self.lengths, self.jitter = sorted(utts), lengths, jitter
        self.limits, self.seed = (max_utts, max_frames, shares), list(seed)
        self.frames = np.array([lengths[utt] for utt in self.utts])
        self.passes: dict[int, list[Batch]] = {}
        self.counts: list[int] = []  # of batches, of the first passes

    def one_pass(self, number: int) -> list[Batch]:
        """All utterances once, in the batches of pass `number`."""
        if number not in self.passes:
            rng = np.random.default_rng([*self.seed, number])
            blur = rng.uniform(1 - self.jitter, 1 + self.jitter, len(self.utts))
            order = np.argsort(self.frames * blur, kind="stable")
            ordered = [self.utts[i] for i in order]
            batches = bucket(ordered, self.lengths, *self.limits)
            shuffled = [Batch(batches[i], number) for i in rng.permutation(len(batches))]
            self.passes = {number: shuffled}
        return self.passes[number]

    def slice(self, start: int, count: int) -> list[Batch]:
        """Batches `start` … `start + count - 1`; numbering goes on from pass to pass."""
        out: list[Batch] = []
        number = 0
        while len(out) < count:
            if number < len(self.counts) and start >= self.counts[number]:
                start -= self.counts[number]  # an earlier pass is not computed again
            else:
                batches = self.one_pass(number)
                if number == len(self.counts):
                    self.counts.append(len(batches))
                out.extend(batches[start : start + count - len(out)])
                start = max(start - len(batches), 0)
            number += 1
        return out


def batches_by_task(
    utt2task: Mapping[str, str],
    lengths: Mapping[str, int],
    max_utts: int,
    max_frames: int,
    seed: int,
    jitter: float = JITTER,
    shares: int = 1,
) -> list[TaskBatches]:
    """The batches of each task, in the order of the tasks' names."""
    by_task: dict[str, list[str]] = {}
    for utt, task in utt2task.items():
        by_task.setdefault(task, []).append(utt)
    return [
        TaskBatches(by_task[task], lengths, max_utts, max_frames, (seed, number), jitter, shares)
        for number, task in enumerate(sorted(by_task))
    ]


def steps_of_passes(tasks: Sequence[TaskBatches], passes: float) -> int:
    """Number of batches in `passes` passes over the data of all tasks.

    All tasks are sampled equally often. So with several tasks of different sizes, this many steps
    read a small task more than `passes` times and a large task less.
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
        steps: batches per epoch (ESPnet's num_iters_per_epoch), a multiple of `accum_grad`.
        total: batches of all epochs; the last epoch may be shorter.
        max_utts, max_frames, shares: limits of a whole batch, before the processes split it, see
            `bucket`.
        accum_grad: batches per update.
        jitter: see `TaskBatches`.
        pin_memory: see `loader`.
        rank, world: index of this process and number of processes, see `Step`.
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
        jitter: float = JITTER,
        pin_memory: bool = False,
        shares: int = 1,
    ):
        self.dataset, self.collate_fn, self.num_workers = dataset, collate_fn, num_workers
        self.pin_memory = pin_memory
        self.steps, self.total, self.accum_grad, self.seed = steps, total, accum_grad, seed
        self.rank, self.world = rank, world
        own = (max_utts, max_frames, seed, jitter, shares)
        self.tasks = batches_by_task(utt2task, lengths, *own)

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
        return loader(self.dataset, steps, self.collate_fn, self.num_workers, self.pin_memory)


class EveryUtteranceIterFactory(AbsIterFactory):
    """Validation batches: every utterance once; a batch has one task and similar lengths."""

    def __init__(
        self,
        dataset: TrainingSet,
        utt2task: Mapping[str, str],
        lengths: Mapping[str, int],
        max_utts: int,
        max_frames: int,
        collate_fn: Callable,
        num_workers: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        world: int = 1,
        shares: int = 1,
    ):
        self.dataset, self.collate_fn, self.num_workers = dataset, collate_fn, num_workers
        self.pin_memory, self.rank, self.world = pin_memory, rank, world
        self.batches: list[list[str]] = []
        for task in sorted(set(utt2task.values())):
            utts = sorted(
                (utt for utt in utt2task if utt2task[utt] == task),
                key=lambda utt: (lengths[utt], utt),
            )
            self.batches += bucket(utts, lengths, max_utts, max_frames, shares)

    def build_iter(self, epoch: int, shuffle: bool | None = None) -> DataLoader:
        steps = [Step(Batch(utts, 0), utts, 1, self.rank, self.world) for utts in self.batches]
        return loader(self.dataset, steps, self.collate_fn, self.num_workers, self.pin_memory)
