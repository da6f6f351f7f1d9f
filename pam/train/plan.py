r"""Predict memory, disk and FLOPs of a training run from its configuration alone.

Memory of the tensors of one process, with P parameters, b bytes each:

- weights: the frozen LLM in its own type, or its part (`llm_conf.shard`); the encoders, each in its
  own type, if they run during training; the trained weights in float32, plus the bfloat16 copy of
  autocast: P (4 + 2);
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
  token, since its softmax is in float32. The pass over the prompts has gradients too. With
  `llm_conf.gradient_checkpointing` one layer keeps all this, and the others their input, b D;
- the LM head: logits, log-probabilities and gradients in float32, 12 V for every answer token;
- the fusion: counted by running it once, on states of a second or two;
- the encoders' states twice: as they are read, and with zeros in the padding;
- with `prompt_bank`, keys and values of all its prompts, in all layers. Prompts of a bank count as
  long as the mean.

Batches are the largest that the configuration allows. The numbers of tokens in a second of speech
and in a prompt are assumed (`TOKENS_PER_SECOND`, `TOKENS_PER_WORD`), so no tokenizer is needed.
"""

# B rows of a batch, T frames at 25 a second, S states, C width of an encoder, D width of the LLM,
# U features after fusion, V vocabulary

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from torch import nn

from pam.data.prompts import prompts_of
from pam.encoders import DTYPES
from pam.llm.load import torch_type
from pam.model.sizes import Sizes, llm_with_lora, sizes
from pam.rate import FRAMES_PER_SECOND
from pam.train.flops import (
    CLOSING_TOKENS,
    StepFlops,
    encoders_flops,
    head_width,
    llm_flops,
    llm_option,
    step_flops,
)
from pam.train.iterators import limits
from pam.train.probe import Fused, probe_fusion, uses_bf16

TOKENS_PER_SECOND = 4  # fast English speech, 180 words a minute
TOKENS_PER_WORD = 1.35
OPENING_TOKENS = {"plain": 1, "chat": 40}
ONE_INPUT = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
BYTES_OF_A_DUMPED_VALUE = 2  # float16


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


def largest_batch(config: Mapping[str, Any], gpus: int) -> Batch:
    """Of one process: the rows of a batch are dealt to the GPUs. Its prompts are those of a system
    with a router; none with a bank of prompts, which is read before."""
    rows, frames, shares = limits(config, max(gpus, 1)).values()
    mine = math.ceil(rows * shares / max(gpus, 1))
    distinct = min(config["prompts_per_batch"] or mine, mine)
    longest = frames // rows
    return Batch(
        rows=mine,
        frames=longest,
        answer=math.ceil(TOKENS_PER_SECOND * longest / FRAMES_PER_SECOND) + 1,
        prompts=0 if config.get("prompt_bank") else distinct * config["router_prompts"],
        prompt=round(max(prompt_tokens(config))),
        closing=CLOSING_TOKENS[llm_option(config, "template")],
    )


def prompt_tokens(config: Mapping[str, Any]) -> list[float]:
    """Tokens of each training prompt."""
    opening = OPENING_TOKENS[llm_option(config, "template")]
    return [
        opening + TOKENS_PER_WORD * len(text.split())
        for task in prompts_of(config).values()
        for text in task.train
    ]


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


def llm_bytes(llm: nn.Module, config: Mapping[str, Any], batch: Batch, features: float) -> float:
    """Bytes of activations of both passes: over the prompts, and over audio, closing and answer."""
    bf16, layers = uses_bf16(config), llm.config.num_hidden_layers
    row = batch.frames * features + batch.closing + batch.answer
    # Where LoRA leaves the prompt alone, nothing of its pass is kept.
    learns = config["llm_conf"].get("lora_on_prompt", True)
    prompts, rest = learns * batch.prompts * batch.prompt, batch.rows * row
    layer = layer_bytes(llm, bf16) * (prompts + rest)
    if llm_option(config, "attention") == "eager":
        seen = prompts * batch.prompt + rest * (batch.prompt + row)
        layer += llm.config.num_attention_heads * (4 + (2 if bf16 else 4)) * seen
    if llm_option(config, "gradient_checkpointing"):
        weight = llm.get_input_embeddings().weight.element_size()
        return layer + layers * weight * llm.config.hidden_size * (prompts + rest)
    return layer * layers


# --- all of it


