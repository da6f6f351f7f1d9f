"""Does the model use the audio? The dev loss with the right audio, and with another utterance's."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pam.data.prompts import prompts_of
from pam.log import progress
from pam.model.speech_llm import ESPnetPaMModel
from pam.train.collate import Collate
from pam.train.iterators import EveryUtteranceIterFactory, limits
from pam.train.processes import gathered, rank, world
from pam.train.task import read_lengths, sample_of_each_task, training_set


def shuffled_audio(batch: Mapping[str, Tensor], model: ESPnetPaMModel) -> dict[str, Tensor]:
    """The batch with each row's audio replaced by that of the previous row.

    The rows of a batch have the same task and similar lengths.
    """
    return {**batch, **{k: v.roll(1, dims=0) for k, v in model.audio_of(batch).items()}}


@torch.no_grad()
def measure_hearing(
    model: ESPnetPaMModel, config: Mapping, dev: Path
) -> dict[str, dict[str, float | int]]:
    """Per task: mean dev loss of a token with right and with shuffled audio, and utterance count.

    Batches of one utterance are left out of both losses: there is no other audio to swap in.
    Several processes share the batches, and give what one gives, bit for bit.
    """
    model.eval()
    own = []
    for number, (_, task, batch) in enumerate(dev_batches(model, config, dev)):
        right = float(model.utterance_losses(**batch).sum())
        wrong = float(model.utterance_losses(**shuffled_audio(batch, model)).sum())
        counts = int(batch["text_lengths"].sum()), len(batch["task"])
        own.append((number, rank(), task, right, wrong, *counts))
    sums: dict[str, list[float]] = {}
    for _, _, task, *values in sorted(gathered(own)):  # in the order of one process
        row = sums.setdefault(task, [0.0, 0.0, 0, 0])
        for place, value in enumerate(values):
            row[place] += value
    return {
        task: {
            "dev_loss": right / tokens,
            "dev_loss_shuffled": wrong / tokens,
            "count": utts,
        }
        for task, (right, wrong, tokens, utts) in sums.items()
    }


def dev_batches(model: ESPnetPaMModel, config: Mapping, dev: Path, utts: int = 0):
    """Yield (ids, task, batch) for the development directory. Every batch has at least two rows.

    Of N processes, each yields every N-th batch. `utts`: number of utterances of each task, spread
    evenly over the sorted ids (0: all).
    """
    dataset = training_set(model.llm, dev, config)
    factory = EveryUtteranceIterFactory(
        dataset,
        sample_of_each_task(dataset.utt2task, utts),
        read_lengths(dev),
        collate_fn=Collate(model.llm, prompts_of(config), 4),
        num_workers=config["num_workers"],
        **limits(config, 1),
    )
    batches = [batch for batch in factory.batches if len(batch) > 1]
    factory.batches = batches[rank() :: world()]
    for ids, batch in progress(factory.build_iter(1), len(factory.batches), "dev loss"):
        on_device = {name: value.to(model.device) for name, value in batch.items()}
        yield ids, dataset.utt2task[ids[0]], on_device
