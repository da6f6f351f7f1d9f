r"""FLOPs of training steps, and the peak FLOP/s of GPUs: the two sides of MFU.

A multiply-add is 2 FLOPs. With N weights that a token passes through, a step costs

- the frozen LLM: 2 N a token forward and 2 N backward, since its weights have no gradients: 4 N;
  LoRA's own weights 2 more each. A prompt's token costs 2 N where LoRA leaves the prompt alone;
- attention: 4 H d for each pair of positions and layer forward (scores and sum), twice that
  backward: 12 H d. A position sees its prompt and half of its row;
- the LM head: 4 V D an answer token;
- the fusion, which is trained: both passes, counted by running it once;
- encoders that run during training: one forward pass, counted on torch's meta device (about 2 N a
  frame). Whisper encodes 30 s for each clip, as configured.

Only real frames and tokens count: padding and recomputed activations are no useful work.
"""

# H heads of width d, D width of the LLM, V vocabulary

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from pam.config.schema import ENCODERS
from pam.config.source import options_of, registered
from pam.data.utterances import AUDIO
from pam.llm.causal_lm import CausalLM
from pam.model.architecture import count, encoder_flops
from pam.model.sizes import llm_with_lora
from pam.rate import FRAMES_PER_SECOND, SAMPLE_RATE
from pam.train.probe import Fused, probe_fusion

CLOSING_TOKENS = {"plain": 0, "chat": 6}

# Peak of dense bfloat16 products with float32 sums, FLOP/s. Compared with copies of NVIDIA's data
# sheets (half of those with sparsity): A10, A40, A100, H100 SXM and PCIe, H200, L4, L40S. The
# others are from memory: compare such a value before you quote an MFU.
PEAK_BF16 = {
    "A10": 125e12,
    "A30": 165e12,
    "A40": 149.7e12,
    "A100": 312e12,
    "H100": 989e12,  # SXM
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H200": 989e12,
    "H200 NVL": 835e12,
    "GH200": 989e12,
    "B200": 2250e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "RTX A6000": 154.8e12,
    "RTX 6000 Ada": 364e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165e12,
}
OTHER_CHIPS = {"Laptop", "MIG", "D", "Ti"}  # words of a name that mean another peak


def peak_flops(gpu: str) -> float | None:
    """The peak of a GPU by its name as in `torch.cuda.get_device_name`; None if it is unknown."""
    words = set(gpu.replace("-", " ").split())
    known = [name for name in PEAK_BF16 if words.issuperset(name.split())]
    if not known or words & OTHER_CHIPS:
        return None
    return PEAK_BF16[max(known, key=lambda name: len(name.split()))]


@dataclass(frozen=True)
class EncoderFlops:
    """FLOPs of a second of encoded audio; `padded`: clips are encoded in pieces of that length."""

    second: float
    padded: float = 0.0

    def clip(self, seconds: float) -> float:
        pieces = math.ceil(seconds / self.padded) * self.padded if self.padded else seconds
        return self.second * pieces


@dataclass(frozen=True)
class StepFlops:
    """FLOPs of the training through the LLM, forward and backward, for each unit of work.

    Attributes:
        token: a position after the prompt, without attention.
        prompt: a prompt's token, without attention.
        pair: attention of one position to one other, over all layers.
        prompt_pair: the same in the pass over prompts.
        answer: the LM head of an answer's token.
        frame: the fusion of a frame of 40 ms.
        encoders: those that run during training.
        features: features of a frame.
        closing: tokens between audio and answer.
    """

    token: float
    prompt: float
    pair: float
    prompt_pair: float
    answer: float
    frame: float
    encoders: tuple[EncoderFlops, ...]
    features: float
    closing: int

    def of(
        self,
        frames: Sequence[float],
        answers: Sequence[int],
        before: Sequence[int],
        prompts: Sequence[int],
    ) -> float:
        """FLOPs of a step.

        frames, answers, before: each row's frames, answer tokens, and tokens of its prompt.
        prompts: tokens of each distinct prompt that is read.
        """
        total = sum(n * self.prompt + n * n / 2 * self.prompt_pair for n in prompts)
        for length, answer, prompt in zip(frames, answers, before, strict=True):
            row = length * self.features + self.closing + answer - 1  # the last is not read
            total += row * (self.token + (prompt + row / 2) * self.pair) + answer * self.answer
            total += length * self.frame
            total += sum(encoder.clip(length / FRAMES_PER_SECOND) for encoder in self.encoders)
        return total

    def of_batch(self, batch: Mapping[str, Any]) -> float:
        """FLOPs of a batch as `pam.train.collate` makes it."""
        prompts = batch["prompt_lengths"]
        return self.of(
            frames_of(batch),
            batch["text_lengths"].tolist(),
            prompts[batch["prompt_index"][:, 0]].tolist(),
            prompts.tolist(),
        )