@dataclass(frozen=True)
class Plan:
    """Memory in bytes by purpose, disk in bytes per hour of audio, FLOPs.

    `flops` are those of forward passes per second of audio and, as "training", of all that
    training does; `step_flops` those of a step with the largest batch of one process.
    """

    sizes: Sizes
    batch: Batch
    memory: dict[str, float]
    dump_bytes_an_hour: float
    flops: dict[str, float]
    step_flops: float

    @property
    def peak(self) -> float:
        return sum(self.memory.values())


def make_plan(config: Mapping[str, Any], gpus: int) -> Plan:
    """The plan of an effective configuration on `gpus` GPUs, 0 for a CPU."""
    llm, frozen = llm_with_lora(config["llm_conf"])
    llm.to(torch_type(llm_option(config, "dtype")))
    fused = probe_fusion(config, llm.config.hidden_size)
    batch, counted = largest_batch(config, gpus), sizes(config)
    values = values_of_a_frame(config)
    encoders = encoders_flops(config)
    online = encoders if config["feats"] == "online" else []
    learns = llm_option(config, "lora_on_prompt")
    step = flops_of(batch, step_flops(llm, frozen, fused, online, batch.closing, learns))
    seconds, length = batch.seconds, batch.frames / FRAMES_PER_SECOND
    row = batch.frames * fused.features + batch.closing + batch.answer
    return Plan(
        counted,
        batch,
        memory(config, counted, llm, fused, batch, values, gpus),
        dump_bytes_an_hour=values * FRAMES_PER_SECOND * 3600 * BYTES_OF_A_DUMPED_VALUE,
        flops={
            "encoders": sum(encoder.clip(length) for encoder in encoders) / length,
            "fusion": fused.flops * FRAMES_PER_SECOND,
            "LLM": llm_flops(llm, row, batch.prompt + row / 2, batch.answer) / length,
            "training": step / seconds,
        },
        step_flops=step,
    )


def flops_of(batch: Batch, step: StepFlops) -> float:
    """FLOPs of a step with this batch."""
    rows = batch.rows
    each = [[batch.frames] * rows, [batch.answer] * rows, [batch.prompt] * rows]
    return step.of(*each, [batch.prompt] * batch.prompts)


def values_of_a_frame(config: Mapping[str, Any]) -> int:
    """Number of values in all encoders' states per frame at 25 Hz."""
    return sum(spec["num_states"] * spec["dim"] for spec in config["encoders"].values())


def frozen_llm_bytes(config: Mapping[str, Any], counted: Sizes, llm: nn.Module, gpus: int) -> float:
    """Bytes of the frozen LLM on a GPU. If it is sharded, two whole layers are there at a time."""
    values = counted.llm
    if llm_option(config, "shard") and gpus > 1:
        layers = llm.config.num_hidden_layers
        layer = sum(
            p.numel() for name, p in layer_of(llm).named_parameters() if "lora_" not in name
        )
        values += layer * (layers / gpus + 2 - layers)
    return values * llm.get_input_embeddings().weight.element_size()


def encoder_bytes(config: Mapping[str, Any], counted: Sizes) -> int:
    """Bytes of the encoders' weights, each in its own type."""
    return sum(
        counted.encoders[name] * DTYPES[(spec.get("conf") or {}).get("dtype", "float32")].itemsize
        for name, spec in config["encoders"].items()
    )


def bank_bytes(config: Mapping[str, Any], llm: nn.Module) -> float:
    """Bytes of the states of a bank of prompts, if all its prompts differ."""
    heads = getattr(llm.config, "num_key_value_heads", None) or llm.config.num_attention_heads
    values = 2 * llm.config.num_hidden_layers * heads * head_width(llm.config)
    weight = llm.get_input_embeddings().weight.element_size()
    prompts = config.get("prompt_bank", 0) * len(config["tasks"])
    return prompts * fmean(prompt_tokens(config)) * values * (2 if uses_bf16(config) else weight)


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
    return {
        "LLM": frozen_llm_bytes(config, counted, llm, gpus),
        "encoders": encoder_bytes(config, counted) if online else 0,
        "trained weights": trained * (4 + (2 if uses_bf16(config) else 0)),
        "gradients": trained * (8 if gpus > 1 else 4),
        "optimizer": trained * 8,
        "LLM activations": llm_bytes(llm, config, batch, fused.features),
        "LM head": 12 * vocabulary * batch.rows * batch.answer,
        "fusion activations": fused.kept * frames,
        "encoder states": frames * values * 2 * 4,
        "prompt bank": bank_bytes(config, llm),
    }
