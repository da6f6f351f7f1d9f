"""A frozen causal LLM with LoRA that reads a prompt once (equations 1 and 7).

The prompt comes before the audio, so its states do not depend on the audio: one pass over each
distinct prompt gives h_prompt for the router and the KV cache for all that follows.
"""

# B batch, U distinct prompts or features after fusion, P prompt tokens, T positions after the
# prompt, D width of the LLM, V positions of audio and closing, or the vocabulary

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from pam.encoders.padding import padding_mask
from pam.errors import UserError
from pam.llm.template import make_template, token_ids
from pam.paths import resolve_model
from pam.table import nearest

H_PROMPTS = ("last", "mean")
ALL_LINEAR = "all-linear"  # PEFT's name


@dataclass
class PromptStates:
    """What a pass over prompts leaves: everything that follows needs only this.

    Attributes:
        pooled: h_prompt [U, D], float32.
        keys, values: per layer [U, heads, P, head width].
        mask: [U, P], True = a real token (prompts are padded on the right).
    """

    pooled: Float[Tensor, "U D"]
    keys: list[Tensor]
    values: list[Tensor]
    mask: Bool[Tensor, "U P"]

    def select(self, index: Int[Tensor, " B"]) -> "PromptStates":
        """The states of the prompts that the rows of a batch use."""
        return PromptStates(
            self.pooled[index],
            [key[index] for key in self.keys],
            [value[index] for value in self.values],
            self.mask[index],
        )

    def cache(self) -> DynamicCache:
        """A KV cache that begins with the prompt."""
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(self.keys, self.values, strict=True)):
            cache.update(key, value, layer)
        return cache


