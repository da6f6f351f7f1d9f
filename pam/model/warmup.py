"""The CTC warm-up as an ESPnet model, which trains the fusion of a Speech LLM."""

# B batch, T frames, Y target tokens

from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from pam.checkpoint import read_weights
from pam.errors import PamError
from pam.model.base import TrainableOnlyModel
from pam.model.ctc import TokenEmbeddingCTC
from pam.model.joint import own_counts, shares
from pam.model.speech_llm import ESPnetPaMModel
from pam.model.statistics import task_statistics


class CTCWarmupModel(TrainableOnlyModel):
    """Trains the fusion of `model` with `TokenEmbeddingCTC`; the LLM does not run.

    Prompts are not read. So the gate takes the expert of the true task, or all experts equally if
    routing uses no labels. A fusion that reads the prompt itself gets none, and uses the layer
    weights of its mean prompt. Checkpoints hold the fusion, from which the Speech LLM then starts,
    and the CTC's own parameters.

    CTC needs at least as many features as target tokens. If a fusion gives fewer (`salmonn` with
    few queries, or with one window for the whole clip), the loss of the utterance is zero.
    """

    def __init__(self, model: ESPnetPaMModel, ctc: TokenEmbeddingCTC):
        super().__init__()
        self.model, self.ctc = model, ctc
        model.requires_grad_(False)
        model.fusion.requires_grad_(True)

    def forward(
        self,
        text: Int[Tensor, "B Y"],
        text_lengths: Int[Tensor, " B"],
        task: Int[Tensor, " B"],
        counts: Float[Tensor, "3 2"] | None = None,
        utt_id: list[str] | None = None,
        **audio: Tensor,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], Float[Tensor, ""]]:
        """The mean loss over utterances, statistics per task, and the number of utterances as the
        batch's weight. `counts`: see `pam.model.joint`."""
        model = self.model
        if counts is None:
            counts = own_counts(int(text_lengths.sum()), len(task), task.device)
        with model.autocast():
            gate = None if model.router is None else self.gate(task)
            features, frames = model.fuse(*model.states(audio), gate)
            losses = self.ctc(features, frames, text, text_lengths)
        in_batch, in_update = shares(counts)
        loss = losses.mean()
        stats = task_statistics(model.tasks, task, in_batch.utts, ctc=losses)
        stats["loss"] = loss.detach() * in_batch.utts
        return loss * in_update.utts, stats, counts[1, 1]

    @property
    def tasks(self) -> list[str]:
        return self.model.tasks

    def gate(self, task: Int[Tensor, " B"]) -> Float[Tensor, "B R"]:
        experts = len(self.model.tasks)
        one_hot = F.one_hot(task, experts).float()
        return one_hot if self.model.labelled else torch.full_like(one_hot, 1 / experts)


def load_warm_fusion(model: ESPnetPaMModel, checkpoint: str | Path) -> None:
    """Load a warm-up's checkpoint into the fusion of `model`. `PamError` if it does not fit."""
    weights = read_weights(checkpoint)
    prefix = "model.fusion."
    fusion = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    try:
        model.fusion.load_state_dict(fusion)
    except RuntimeError as error:
        raise PamError(f"{checkpoint}: the warm-up is of another system") from error
