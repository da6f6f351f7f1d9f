"""PaM for transformers: the prompt, then the audio that its expert fuses, then the answer.

The first pass of `generate` reads the tokens before the audio, takes h_prompt from them (equation
7), routes (equations 8 and 9), fuses the audio with the chosen expert, and reads the rest after the
prompt's KV cache. All further passes are those of the LLM.
"""

# B batch, N samples, T tokens of prompt, audio and closing, P prompt tokens, U features,
# F features of all rows, R routed experts, D width of the LLM, V vocabulary

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import snapshot_download
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    Cache,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.utils import SAFE_WEIGHTS_NAME, cached_file

from pam.encoders import load_encoder
from pam.encoders.padding import padding_mask
from pam.errors import PamError
from pam.fusion.router import Router
from pam.hf.audio_encoder import PaMAudioEncoder
from pam.hf.configuration_pam import PaMConfig
from pam.llm.head import backbone_name, logits_of
from pam.llm.prompts import pad_left, pool_prompts
from pam.registry import Registry

# A model whose LoRA is merged does without PEFT.
LORA = Registry(
    "adapter",
    {
        "lora": "pam.hf.prompt_lora:PromptLora",
    },
)
HUB = ("cache_dir", "force_download", "local_files_only", "proxies", "revision", "subfolder")
HUB += ("token",)
# Files of other models: those that transformers reads, and no second copy of the weights, such as
# model.fp32-00001-of-00002.safetensors.
SAFE = ["model.safetensors", "model-*.safetensors", "model.safetensors-*.safetensors"]
OLD = ["pytorch_model.bin", "pytorch_model-*.bin"]
OTHERS = ["*.json", "*.model", "*.txt"]


@dataclass
class PaMOutput(CausalLMOutputWithPast):
    """As of an LLM; `router_logits` [B, R] of a pass that reads audio."""

    router_logits: Tensor | None = None


class PaMForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Answers a prompt about audio. `PaMProcessor` makes its inputs.

    `audio_encoder` has the encoders and the fusion, `language_model` is the LLM of transformers.
    """

    config: PaMConfig
    config_class = PaMConfig
    main_input_name = "input_ids"
    input_modalities = ("audio", "text")
    _supports_sdpa = True
    _supports_flash_attn = True
    _no_split_modules = ["PaMAudioEncoder", "Router"]

    def __init__(self, config: PaMConfig):
        super().__init__(config)
        self.audio_encoder = PaMAudioEncoder(config)
        routed = self.audio_encoder.fusion.needs_gate
        router = Router(config.width, len(config.experts), **config.router_conf) if routed else None
        self.router = router and router.float()
        self.language_model = AutoModelForCausalLM.from_config(config.text_config)
        self.lora = LORA.get("lora")(self.language_model, **config.lora) if config.lora else None
        self.post_init()

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike,
        *args: Any,
        config: PaMConfig | None = None,
        **kwargs: Any,
    ) -> "PaMForConditionalGeneration":
        """The model of an exported folder or repository.

        Pretrained weights that it does not bundle are read from their own hub, at the revision that
        the model was trained with. `PamError` if a weight is missing (none is left at random), or
        if `device_map` puts weights on several devices or offloads them.
        """
        where, hub = pretrained_model_name_or_path, {k: kwargs[k] for k in HUB if k in kwargs}
        config = config or cls.config_class.from_pretrained(where, **hub)
        wanted = kwargs.pop("output_loading_info", False)
        options = {"config": config, "output_loading_info": True, **kwargs}
        if config.bundled:
            model, info = super().from_pretrained(where, *args, **options)
        else:
            own = load_file(cached_file(where, SAFE_WEIGHTS_NAME, **hub))
            options = {k: v for k, v in options.items() if k not in HUB}
            options["state_dict"] = frozen_weights(config, hub) | own
            model, info = super().from_pretrained(None, *args, **options)
            model.generation_config = GenerationConfig.from_pretrained(where, **hub)
        if info["missing_keys"]:
            raise PamError(
                f"{where}: the weights lack {min(info['missing_keys'])}: export it again"
            )
        refuse_several_devices(model)
        if model.lora:
            model.lora.loaded()
        return (model, info) if wanted else model

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module | None:
        return self.language_model.get_output_embeddings()

    def get_decoder(self) -> nn.Module:
        """The LLM without its head."""
        return getattr(self.language_model, backbone_name(self.language_model))

    def autocast(self) -> AbstractContextManager:
        kind = self.get_input_embeddings().weight.device.type
        return torch.autocast(kind, torch.bfloat16, enabled=self.config.bf16)

    def embed(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Embeddings of tokens; those of ids that the LLM does not have are of no use."""
        layer = self.get_input_embeddings()
        return layer(ids.masked_fill(ids >= len(layer.weight), self.config.end))

    def forward(
        self,
        input_ids: Int[Tensor, "B T"] | None = None,
        input_values: Float[Tensor, "B N"] | None = None,
        input_values_mask: Int[Tensor, "B N"] | None = None,
        attention_mask: Int[Tensor, "B all"] | None = None,
        position_ids: Int[Tensor, "B T"] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Float[Tensor, "B T D"] | None = None,
        labels: Int[Tensor, "B T"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        experts: Int[Tensor, " B"] | None = None,
        **unused: Any,
    ) -> PaMOutput:
        """Logits of the next tokens.

        With `input_values` (16 kHz, in ±1), `input_ids` has one audio token for each feature.
        `experts`: use these experts instead of the router's choice.
        """
        router_logits = None
        with self.autocast():
            if input_values is None:
                embeds = self.embed(input_ids) if inputs_embeds is None else inputs_embeds
                out = self.get_decoder()(
                    inputs_embeds=embeds,
                    attention_mask=attention_mask,
                    position_ids=position_ids,
                    past_key_values=past_key_values,
                    use_cache=use_cache,
                )
                hidden, past_key_values = out.last_hidden_state, out.past_key_values
            else:
                if past_key_values is None and use_cache is not False:
                    past_key_values = DynamicCache(config=self.config.get_text_config())
                hidden, router_logits = self.read(
                    input_ids,
                    real_tokens(input_ids, attention_mask),
                    input_values,
                    input_values_mask,
                    past_key_values,
                    experts,
                )
            keep = (
                slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
            )
            logits = self.logits(hidden[:, keep])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        return PaMOutput(
            loss=loss, logits=logits, past_key_values=past_key_values, router_logits=router_logits
        )

    def logits(self, hidden: Float[Tensor, "B T D"]) -> Float[Tensor, "B T V"]:
        """The LLM's logits, with -inf for ids up to that of the audio, which it may not have."""
        logits = logits_of(self.language_model, hidden)
        lacking = max(0, self.config.audio_token_id + 1 - logits.shape[-1])
        return F.pad(logits, (0, lacking), value=-torch.inf)

    def read(
        self,
        ids: Int[Tensor, "B T"],
        real: Bool[Tensor, "B T"],
        audio: Float[Tensor, "B N"],
        audio_mask: Int[Tensor, "B N"] | None,
        cache: Cache | None,
        experts: Int[Tensor, " B"] | None,
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B R"] | None]:
        """States of prompt, audio and closing, and the router's logits; fills an empty `cache`."""
        if cache is not None and cache.get_seq_length():
            raise PamError("audio must come in the first pass: call generate for each recording")
        before, own = self.before_audio(ids, real), DynamicCache()
        prompt, mask = self.read_prompts(ids, before, own)
        router_logits, gate = self.choose(prompt, mask, experts)
        rest, rest_mask = compact(self.with_audio(ids, audio, audio_mask, gate), real & ~before)
        mask = pad_left(own, mask)
        positions = mask.sum(1, keepdim=True) + torch.arange(rest.shape[1], device=ids.device)
        hidden = self.run(rest, torch.cat([mask, rest_mask], dim=1), own, position_ids=positions)
        number, later = before.cumsum(1) - 1, prompt.shape[1] + (real & ~before).cumsum(1) - 1
        place = torch.where(before, number, later).clamp(min=0)
        if cache is not None:
            padding = prompt.shape[1] - before.sum(1, keepdim=True)  # in `own`, it is on the left
            fill(cache, own, torch.where(before, number + padding, later).clamp(min=0))
        hidden = torch.cat([prompt, hidden], dim=1)
        return hidden.take_along_dim(place[..., None], dim=1), router_logits

    def run(
        self, embeds: Float[Tensor, "B T D"], mask: Bool[Tensor, "B all"], cache: Cache, **positions
    ) -> Float[Tensor, "B T D"]:
        """Last states of the LLM at new positions after those in `cache`."""
        embeds = embeds.to(self.get_input_embeddings().weight.dtype)
        return self.get_decoder()(
            inputs_embeds=embeds,
            attention_mask=mask.long(),
            past_key_values=cache,
            use_cache=True,
            **positions,
        ).last_hidden_state

    def before_audio(
        self, ids: Int[Tensor, "B T"], real: Bool[Tensor, "B T"]
    ) -> Bool[Tensor, "B T"]:
        """The tokens of the prompt. `PamError` for a row without a prompt or without audio."""
        is_audio = ids == self.config.audio_token_id
        before = real & (is_audio.cumsum(1) == 0)
        if not (before.any(1) & is_audio.any(1)).all():
            raise PamError("input_ids: each row needs a prompt and, after it, the audio's tokens")
        return before

    def read_prompts(
        self, ids: Int[Tensor, "B T"], before: Bool[Tensor, "B T"], cache: DynamicCache
    ) -> tuple[Float[Tensor, "B P D"], Bool[Tensor, "B P"]]:
        """One pass over the prompts, padded on the right: their states and mask; fills `cache`."""
        prompts, mask = compact(ids, before)
        with self.lora.off() if self.lora else nullcontext():
            return self.run(self.embed(prompts), mask, cache), mask

    def choose(
        self,
        prompt: Float[Tensor, "B P D"],
        mask: Bool[Tensor, "B P"],
        experts: Int[Tensor, " B"] | None,
    ) -> tuple[Float[Tensor, "B R"] | None, Float[Tensor, "B R"] | None]:
        """Router logits and gate (equations 7 to 9); None without a router.

        The gate of a fusion that reads the prompt itself is h_prompt.
        """
        reads_prompt = self.audio_encoder.fusion.reads_prompt
        if self.router is None and not reads_prompt:
            return None, None
        pooled = pool_prompts(prompt, mask, self.config.h_prompt, len(self.config.opening))
        if reads_prompt:
            return None, pooled
        logits = self.router(pooled)
        return logits, self.router.gate(logits, experts)

    def route(
        self,
        input_ids: Int[Tensor, "B T"],
        attention_mask: Int[Tensor, "B T"] | None = None,
        experts: Int[Tensor, " B"] | None = None,
    ) -> tuple[Float[Tensor, "B R"] | None, Float[Tensor, "B R"] | None]:
        """Router logits and gate for the prompts in `input_ids`; None without a router."""
        before = self.before_audio(input_ids, real_tokens(input_ids, attention_mask))
        with self.autocast():
            prompt, mask = self.read_prompts(input_ids, before, DynamicCache())
            return self.choose(prompt, mask, experts)

    def get_audio_features(
        self,
        input_values: Float[Tensor, "B N"],
        input_values_mask: Int[Tensor, "B N"] | None = None,
        gate: Float[Tensor, "B R"] | None = None,
        **unused: Any,
    ) -> BaseModelOutputWithPooling:
        """The fused features [B, U, D]; `pooler_output` [F, D] has the real ones of all rows.

        `gate` is that of `route`. `PamError` if the model routes by the prompt and there is none.
        """
        if gate is None and (self.router is not None or self.audio_encoder.fusion.reads_prompt):
            raise PamError(
                "get_audio_features: this model routes by the prompt: give a gate (route)"
            )
        mask = torch.ones_like(input_values) if input_values_mask is None else input_values_mask
        with self.autocast():
            lengths = mask.long().sum(1)
            features, counts = self.audio_encoder(input_values.float(), lengths, gate)
        real = features[padding_mask(counts, features.shape[1])]
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=real)

    def get_placeholder_mask(
        self,
        input_ids: Int[Tensor, "B T"],
        inputs_embeds: Float[Tensor, "B T D"],
        audio_features: Float[Tensor, "F D"],
    ) -> Bool[Tensor, "B T D"]:
        """The places of the audio. `PamError` if there are not as many as features."""
        places = input_ids == self.config.audio_token_id
        if int(places.sum()) != len(audio_features):
            raise PamError(
                f"input_ids: {int(places.sum())} audio tokens for {len(audio_features)} features: "
                "make input_ids and input_values with the model's processor"
            )
        return places[..., None].expand_as(inputs_embeds)

    def with_audio(
        self,
        ids: Int[Tensor, "B T"],
        audio: Float[Tensor, "B N"],
        audio_mask: Int[Tensor, "B N"] | None,
        gate: Float[Tensor, "B R"] | None,
    ) -> Float[Tensor, "B T D"]:
        """Embeddings of all tokens, with the features in the audio's places."""
        embeds = self.embed(ids)
        features = self.get_audio_features(audio, audio_mask, gate).pooler_output
        places = self.get_placeholder_mask(ids, embeds, features)
        return embeds.masked_scatter(places, features.to(embeds.dtype))

    @torch.no_grad()
    def embeds_prompts(
        self,
        input_ids: Int[Tensor, "B T"],
        input_values: Float[Tensor, "B N"],
        input_values_mask: Int[Tensor, "B N"] | None = None,
        attention_mask: Int[Tensor, "B T"] | None = None,
        experts: Int[Tensor, " B"] | None = None,
    ) -> list[dict[str, Any]]:
        """One input of vLLM (`EmbedsPrompt`) for each row, without padding.

        `prompt_embeds` [T, D] are on the CPU, in the LLM's type; `prompt_token_ids` has `end` in
        the audio's places. `PamError` if LoRA must not act on the prompt, which vLLM cannot do.
        """
        if self.lora is not None:
            raise PamError("embeds_prompts: LoRA is not merged (llm_conf.lora_on_prompt: false)")
        real = real_tokens(input_ids, attention_mask)
        _, gate = self.route(input_ids, attention_mask, experts)
        embeds = self.with_audio(input_ids, input_values, input_values_mask, gate).cpu()
        known = input_ids.masked_fill(input_ids == self.config.audio_token_id, self.config.end)
        return [
            {"prompt_embeds": row[kept.cpu()], "prompt_token_ids": ids[kept].tolist()}
            for row, ids, kept in zip(embeds, known, real, strict=True)
        ]


def real_tokens(ids: Int[Tensor, "B T"], mask: Int[Tensor, "B T"] | None) -> Bool[Tensor, "B T"]:
    return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()


def compact(x: Tensor, mask: Bool[Tensor, "B T"]) -> tuple[Tensor, Bool[Tensor, "B P"]]:
    """The entries of `x` [B, T, …] where `mask` is True, padded on the right, and their mask."""
    order = (~mask).long().argsort(dim=1, stable=True)[:, : int(mask.sum(1).max())]
    index = order.view(*order.shape, *[1] * (x.dim() - 2))
    return x.take_along_dim(index, dim=1), mask.gather(1, order)


def fill(cache: Cache, own: DynamicCache, order: Int[Tensor, "B T"]) -> None:
    """Write the keys and values of `own` to an empty cache, position by position as in `order`."""
    index = order[:, None, :, None]
    for number, layer in enumerate(own.layers):
        pair = (kept.take_along_dim(index, dim=2) for kept in (layer.keys, layer.values))
        cache.update(*pair, number)


def refuse_several_devices(model: PreTrainedModel) -> None:
    """`PamError` for a model with accelerate's hooks: they would run the whole LLM in its head."""
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1 or "meta" in devices:
        raise PamError(
            f"device_map: the weights are on {', '.join(sorted(devices))} (meta: offloaded), but "
            'this model runs on one device: give one, such as device_map="cuda:0" or "cpu"'
        )


def frozen_weights(config: PaMConfig, hub: dict[str, Any]) -> dict[str, Tensor]:
    """The pretrained weights of encoders and LLM, from their own files, by their names here."""
    own = ("revision", "subfolder")  # those of the export
    hub = {name: value for name, value in hub.items() if name not in own}
    state = {}
    for spec in config.encoders:
        wanted = {key: spec[key] for key in ("family", "conf", "dim", "num_states")}
        encoder = load_encoder({**wanted, "path": local_folder(spec, hub)})
        state |= with_prefix(
            f"audio_encoder.encoders.{spec['name']}.", encoder.state_dict().items()
        )
    llm = AutoModelForCausalLM.from_pretrained(local_folder(config.llm, hub), dtype=config.dtype)
    adapted = set(config.lora["targets"] if config.lora else ())
    for name, value in llm.state_dict().items():
        layer, _, kind = name.rpartition(".")
        inner = f"{layer}.base_layer" if layer in adapted else layer
        state[f"language_model.{inner}.{kind}"] = value
    return state


def with_prefix(prefix: str, items: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in items}


def local_folder(part: dict[str, Any], hub: dict[str, Any]) -> str:
    """The folder of a pretrained model, downloaded at its revision if need be.

    Pickled weights are downloaded only if there are no safetensors. `hub`: token, cache_dir, …
    """
    if Path(part["path"]).is_dir():
        return part["path"]
    options = {"revision": part["revision"], **hub}
    folder = snapshot_download(part["path"], allow_patterns=OTHERS + SAFE, **options)
    if any(Path(folder).glob("*.safetensors")):
        return folder
    return snapshot_download(part["path"], allow_patterns=OTHERS + OLD, **options)
