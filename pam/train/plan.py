r"""Predict memory, disk and FLOPs of a training run from its configuration alone.

Memory of the tensors of one process, with P parameters, b bytes each:

- weights: the frozen LLM in its own type; the encoders in float32, if they run during training; the
  trained weights in float32, plus the bfloat16 copy of autocast: P (4 + 2);
- gradients (4 P) and AdamW's two moments (8 P) of the trained weights. Each of several GPUs holds
  everything, and 4 P more for the buckets of exchanged gradients;
- activations that the backward pass needs. A layer of the LLM keeps, per token, with its width D,
  the width F of its MLP, H heads of width d, the ranks r of LoRA's targets, and their inputs I, of
  which targets like q, k and v share one:

  .. math::
      \underbrace{2 \cdot 4 D}_{\text{RMSNorm, float32}} +
      \underbrace{4 b H d}_{q, k, v, \text{out}} + \underbrace{3 b F}_{\text{MLP}} +
      \underbrace{\textstyle\sum b I + \sum b r}_{\text{LoRA}}

  Frozen linear layers keep nothing. "eager" attention also keeps (4 + b) H bytes for each attended
  token, since its softmax is in float32. The pass over the prompts has gradients too;
- the LM head: logits, log-probabilities and gradients in float32, 12 V for every answer token;
- the fusion: counted by running it once, on states of a second or two;
- the encoders' states twice: as they are read, and with zeros in the padding.

Batches are the largest that the configuration allows. The numbers of tokens in a second of speech
and in a prompt are assumed (`TOKENS_PER_SECOND`, `TOKENS_PER_WORD`), so no tokenizer is needed.
"""

# B rows of a batch, T frames at 25 a second, S states, C width of an encoder, D width of the LLM,
# U features after fusion, V vocabulary

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pam.config.schema import ENCODERS
from pam.config.source import options_of, registered
from pam.data.audio import FRAMES_PER_SECOND
from pam.data.prompts import prompts_of
from pam.fusion.probe import run_once
from pam.llm.causal_lm import CausalLM
from pam.llm.load import torch_type
from pam.model.architecture import count, encoder_flops
from pam.model.sizes import Sizes, llm_with_lora, mixture_on_meta, sizes
from pam.train.iterators import limits

TOKENS_PER_SECOND = 4  # fast English speech, 180 words a minute
TOKENS_PER_WORD = 1.35
OPENING_TOKENS = {"plain": 1, "chat": 40}
CLOSING_TOKENS = {"plain": 0, "chat": 6}
ONE_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
BYTES_OF_A_DUMPED_VALUE = 2  # float16
PROBE_FRAMES = (24, 72)  # multiples of all stack sizes, strides and windows of fusions


@dataclass(frozen=True)
class Batch:
    """The largest batch of one process.

    `frames` and `answer` (tokens) are per row; `prompts` have `prompt` tokens each.
    """

    rows: int
    frames: int
    answer: int
    prompts: int
    prompt: int
    closing: int

    @property
    def seconds(self) -> float:
        return self.rows * self.frames / FRAMES_PER_SECOND


@dataclass(frozen=True)
class Fused:
    """What the fusion does to a frame: features, bytes that it keeps, FLOPs of a forward pass."""

    features: float
    kept: float
    flops: float


def llm_option(config: Mapping[str, Any], key: str) -> Any:
    return config["llm_conf"].get(key, inspect.signature(CausalLM).parameters[key].default)


def uses_bf16(config: Mapping[str, Any]) -> bool:
    return (config.get("model_conf") or {}).get("bf16", True)