def frames_of(batch: Mapping[str, Any]) -> list[float]:
    """The frames of each row of a batch: those of its audio, or of the encoder with fewest."""
    if f"{AUDIO}_lengths" in batch:
        samples: Tensor = batch[f"{AUDIO}_lengths"]
        return [n / SAMPLE_RATE * FRAMES_PER_SECOND for n in samples.tolist()]
    own = ("text_lengths", "prompt_lengths")
    lengths = [v for k, v in batch.items() if k.endswith("_lengths") and k not in own]
    return [min(row) for row in zip(*(one.tolist() for one in lengths), strict=True)]


def training_flops(config: Mapping[str, Any]) -> StepFlops:
    """The cost of training steps of an effective configuration (exp/NAME/config.yaml).

    `PamError` if the architecture of an encoder that runs, or of the LLM, is unknown
    (`pam.model.architecture`).
    """
    llm, frozen = llm_with_lora(config["llm_conf"])
    fused = probe_fusion(config, llm.config.hidden_size)
    online = encoders_flops(config) if config["feats"] == "online" else ()
    closing = CLOSING_TOKENS[llm_option(config, "template")]
    step = step_flops(llm, frozen, fused, online, closing, llm_option(config, "lora_on_prompt"))
    # The prompts of a bank are read before the first step.
    return replace(step, prompt=0.0, prompt_pair=0.0) if config.get("prompt_bank") else step


def step_flops(
    llm: nn.Module,
    frozen: int,
    fused: Fused,
    encoders: Sequence[EncoderFlops],
    closing: int,
    learns: bool,
) -> StepFlops:
    """The same, of parts. frozen: the LLM's weights without LoRA; learns: LoRA acts on prompts."""
    lora, forward = count(llm) - frozen, 2 * layer_weights(llm)
    token, pair = 2 * forward + 2 * lora, 3 * pair_flops(llm)
    return StepFlops(
        token=token,
        prompt=token if learns else forward - 2 * lora,
        pair=pair,
        prompt_pair=pair if learns else pair / 3,
        answer=2 * head_flops(llm),
        frame=fused.flops + fused.backward,
        encoders=tuple(encoders),
        features=fused.features,
        closing=closing,
    )


def encoders_flops(config: Mapping[str, Any]) -> list[EncoderFlops]:
    """The forward passes of all encoders."""
    out = []
    for spec in config["encoders"].values():
        stretch, length = encoder_flops(spec["path"])
        options = options_of(registered(ENCODERS)[spec["family"]])
        padded = "pad_to_30s" in options and (spec.get("conf") or {}).get("pad_to_30s", True)
        out.append(EncoderFlops(stretch / length, length if padded else 0.0))
    return out


def llm_option(config: Mapping[str, Any], key: str) -> Any:
    return config["llm_conf"].get(key, inspect.signature(CausalLM).parameters[key].default)


# --- a forward pass of the LLM


def layer_weights(llm: nn.Module) -> int:
    """Weights that a token is multiplied by: those of the decoder without its embeddings."""
    decoder = getattr(llm, llm.base_model_prefix)
    return count(decoder) - count(decoder.get_input_embeddings())


def pair_flops(llm: nn.Module) -> float:
    """Attention of one position to one other, over all layers."""
    config = llm.config
    return 4 * config.num_hidden_layers * config.num_attention_heads * head_width(config)


def head_flops(llm: nn.Module) -> float:
    """The LM head for one token."""
    return 2 * llm.config.vocab_size * llm.config.hidden_size


def head_width(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def llm_flops(llm: nn.Module, tokens: float, context: float, answers: float) -> float:
    """FLOPs of a forward pass: 2 per weight and token, attention over `context`, the LM head."""
    attention = pair_flops(llm) * context
    return tokens * (2 * layer_weights(llm) + attention) + head_flops(llm) * answers
