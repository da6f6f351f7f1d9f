r"""The Speech LLM: Y = LLM(prompt, S) with S the fused audio (equations 1 and 10).

It combines the parts: encoders → fusion, gated by the router → LLM. The maths is in the parts.
"""

# B batch, K distinct prompts, Q of them for each row, P prompt tokens, T frames, Y answer tokens,
# D width of the LLM, R routed experts (one per task), S hidden states of one encoder, V vocabulary

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pam.data.utterances import AUDIO
from pam.encoders.padding import padding_mask
from pam.errors import PamError
from pam.fusion.base import Fusion
from pam.fusion.router import Router
from pam.llm.bank import PromptBank
from pam.llm.causal_lm import CausalLM
from pam.llm.prompts import PromptStates
from pam.model.base import TrainableOnlyModel
from pam.model.exits import ExitLoss
from pam.model.experts import expert_names
from pam.model.features import EncoderShape, encode, read_states, scale
from pam.model.joint import own_counts, shares
from pam.model.statistics import task_statistics
from pam.options import check_init_options

FEATURE_SCALES = ("none", "embedding")
ROUTINGS = ("label", "predicted")


class ESPnetPaMModel(TrainableOnlyModel):
    """Frozen encoders' states → fusion → LLM with LoRA.

    Args:
        llm: the LLM.
        fusion: a fusion of `pam.fusion`.
        router: for fusions that need a gate, else None.
        shapes: the encoders, in the fusion's order.
        tasks: names of the tasks; the expert of a task is its index.
        encoders: the encoder models, for online features.
        feature_scale: "embedding" scales every fused frame to the mean norm of the LLM's token
            embeddings times a learned gain; "none" does not scale.
        routing: in training the gate takes the true "label" or the "predicted" expert.
        routing_loss: add CE(p, task) of equation 10. Without it and with "predicted" routing no
            label reaches the experts (Table 11, "without task label").
        word_dropout: in training, the probability that the embedding of an answer's token is
            replaced by that of a space. The next tokens must then be predicted from the audio.
        bf16: autocast to bfloat16.
        exits: options of `ExitLoss`.
    """

    def __init__(
        self,
        llm: CausalLM,
        fusion: Fusion,
        router: Router | None,
        shapes: Sequence[EncoderShape],
        tasks: Sequence[str],
        encoders: nn.ModuleDict | None = None,
        feature_scale: str = "none",
        routing: str = "label",
        routing_loss: bool = True,
        word_dropout: float = 0.0,
        bf16: bool = True,
        exits: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        for name, value, known in (
            ("feature_scale", feature_scale, FEATURE_SCALES),
            ("routing", routing, ROUTINGS),
        ):
            if value not in known:
                raise PamError(f"model_conf.{name}: {value!r} is not one of {', '.join(known)}")
        if router is not None and not routing_loss and not router.scaled:
            raise PamError(
                "router_conf.gate: 'indicator' lets no gradient reach the router: "
                "without model_conf.routing_loss it must be 'probability'"
            )
        self.llm, self.fusion, self.router = llm, fusion, router
        self.encoders = encoders
        self.shapes, self.tasks = list(shapes), list(tasks)
        if not 0 <= word_dropout < 1:
            raise PamError(f"model_conf.word_dropout: {word_dropout} is not in [0, 1)")
        self.routing, self.routing_loss, self.bf16 = routing, routing_loss, bf16
        self.word_dropout = word_dropout
        self.gain = nn.Parameter(torch.ones(())) if feature_scale == "embedding" else None
        self.embedding_norm = llm.embedding_norm()
        check_init_options(ExitLoss, exits or {}, "model_conf.exits")
        on = exits and (exits.get("share") or exits.get("gate"))
        self.exits = ExitLoss(llm, **exits) if on else None
        self.exit_gate = self.exits.gate if on else None
        self.bank: PromptBank | None = None  # for training; see pam.train.task

    @property
    def tokenizer(self):
        return self.llm.tokenizer

    @property
    def labelled(self) -> bool:
        """Whether each routed expert has a task; see `pam.model.experts`."""
        return self.router is not None and (self.routing_loss or self.routing == "label")

    @property
    def prompt_reader(self) -> Router | None:
        """The layer that reads h_prompt: the router, or that of a fusion that reads the prompt."""
        return self.fusion.router if self.fusion.reads_prompt else self.router

    @property
    def experts(self) -> list[str]:
        """Names of the experts that the router chooses from."""
        return expert_names(self.tasks, self.labelled)

    @property
    def device(self) -> torch.device:
        return self.llm.embeddings.device

    def autocast(self):
        """Autocast to bfloat16 if the configuration says so; ESPnet's own AMP is float16."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    # --- audio

    def audio_of(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries of a batch that `states` reads."""
        names = {AUDIO, *(shape.name for shape in self.shapes)}
        return {k: v for k, v in batch.items() if k.removesuffix("_lengths") in names}

    def states(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[list[Float[Tensor, "B S T C"]], Int[Tensor, " B"]]:
        """All encoders' states, with zeros as padding, and the number of frames of each clip.

        The number of frames is the minimum over the encoders. `batch` has `speech`, or NAME
        [B, T, S·C] and NAME_lengths of every encoder.
        """
        if AUDIO in batch:
            batch = self.encode(batch[AUDIO], batch[f"{AUDIO}_lengths"])
        return read_states(batch, self.shapes, self.bf16)

    def encode(self, speech: Float[Tensor, "B N"], lengths: Int[Tensor, " B"]) -> dict[str, Tensor]:
        """States of every encoder in the layout of a dump: NAME [B, T, S·C], NAME_lengths [B]."""
        if self.encoders is None:
            raise PamError("the encoders are not loaded: build the model with online=True")
        return encode(self.encoders, speech, lengths)

    def fuse(
        self,
        states: Sequence[Float[Tensor, "B _ _ _"]],
        lengths: Int[Tensor, " B"],
        gate: Float[Tensor, "B R"] | None,
    ) -> tuple[Float[Tensor, "B U D"], Int[Tensor, " B"]]:
        """The fused audio features S of equation 3, and their real number for each clip."""
        features = scale(self.fusion(states, lengths, gate), self.gain, self.embedding_norm)
        return features, self.fusion.output_lengths(lengths)

    # --- prompts and routing

    def read_prompts(self, prompts: Sequence[str], shortest: int = 0) -> PromptStates:
        """One pass of the LLM over prompts, padded to at least `shortest` tokens.

        Duplicates are computed twice.
        """
        ids, lengths = self.llm.prompt_batch(prompts)
        ids = F.pad(ids, (0, max(0, shortest - ids.shape[1])))
        with self.autocast():
            return self.llm.read_prompts(ids.to(self.device), lengths.to(self.device))

    @torch.no_grad()
    def pooled_prompts(self, prompts: Sequence[str], rows: int = 32) -> Float[Tensor, "N D"]:
        """h_prompt of each prompt."""
        chunks = [prompts[i : i + rows] for i in range(0, len(prompts), rows)]
        return torch.cat([self.read_prompts(chunk).pooled for chunk in chunks])

    @torch.no_grad()
    def prompt_posteriors(self, prompts: Sequence[str]) -> Float[Tensor, "N R"]:
        """p of equation 8 for each prompt. `PamError` for a system without a router."""
        if self.router is None:
            raise PamError("this system has no router")
        return self.router(self.pooled_prompts(prompts)).softmax(-1)

    def route(
        self, prompt: PromptStates, task: Int[Tensor, " B"] | None
    ) -> tuple[Float[Tensor, "B R"] | None, Float[Tensor, "B R"] | None]:
        """Router logits and gate. With `task`, the gate takes the true expert.

        The gate of a fusion that reads the prompt itself is h_prompt, and there are no logits.
        """
        if self.fusion.reads_prompt:
            return None, prompt.pooled
        if self.router is None:
            return None, None
        logits = self.router(prompt.pooled)
        return logits, self.router.gate(logits, task)

    # --- training

    def keep_prompts(self, banks: Mapping[str, Sequence[str]]) -> None:
        """Make the `bank` of the tasks' training prompts; none where there are none."""
        if banks:
            with self.autocast():
                self.bank = PromptBank(self.llm, chain.from_iterable(banks.values()))

    def to(self, *args, **kwargs) -> "ESPnetPaMModel":
        """The `bank` moves with the LLM."""
        super().to(*args, **kwargs)
        if self.bank is not None:
            self.bank.move(self.device)
        return self

    def prompt_states(
        self,
        prompt: Int[Tensor, "K P"],
        prompt_lengths: Int[Tensor, " K"],
        prompt_index: Int[Tensor, "B Q"],
    ) -> tuple[PromptStates, Float[Tensor, "N D"]]:
        """The states of each row's first prompt, and h_prompt of all N = B · Q prompts.

        In training they come from the `bank`, if there is one.
        """
        if self.bank is not None and self.training:
            first = prompt_index[:, 0]
            pooled = self.bank.pooled(prompt, prompt_lengths)[prompt_index.flatten()]
            return self.bank.states(prompt[first], prompt_lengths[first]), pooled
        distinct = self.llm.read_training_prompts(prompt, prompt_lengths)
        return distinct.select(prompt_index[:, 0]), distinct.pooled[prompt_index.flatten()]

    def route_training(
        self, prompt: PromptStates, task: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B R"] | None, Float[Tensor, "B R"] | None]:
        """Router logits, and the gate of training: the true expert where `routing` is "label"."""
        return self.route(prompt, task if self.routing == "label" else None)

    def forward(
        self,
        prompt: Int[Tensor, "K P"],
        prompt_lengths: Int[Tensor, " K"],
        prompt_index: Int[Tensor, "B Q"],
        text: Int[Tensor, "B Y"],
        text_lengths: Int[Tensor, " B"],
        task: Int[Tensor, " B"],
        experts: Bool[Tensor, "B Q R"] | None = None,
        counts: Float[Tensor, "3 2"] | None = None,
        chance: Float[Tensor, "B Y"] | None = None,
        draw: Int[Tensor, ""] | None = None,
        utt_id: list[str] | None = None,
        **audio: Tensor,
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor], Float[Tensor, ""]]:
        """Loss of equation 10, statistics per task, and the token count as the batch's weight.

        `prompt` holds each distinct prompt of the batch once; `prompt_index` gives the prompts of
        each row. The LLM reads the first of them; all of them train the router. `experts` are the
        right experts of each prompt, by default that of the row's task. `text` ends with the end
        token; ESPnet's trainer adds `utt_id`. Audio: see `states`; `chance`: see `drop_words`.
        In evaluation mode the statistics have `loss_routed`, the loss with the router's choice.
        In training the loss includes `exits`, if there are any; `draw`: see `ExitLoss`.

        The loss is a mean over answer tokens plus, for routing, a mean over utterances. `counts`
        scales it if several processes share the batch or an update joins several batches
        (`pam.model.joint`). Without `counts`, the batch is whole.
        """
        if counts is None:
            counts = own_counts(int(text_lengths.sum()), len(task), task.device)
        if experts is None:
            experts = (
                F.one_hot(task, len(self.tasks))
                .bool()[:, None]
                .expand(-1, prompt_index.shape[1], -1)
            )
        in_batch, in_update = shares(counts)
        layers = [] if self.training and self.exits else None
        with self.autocast():
            prompt_states, pooled = self.prompt_states(prompt, prompt_lengths, prompt_index)
            router_logits, gate = self.route_training(prompt_states, task)
            logits, labels = self.predict(
                prompt_states, gate, audio, text, text_lengths, chance, layers
            )
        token_loss = F.cross_entropy(logits, labels, reduction="none")
        answering = token_loss.mean()
        loss, seen = answering * in_update.tokens, answering.detach() * in_batch.tokens
        routing_seen = 0.0
        if router_logits is not None and self.routing_loss:
            every = self.router(pooled)
            routing = routing_loss(every, experts.flatten(0, 1)).mean()
            loss = loss + routing * in_update.utts
            routing_seen = routing.detach() * in_batch.utts
        correct = (logits.argmax(-1) == labels).float()
        token_task = task.repeat_interleave(text_lengths)
        stats = task_statistics(
            self.tasks, token_task, in_batch.tokens, loss=token_loss, acc=correct
        )
        if self.labelled:
            chosen = router_logits.argmax(-1, keepdim=True)
            routed = experts[:, 0].gather(-1, chosen)[:, 0].float()
            stats |= task_statistics(self.tasks, task, in_batch.utts, router_acc=routed)
            if not self.training:
                own = self.routed_loss(token_loss, prompt_states, task, audio, text, text_lengths)
                stats |= task_statistics(self.tasks, token_task, in_batch.tokens, loss_routed=own)
                stats["loss_routed"] = own.mean() * in_batch.tokens + routing_seen
        stats["loss"] = seen + routing_seen
        if layers is not None:
            with self.autocast():
                found = self.exits(layers, logits, labels, draw)
            for name, value in found.items():
                loss = loss + value * in_update.tokens
                stats[name] = value.detach() * in_batch.tokens
        return loss, stats, counts[1, 0]

    def predict(
        self,
        prompt: PromptStates,
        gate: Float[Tensor, "B R"] | None,
        audio: Mapping[str, Tensor],
        text: Int[Tensor, "B Y"],
        text_lengths: Int[Tensor, " B"],
        chance: Float[Tensor, "B Y"] | None = None,
        layers: list[Tensor] | None = None,
    ) -> tuple[Float[Tensor, "N V"], Int[Tensor, " N"]]:
        """Logits at the N positions that predict answer tokens, and these tokens.

        `layers`: see `answer`.
        """
        features, frames = self.fuse(*self.states(audio), gate)
        read = self.drop_words(text.clamp(min=0), chance)
        hidden, labels = self.answer(prompt, features, frames, text, text_lengths, read, layers)
        return self.llm.logits(hidden), labels

    @torch.no_grad()
    def utterance_losses(
        self,
        prompt: Int[Tensor, "K P"],
        prompt_lengths: Int[Tensor, " K"],
        prompt_index: Int[Tensor, "B Q"],
        text: Int[Tensor, "B Y"],
        text_lengths: Int[Tensor, " B"],
        task: Int[Tensor, " B"],
        **others: Tensor,
    ) -> Float[Tensor, " B"]:
        """The cross-entropy of each utterance's answer in nats, summed over its tokens.

        The gate is that of training, and the batch is as for `forward`. The model must be in
        evaluation mode.
        """
        with self.autocast():
            prompts, _ = self.prompt_states(prompt, prompt_lengths, prompt_index)
            _, gate = self.route_training(prompts, task)
            audio = self.audio_of(others)
            logits, labels = self.predict(prompts, gate, audio, text, text_lengths)
        token_loss = F.cross_entropy(logits, labels, reduction="none")
        return torch.stack([row.sum() for row in token_loss.split(text_lengths.tolist())])

    @torch.no_grad()
    def routed_loss(
        self,
        token_loss: Float[Tensor, " N"],
        prompt: PromptStates,
        task: Int[Tensor, " B"],
        audio: Mapping[str, Tensor],
        text: Int[Tensor, "B Y"],
        text_lengths: Int[Tensor, " B"],
    ) -> Float[Tensor, " N"]:
        """The loss of every answer token if the router chooses the expert, as in decoding.

        `token_loss` is the loss with the gate of training. Only rows with another choice of the
        router are computed again.
        """
        token_loss = token_loss.detach().clone()
        with self.autocast():
            logits, gate = self.route(prompt, None)
            other = (logits.argmax(-1) != task).nonzero()[:, 0]
            if len(other) == 0 and self.llm.sharded:  # all processes must run the LLM equally often
                other = torch.zeros_like(task[:1])
            if self.routing == "predicted" or len(other) == 0:
                return token_loss
            some = {name: value[other] for name, value in audio.items()}
            logits, labels = self.predict(
                prompt.select(other), gate[other], some, text[other], text_lengths[other]
            )
        again = F.cross_entropy(logits, labels, reduction="none")
        row = torch.arange(len(task), device=task.device).repeat_interleave(text_lengths)
        token_loss[torch.isin(row, other)] = again.to(token_loss.dtype)
        return token_loss

    def drop_words(
        self, text: Int[Tensor, "B Y"], chance: Float[Tensor, "B Y"] | None
    ) -> Int[Tensor, "B Y"]:
        """Word dropout: in training, a space replaces each token with `chance` < `word_dropout`.

        `chance` holds random numbers in [0, 1).
        """
        if not self.training or self.word_dropout == 0:
            return text
        if chance is None:
            raise ValueError("word_dropout: a training batch needs `chance`, as Collate draws it")
        return torch.where(chance < self.word_dropout, self.llm.space, text)

    def answer(
        self,
        prompt: PromptStates,
        features: Float[Tensor, "B U D"],
        frames: Int[Tensor, " B"],
        text: Int[Tensor, "B Y"],
        text_lengths: Int[Tensor, " B"],
        read: Int[Tensor, "B Y"] | None = None,
        layers: list[Tensor] | None = None,
    ) -> tuple[Float[Tensor, "N D"], Int[Tensor, " N"]]:
        """Hidden states at the N positions that predict answer tokens, and these tokens.

        `read`: the LLM's input tokens after word dropout; by default `text`. `layers`: a list to
        which the states after each layer at these positions are added (needs `exits`).
        """
        features, frames = self.llm.turn(features, frames)
        words = self.llm.embed(text.clamp(min=0) if read is None else read).to(features.dtype)
        rows = [
            torch.cat([audio[:n], word[: m - 1]])
            for audio, n, word, m in zip(features, frames, words, text_lengths, strict=True)
        ]
        embeds = pad_sequence(rows, batch_first=True)
        real = padding_mask(frames + text_lengths - 1, embeds.shape[1])
        steps = torch.arange(embeds.shape[1], device=embeds.device)
        positions = prompt.mask.sum(1, keepdim=True) + steps
        mask = torch.cat([prompt.mask, real], dim=1)
        predicts = real & (steps >= (frames - 1)[:, None])
        if layers is None:
            hidden = self.llm.read_answers(prompt, embeds, mask, positions)
        else:
            with self.exits.depth.record() as states:
                hidden = self.llm.read(embeds, mask, positions, prompt.cache())
            layers += [state[predicts] for state in states]
        return hidden[predicts], text[padding_mask(text_lengths, text.shape[1])]


def routing_loss(logits: Float[Tensor, "B R"], experts: Bool[Tensor, "B R"]) -> Float[Tensor, " B"]:
    r"""-log of the probability that a right expert is chosen, per row.

    With one right expert per row this is CE(p, task) of equation 10. A request like "Transcribe."
    has two, for clean and for noisy speech: :math:`-\log \sum_{r \in \mathrm{right}} p_r`.
    """
    return -logits.log_softmax(-1).masked_fill(~experts, -torch.inf).logsumexp(-1)