def largest_batch(config: Mapping[str, Any], gpus: int) -> Batch:
    """Of one process: the rows of a batch are dealt to the GPUs. Its prompts are those of a system
    with a router."""
    rows, frames = limits(config, max(gpus, 1)).values()
    mine = math.ceil(rows / max(gpus, 1))
    longest = frames // rows
    words = [len(text.split()) for task in prompts_of(config).values() for text in task.train]
    template = llm_option(config, "template")
    return Batch(
        rows=mine,
        frames=longest,
        answer=math.ceil(TOKENS_PER_SECOND * longest / FRAMES_PER_SECOND) + 1,
        prompts=min(config["prompts_per_batch"] or mine, mine) * config["router_prompts"],
        prompt=OPENING_TOKENS[template] + round(TOKENS_PER_WORD * max(words)),
        closing=CLOSING_TOKENS[template],
    )


# --- the LLM


def layer_bytes(llm: nn.Module, bf16: bool) -> float:
    """Bytes of activations that one layer keeps per token, without attention weights."""
    config = llm.config
    weight = llm.get_input_embeddings().weight.element_size()
    computed = 2 if bf16 else weight
    heads = config.num_attention_heads * head_width(config)
    lora = {n: m for n, m in layer_of(llm).named_modules() if hasattr(m, "lora_A")}
    inputs = {input_of(name): module.in_features for name, module in lora.items()}
    kept = sum(inputs.values()) + sum(rank_of(module) for module in lora.values())
    norms = 2 * 4 * config.hidden_size
    return norms + computed * (4 * heads + 3 * config.intermediate_size + kept)


def input_of(name: str) -> str:
    """What a layer reads: layers with one input keep it once (`pam.llm.lora_linear`)."""
    parent, _, layer = name.rpartition(".")
    return f"{parent} {next((group for group in ONE_INPUT if layer in group), layer)}"


def layer_of(llm: nn.Module) -> nn.Module:
    return getattr(llm, llm.base_model_prefix).layers[0]


def rank_of(module: nn.Module) -> int:
    return next(iter(module.lora_A.values())).out_features


def head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def llm_bytes(llm: nn.Module, config: Mapping[str, Any], batch: Batch, features: float) -> float:
    """Bytes of activations of both passes: over the prompts, and over audio, closing and answer."""
    bf16, layers = uses_bf16(config), llm.config.num_hidden_layers
    row = batch.frames * features + batch.closing + batch.answer
    # Where LoRA leaves the prompt alone, nothing of its pass is kept.
    learns = config["llm_conf"].get("lora_on_prompt", True)
    prompts, rest = learns * batch.prompts * batch.prompt, batch.rows * row
    per_token = layer_bytes(llm, bf16) * layers
    total = per_token * (prompts + rest)
    if llm_option(config, "attention") == "eager":
        seen = prompts * batch.prompt + rest * (batch.prompt + row)
        total += layers * llm.config.num_attention_heads * (4 + (2 if bf16 else 4)) * seen
    return total


def llm_flops(llm: nn.Module, tokens: float, context: float, answers: float) -> float:
    """FLOPs of a forward pass: 2 per weight and token, attention over `context`, the LM head."""
    config = llm.config
    head = config.vocab_size * config.hidden_size
    weights = count(getattr(llm, llm.base_model_prefix)) - head  # its embeddings are looked up
    attention = 4 * config.num_attention_heads * head_width(config) * context
    return tokens * (2 * weights + config.num_hidden_layers * attention) + 2 * head * answers


# --- the fusion


def probe_fusion(config: Mapping[str, Any], width: int) -> Fused:
    """Run the fusion on silence of two lengths; the difference gives the cost of a frame."""
    fusion, _ = mixture_on_meta(config, width)
    fusion = fusion.to_empty(device="cpu").train()  # values do not matter
    short, long = (run_fusion(fusion, config, frames) for frames in PROBE_FRAMES)
    step = PROBE_FRAMES[1] - PROBE_FRAMES[0]
    return Fused(*((after - before) / step for before, after in zip(short, long, strict=True)))


