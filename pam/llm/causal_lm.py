"""A frozen causal LLM with LoRA that reads a prompt once (equations 1 and 7).

The prompt comes before the audio, so its states do not depend on the audio. One pass over each
distinct prompt gives h_prompt for the router, and the KV cache for audio and answer.
"""

# B batch, U distinct prompts or features after fusion, P prompt tokens, T positions after the
# prompt, D width of the LLM, V positions of audio and closing, or the vocabulary

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache
from transformers.utils import ModelOutput

from pam.encoders.padding import padding_mask
from pam.errors import PamError
from pam.llm.fast_layers import FastLayers
from pam.llm.head import backbone_name, logits_of
from pam.llm.load import load_frozen, load_tokenizer
from pam.llm.lora import inject_lora, lora_layers, without_lora
from pam.llm.prompts import PromptStates, pad_left, pool_prompts, stack_prompts
from pam.llm.recompute import recomputing, refuse_unless_right
from pam.llm.supported import refuse_unsupported
from pam.llm.template import Template, make_template
from pam.llm.text import TextEncoder
from pam.paths import resolve_model

H_PROMPTS = ("last", "mean")
NORM_ROWS = 4096  # embeddings per block when norms are computed


class CausalLM(nn.Module):
    """The LLM with LoRA. Only LoRA's matrices are trainable; they are float32 for any LLM type.

    Args:
        path: folder, hub name or `cache:NAME`.
        dtype: type of the frozen weights.
        lora_rank, lora_alpha, lora_dropout, lora_targets: LoRA (A.6: 32, 64, q_proj and k_proj);
            rank 0 adds no LoRA; the target "all-linear" is every linear layer except the LM head.
        attention: transformers' implementation ("sdpa", "eager", "flash_attention_2", …). On CPUs
            "eager" trains faster on short sequences, with an LLM like Llama much faster
            (`pam.llm.fast_layers`).
        h_prompt: "last" token of the prompt (equation 7), or the "mean" over its tokens.
        lora_on_prompt: whether LoRA acts on the prompt too. If not, the prompt's states are those
            of the pretrained LLM, so that they do not overfit to the few training prompts.
        template: the tokens around prompt, audio and answer (`pam.llm.template`): "plain", the
            tokenizer's own "chat" template, or the template that an experiment was trained with.
        shard: whether the GPUs of a training share the frozen layers, each with a part of every
            layer's weights (`pam.train.sharding`). Decoding needs the whole LLM on one GPU.
        gradient_checkpointing: whether training keeps only the input of each layer and runs the
            layer again in the backward pass: less memory, longer steps (`pam.llm.recompute`).

    `sharded` tells whether the layers have been sharded.

    Raises:
        PamError: the files are not a causal LLM, or the LLM cannot read a text in parts.
    """

    sharded = False

    def __init__(
        self,
        path: str,
        dtype: str = "bfloat16",
        lora_rank: int = 32,
        lora_alpha: int = 64,
        lora_dropout: float = 0.0,
        lora_targets: Sequence[str] | str = ("q_proj", "k_proj"),
        attention: str = "sdpa",
        h_prompt: str = "last",
        lora_on_prompt: bool = True,
        template: str | Template = "plain",
        shard: bool = False,
        gradient_checkpointing: bool = False,
    ):
        super().__init__()
        if h_prompt not in H_PROMPTS:
            raise PamError(f"llm_conf.h_prompt: {h_prompt!r} is not one of {', '.join(H_PROMPTS)}")
        self.h_prompt, self.lora_on_prompt, self.attention = h_prompt, lora_on_prompt, attention
        self.shard, self.recompute = shard, gradient_checkpointing
        folder = resolve_model(path)
        self.tokenizer = load_tokenizer(folder)
        self.text_ids = TextEncoder(self.tokenizer)
        kept = isinstance(template, Template)
        self.template = template if kept else make_template(self.tokenizer, template)
        self.llm = load_frozen(folder, dtype, attention)
        refuse_unsupported(self, folder)
        inject_lora(self.llm, lora_rank, lora_alpha, lora_dropout, lora_targets)
        self.eval()
        if gradient_checkpointing:
            refuse_unless_right(self.llm, self.backbone)

    def train(self, mode: bool = True) -> "CausalLM":
        """Only LoRA follows `mode`. The frozen LLM stays in eval mode, without dropout."""
        super().train(False)
        for dropout in self.dropouts():
            dropout.train(mode)
        return self

    def dropouts(self) -> list[nn.Dropout]:
        """Those of LoRA."""
        found = [d for layer in lora_layers(self.llm) for d in layer.lora_dropout.values()]
        return [dropout for dropout in found if isinstance(dropout, nn.Dropout)]

    @property
    def backbone(self) -> nn.Module:
        """The decoder without its LM head."""
        return getattr(self.llm, backbone_name(self.llm))

    def run_backbone(self, **inputs: Any) -> ModelOutput:
        with recomputing(self.backbone) if self.recompute else nullcontext():
            return self.backbone(**inputs)

    @property
    def width(self) -> int:
        """D, the width of the embeddings and of the states."""
        return self.embeddings.shape[1]

    @property
    def embeddings(self) -> Float[Tensor, "V D"]:
        """The matrix of the frozen token embeddings, before any scaling by `embed`."""
        return self.llm.get_input_embeddings().weight

    @torch.no_grad()
    def embedding_norm(self) -> float:
        """Mean norm of the input embeddings over all tokens."""
        ids = torch.arange(len(self.embeddings), device=self.embeddings.device)
        norms = [self.embed(some).float().norm(dim=-1) for some in ids.split(NORM_ROWS)]
        return torch.cat(norms).mean().item()

    @property
    def eos(self) -> int:
        """The token that ends an answer."""
        return self.template.end

    @property
    def space(self) -> int:
        """The token of a single space."""
        return self.text_ids(" ")[-1]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a prompt and of its opening (BOS, or the head of the user's turn)."""
        return [*self.template.opening, *self.text_ids(prompt)]

    def prompt_batch(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "U P"], Int[Tensor, " U"]]:
        """Tokens of prompts, padded on the right, and the real length of each."""
        ids = [torch.tensor(self.prompt_ids(prompt)) for prompt in prompts]
        return pad_sequence(ids, batch_first=True), torch.tensor([len(x) for x in ids])

    def answer_ids(self, text: str) -> list[int]:
        """Tokens of an answer, without the end token."""
        return self.text_ids(self.template.joint + text)

    def embed(self, ids: Int[Tensor, "*B T"]) -> Float[Tensor, "*B T D"]:
        """The output of the LLM's embedding layer (Gemma's multiplies by √D)."""
        return self.llm.get_input_embeddings()(ids)

    def turn(
        self, features: Float[Tensor, "B U D"], frames: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B V D"], Int[Tensor, " B"]]:
        """The embeddings after a prompt: each row's audio, then the tokens that close the turn.

        They are padded on the right; the second value is the real length of each row.
        """
        if not self.template.closing:
            return features, frames
        closing = torch.tensor(self.template.closing, device=features.device)
        rows = torch.arange(len(features), device=features.device)[:, None]
        places = frames[:, None] + torch.arange(len(closing), device=features.device)
        out = F.pad(features, (0, 0, 0, len(closing)))
        out[rows, places] = self.embed(closing).to(out.dtype)
        return out, frames + len(closing)

    def read_prompts(self, ids: Int[Tensor, "U P"], lengths: Int[Tensor, " U"]) -> PromptStates:
        """One pass over distinct prompts, which are padded on the right with any token."""
        if self.lora_on_prompt:
            return self.pass_over_prompts(ids, lengths)
        with torch.no_grad(), without_lora(self.llm):
            return self.pass_over_prompts(ids, lengths)

    def pass_over_prompts(
        self, ids: Int[Tensor, "U P"], lengths: Int[Tensor, " U"]
    ) -> PromptStates:
        mask, cache = padding_mask(lengths, ids.shape[1]), DynamicCache()
        out = self.run_backbone(
            inputs_embeds=self.embed(ids),
            attention_mask=mask.long(),
            past_key_values=cache,
            use_cache=True,
        )
        pooled = self.pool(out.last_hidden_state, mask)
        mask, layers = pad_left(cache, mask), cache.layers
        return PromptStates(pooled, [x.keys for x in layers], [x.values for x in layers], mask)

    def pool(
        self, hidden: Float[Tensor, "U P D"], mask: Bool[Tensor, "U P"]
    ) -> Float[Tensor, "U D"]:
        """h_prompt of each prompt, from its states; padding is on one side."""
        return pool_prompts(hidden, mask, self.h_prompt, len(self.template.opening))

    def read_training_prompts(
        self, ids: Int[Tensor, "U P"], lengths: Int[Tensor, " U"]
    ) -> PromptStates:
        """As `read_prompts`, but faster where LoRA leaves the prompt alone and the LLM is `fast`.

        Short and long prompts are read apart, since half of a mixed batch would be padding.
        """
        if not self.reads_prompts_apart():
            return self.read_prompts(ids, lengths)
        order, parts = lengths.argsort(stable=True), []
        with torch.no_grad(), without_lora(self.llm):
            for rows in order.split(cheapest_split(lengths[order].tolist())):
                longest = int(lengths[rows].max())
                shift = torch.arange(longest, device=ids.device) - (longest - lengths[rows, None])
                some = ids[rows].gather(1, shift % longest)  # padding on the left
                hidden, past = self.fast.prompts(self.embed(some), shift >= 0)
                keys, values = zip(*past, strict=True)
                pooled = self.pool(hidden, shift >= 0)
                parts.append(PromptStates(pooled, list(keys), list(values), shift >= 0))
        return stack_prompts(parts).select(order.argsort())

    def reads_prompts_apart(self) -> bool:
        """Whether `read_training_prompts` reads prompts in the parts of `cheapest_split`."""
        return not self.lora_on_prompt and self.can_be_fast()

    @cached_property
    def fast(self) -> FastLayers | None:
        """The layers for training, if there are such; decoding never asks for them."""
        if self.attention != "eager":
            return None
        learns = any(layer.training for layer in self.dropouts())
        self.train(False)  # dropout would make the probe differ
        fast = FastLayers.of(self.llm, self.backbone, self.recompute)
        self.train(learns)
        return fast

    def can_be_fast(self) -> bool:
        """Whether `fast` can be used: on a CPU, in the type that autocast would compute in.

        It reads weights directly, so those of sharded layers must not be gathered first.
        """
        if self.sharded:
            return False
        autocast = torch.is_autocast_enabled("cpu")
        same_type = not autocast or torch.get_autocast_dtype("cpu") == self.embeddings.dtype
        return self.embeddings.device.type == "cpu" and same_type and self.fast is not None

    def read(
        self,
        embeds: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B all"],
        positions: Int[Tensor, "B T"],
        cache: DynamicCache,
    ) -> Float[Tensor, "B T D"]:
        """Last-layer states of new positions after those in `cache`, to which they are added.

        `mask` covers the cache and the new positions. `positions` count real tokens only.
        """
        out = self.run_backbone(
            inputs_embeds=embeds.to(self.embeddings.dtype),
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state

    def read_answers(
        self,
        prompt: PromptStates,
        embeds: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B all"],
        positions: Int[Tensor, "B T"],
    ) -> Float[Tensor, "B T D"]:
        """As `read`, after prompts whose cache no later pass needs: in training."""
        if not self.can_be_fast():
            return self.read(embeds, mask, positions, prompt.cache())
        return self.fast(embeds.to(self.embeddings.dtype), mask, positions, prompt)

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """The LLM's own logits (with its scaling or capping) for the given states only."""
        return logits_of(self.llm, hidden)


def cheapest_split(lengths: Sequence[int]) -> list[int]:
    """Where to cut sorted lengths in two so that least is padding; [all] if a cut saves nothing."""
    count, longest = len(lengths), lengths[-1]
    cut = min(range(count, 0, -1), key=lambda n: n * lengths[n - 1] + (count - n) * longest)
    return [cut, count - cut] if cut < count else [count]