class CausalLM(nn.Module):
    """The LLM with LoRA; only LoRA's matrices are trainable (float32, whatever the LLM's type).

    Args:
        path: folder, hub name or `cache:NAME`.
        dtype: type of the frozen weights.
        lora_rank, lora_alpha, lora_dropout, lora_targets: LoRA (A.6: 32, 64, q_proj and k_proj);
            rank 0 leaves the LLM as it is; the target "all-linear" is every linear layer but the
            LM head.
        attention: transformers' implementation ("sdpa", "eager", "flash_attention_2", …); on CPUs
            "eager" trains faster on short sequences.
        h_prompt: "last" token of the prompt (equation 7), or the "mean" over its tokens.
        lora_on_prompt: whether LoRA acts on the prompt too. Where not, the prompt's states are
            those of the pretrained LLM for good: few training prompts cannot bend them.
        template: what stands around prompt, audio and answer (`pam.llm.template`): "plain", or the
            tokenizer's own "chat" template.
    """

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
        template: str = "plain",
    ):
        super().__init__()
        if h_prompt not in H_PROMPTS:
            raise UserError(f"llm_conf.h_prompt: {h_prompt!r} is not one of {', '.join(H_PROMPTS)}")
        self.h_prompt, self.lora_on_prompt = h_prompt, lora_on_prompt
        folder = resolve_model(path)
        self.tokenizer = load_tokenizer(folder)
        self.template = make_template(self.tokenizer, template)
        self.llm = load_frozen(folder, dtype, attention)
        self.dropout = lora_dropout > 0
        inject_lora(self.llm, lora_rank, lora_alpha, lora_dropout, lora_targets)
        self.eval()

    def train(self, mode: bool = True) -> "CausalLM":
        """The frozen LLM stays in eval; only LoRA's dropout, where there is any, follows `mode`."""
        super().train(mode and self.dropout)
        return self

    @property
    def backbone(self) -> nn.Module:
        """The decoder without its LM head."""
        return getattr(self.llm, self.llm.base_model_prefix)

    @property
    def width(self) -> int:
        return self.llm.config.hidden_size

    @property
    def embeddings(self) -> Float[Tensor, "V D"]:
        """The frozen token embeddings."""
        return self.llm.get_input_embeddings().weight

    @property
    def eos(self) -> int:
        """The token that ends an answer."""
        return self.template.end

    @property
    def space(self) -> int:
        """The token of a space by itself."""
        return token_ids(self.tokenizer, " ")[-1]

    def prompt_ids(self, prompt: str) -> list[int]:
        """Tokens of a prompt, with what stands before it (BOS, or the head of the user's turn)."""
        return [*self.template.opening, *token_ids(self.tokenizer, prompt)]

    def prompt_batch(self, prompts: Sequence[str]) -> tuple[Int[Tensor, "U P"], Int[Tensor, " U"]]:
        """Tokens of prompts, padded on the right, and how many are real."""
        ids = [torch.tensor(self.prompt_ids(prompt)) for prompt in prompts]
        return pad_sequence(ids, batch_first=True), torch.tensor([len(x) for x in ids])

    def answer_ids(self, text: str) -> list[int]:
        """Tokens of an answer, without its end."""
        return token_ids(self.tokenizer, self.template.joint + text)

    def embed(self, ids: Int[Tensor, "*B T"]) -> Float[Tensor, "*B T D"]:
        return self.llm.get_input_embeddings()(ids)

    def turn(
        self, features: Float[Tensor, "B U D"], frames: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B V D"], Int[Tensor, " B"]]:
        """What follows a prompt: each row's audio, then the tokens that close the user's turn.

        Returns it padded on the right, and the real length of each row.
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
        """One pass over distinct prompts, padded on the right with any token."""
        if self.lora_on_prompt:
            return self.pass_over_prompts(ids, lengths)
        with torch.no_grad(), without_lora(self.llm):
            return self.pass_over_prompts(ids, lengths)

    def pass_over_prompts(
        self, ids: Int[Tensor, "U P"], lengths: Int[Tensor, " U"]
    ) -> PromptStates:
        mask = padding_mask(lengths, ids.shape[1])
        out = self.backbone(
            inputs_embeds=self.embed(ids),
            attention_mask=mask.long(),
            past_key_values=DynamicCache(),
            use_cache=True,
        )
        hidden = out.last_hidden_state.float()
        if self.h_prompt == "mean":
            # Not the opening: it is the same for all, and a BOS' state is far larger than others.
            skip = len(self.template.opening)
            own = hidden.masked_fill(~mask[..., None], 0)[:, skip:]
            pooled = own.sum(1) / (lengths - skip)[:, None]
        else:
            pooled = hidden[torch.arange(len(ids), device=ids.device), lengths - 1]
        layers = out.past_key_values.layers
        return PromptStates(pooled, [x.keys for x in layers], [x.values for x in layers], mask)

    def read(
        self,
        embeds: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B all"],
        positions: Int[Tensor, "B T"],
        cache: DynamicCache,
    ) -> Float[Tensor, "B T D"]:
        """Last-layer states of positions that follow what is in `cache` (which grows by them).

        `mask` covers the cache and the new positions; `positions` count real tokens only.
        """
        out = self.backbone(
            inputs_embeds=embeds.to(self.embeddings.dtype),
            attention_mask=mask.long(),
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        )
        return out.last_hidden_state

    def logits(self, hidden: Float[Tensor, "*B D"]) -> Float[Tensor, "*B V"]:
        """The LM head, for just the positions that need it."""
        return self.llm.lm_head(hidden).float()


def load_tokenizer(folder: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise not_loaded(folder, error) from error


def llm_width(path: str) -> int:
    """D of the LLM at `path`, without its weights."""
    folder = resolve_model(path)
    try:
        return AutoConfig.from_pretrained(folder).hidden_size
    except (OSError, ValueError) as error:
        raise not_loaded(folder, error) from error


def load_frozen(folder: str, dtype: str, attention: str) -> PreTrainedModel:
    """The pretrained LLM without gradients; weights that are missing from it are an error."""
    try:
        llm, info = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch_type(dtype),
            attn_implementation=attention,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, SafetensorError) as error:
        raise not_loaded(folder, error) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(f"{folder}: {len(missing)} weights of the LLM are missing: {missing[0]} …")
    return llm.requires_grad_(False)


@contextmanager
def without_lora(llm: nn.Module) -> Iterator[None]:
    """The pretrained LLM while the context lasts."""
    layers = [module for module in llm.modules() if isinstance(module, BaseTunerLayer)]
    trained = [(p, p.requires_grad) for layer in layers for p in layer.parameters()]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        for parameter, flag in trained:  # PEFT would train all that it enables
            parameter.requires_grad_(flag)


def not_loaded(folder: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"llm_conf.path: {folder!r} cannot be loaded as an LLM: {reason}")


def torch_type(name: str) -> torch.dtype:
    """The type called `name`, as in "bfloat16"."""
    if not isinstance(getattr(torch, name, None), torch.dtype):
        raise UserError(f"llm_conf.dtype: {name!r} is not a type of torch")
    return getattr(torch, name)


def refuse_unknown_targets(llm: nn.Module, names: Sequence[str]) -> None:
    """PEFT asks only that some target exists: a misspelt one of several would go unnoticed."""
    linear = [key for key, module in llm.named_modules() if isinstance(module, nn.Linear)]
    for name in names:
        if name != ALL_LINEAR and not any(f".{key}".endswith(f".{name}") for key in linear):
            known = {ALL_LINEAR, *(key.rpartition(".")[2] for key in linear)}
            raise UserError(f"llm_conf.lora_targets: {name!r}: {nearest(name, known)}")


def inject_lora(
    llm: nn.Module, rank: int, alpha: int, dropout: float, targets: Sequence[str] | str
) -> None:
    """Add LoRA in place, its matrices in float32 and trainable; rank 0 adds nothing."""
    if not rank:
        return
    names = [targets] if isinstance(targets, str) else list(targets)
    refuse_unknown_targets(llm, names)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=ALL_LINEAR if names == [ALL_LINEAR] else names,
    )
    try:
        inject_adapter_in_model(config, llm)
    except ValueError as error:
        raise UserError(f"llm_conf.lora_targets: {error}") from error
    for name, parameter in llm.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()