def run_fusion(fusion: nn.Module, config: Mapping[str, Any], frames: int) -> list[float]:
    """Features, bytes kept and FLOPs of one clip of `frames`."""
    states = [
        torch.zeros(1, spec["num_states"], frames, spec["dim"])
        for spec in config["encoders"].values()
    ]
    inputs = {state.untyped_storage().data_ptr() for state in states}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in inputs:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=uses_bf16(config))
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as counter, autocast, hooks:
        features = run_once(fusion, states, len(config["tasks"]))
    return [features.shape[1], sum(kept.values()), counter.get_total_flops()]


# --- all of it


@dataclass(frozen=True)
class Plan:
    """Memory in bytes by purpose, disk in bytes per hour of audio, FLOPs per second of audio."""

    sizes: Sizes
    batch: Batch
    memory: dict[str, float]
    dump_bytes_an_hour: float
    flops: dict[str, float]

    @property
    def peak(self) -> float:
        return sum(self.memory.values())


def make_plan(config: Mapping[str, Any], gpus: int) -> Plan:
    """The plan of an effective configuration on `gpus` GPUs, 0 for a CPU."""
    llm, _ = llm_with_lora(config["llm_conf"])
    llm.to(torch_type(llm_option(config, "dtype")))
    fused = probe_fusion(config, llm.config.hidden_size)
    batch, counted = largest_batch(config, gpus), sizes(config)
    values = values_of_a_frame(config)
    return Plan(
        counted,
        batch,
        memory(config, counted, llm, fused, batch, values, gpus),
        dump_bytes_an_hour=values * FRAMES_PER_SECOND * 3600 * BYTES_OF_A_DUMPED_VALUE,
        flops=flops(config, llm, fused, batch),
    )


def values_of_a_frame(config: Mapping[str, Any]) -> int:
    """Number of values in all encoders' states per frame at 25 Hz."""
    return sum(spec["num_states"] * spec["dim"] for spec in config["encoders"].values())


def memory(
    config: Mapping[str, Any],
    counted: Sizes,
    llm: nn.Module,
    fused: Fused,
    batch: Batch,
    values: float,
    gpus: int,
) -> dict[str, float]:
    online = config["feats"] == "online"
    frames = batch.rows * batch.frames
    trained = counted.trainable
    vocabulary = llm.config.vocab_size
    frozen = counted.llm * llm.get_input_embeddings().weight.element_size()
    return {
        "LLM": frozen,
        "encoders": 4 * sum(counted.encoders.values()) if online else 0,
        "trained weights": trained * (4 + (2 if uses_bf16(config) else 0)),
        "gradients": trained * (8 if gpus > 1 else 4),
        "optimizer": trained * 8,
        "LLM activations": llm_bytes(llm, config, batch, fused.features),
        "LM head": 12 * vocabulary * batch.rows * batch.answer,
        "fusion activations": fused.kept * frames,
        "encoder states": frames * values * 2 * 4,
    }


def flops(
    config: Mapping[str, Any], llm: nn.Module, fused: Fused, batch: Batch
) -> dict[str, float]:
    """FLOPs per second of audio, for clips as long as those of the largest batch.

    Training adds a backward pass: through the frozen LLM it costs what the forward pass does (no
    gradients of weights), in the fusion twice that. Encoders have none.
    """
    seconds = batch.frames / FRAMES_PER_SECOND
    encoders = 0.0
    for spec in config["encoders"].values():
        stretch, length = encoder_flops(spec["path"])
        options = options_of(registered(ENCODERS)[spec["family"]])
        padded = "pad_to_30s" in options and (spec.get("conf") or {}).get("pad_to_30s", True)
        encoded = math.ceil(seconds / length) * length if padded else seconds
        encoders += stretch / length * encoded / seconds
    row = batch.frames * fused.features + batch.closing + batch.answer
    tokens = row / seconds
    read = llm_flops(llm, tokens, batch.prompt + row / 2, batch.answer / seconds)
    fusion = fused.flops * FRAMES_PER_SECOND
    return {
        "encoders": encoders,
        "fusion": fusion,
        "LLM": read,
        "training": (encoders if config["feats"] == "online" else 0) + 3 * fusion + 2 * read,
    }
