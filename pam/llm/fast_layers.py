r"""The pass over audio and answers on a CPU: an LLM like Llama with fewer and larger operations.

A layer computes what transformers' layer does,

.. math::
    x' = x + \mathrm{attention}(\mathrm{norm}(x)), \qquad
    x'' = x' + \mathrm{FFN}(\mathrm{norm}(x'))

in the type of the weights, without autocast: norms and rotations are one node of the graph each,
the queries that share a key are one product, so keys and values are not repeated, and LoRA is as in
`pam.llm.lora_linear`. A probe compares them with transformers' layers (`FastLayers.is_right`).
"""

# B batch, P prompt tokens, T positions after the prompt, A = P + T, D width of the LLM,
# H heads of width d, K of them with keys and values, G = H / K

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from pam.encoders.padding import bias_of
from pam.llm.prompts import PromptStates

LAYER = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}
ATTENTION = {"q_proj", "k_proj", "v_proj", "o_proj"}
MLP = {"gate_proj", "up_proj", "down_proj", "act_fn"}
LIMIT = 1e-4, 0.03  # largest relative error of a layer, in float32 and in smaller types
PROBE = 8  # tokens of a row


class FastLayers:
    """The decoder layers of `backbone`, which must be like Llama's.

    `recompute`: whether a layer keeps only its input, and runs again in the backward pass.
    """

    def __init__(self, backbone: nn.Module, recompute: bool = False):
        self.backbone, config = backbone, backbone.config
        self.recompute = recompute
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.width = backbone.layers[0].self_attn.head_dim

    @classmethod
    def of(
        cls, llm: PreTrainedModel, backbone: nn.Module, recompute: bool = False
    ) -> "FastLayers | None":
        """The layers of an LLM, or None if they are not like Llama's."""
        if not like_llama(backbone):
            return None
        fast = cls(backbone, recompute)
        try:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                return fast if fast.is_right(llm) else None
        except (AttributeError, RuntimeError, TypeError):  # other shapes or arguments than Llama's
            return None

    def is_right(self, llm: PreTrainedModel) -> bool:
        """Whether each layer and the final norm give what transformers' give on some tokens."""
        seen: list[tuple[Tensor, Tensor]] = []

        def note(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple) -> None:
            seen.append((inputs[0], output if isinstance(output, Tensor) else output[0]))

        words = llm.get_input_embeddings()(torch.arange(2 * PROBE, device=llm.device))
        words = words.view(2, PROBE, -1)
        mask = torch.ones(2, PROBE, dtype=torch.bool, device=llm.device)
        mask[0, :2] = False  # padding
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        hooks = [layer.register_forward_hook(note) for layer in self.backbone.layers]
        inputs = {"inputs_embeds": words, "attention_mask": mask.long(), "position_ids": positions}
        try:
            final = self.backbone(**inputs, use_cache=False).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        if len(seen) != len(self.backbone.layers) or not torch.equal(seen[0][0], words):
            return False
        keys = words.new_empty(2, self.kv_heads, 0, self.width)
        rotation, bias = self.around(words, mask, positions)
        own = [
            self.layer(layer, x, keys, keys, rotation, bias)[0]
            for layer, (x, _) in zip(self.backbone.layers, seen, strict=True)
        ]
        own.append(rms_norm(self.backbone.norm, seen[-1][1]))
        expected = [output for _, output in seen] + [final]
        limit = LIMIT[words.dtype not in (torch.float32, torch.float64)]
        return all(
            bool((a[mask] - b[mask]).float().norm() <= limit * b[mask].float().norm())
            for a, b in zip(own, expected, strict=True)
        )

    def around(
        self, embeds: Float[Tensor, "B T D"], mask: Bool[Tensor, "B A"], positions: Tensor
    ) -> tuple[tuple[Tensor, Tensor], Float[Tensor, "B 1 1 T A"]]:
        """What all layers share: the rotation of the positions, and who sees whom."""
        cos, sin = self.backbone.rotary_emb(embeds, positions)
        rotation = cos[:, :, None], sin[:, :, None, : sin.shape[-1] // 2]
        length, total = embeds.shape[1], mask.shape[1]
        causal = mask.new_ones(length, total).tril(total - length)
        return rotation, bias_of(causal & mask[:, None], embeds.dtype)

    def __call__(
        self,
        embeds: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B A"],
        positions: Int[Tensor, "B T"],
        prompt: PromptStates,
    ) -> Float[Tensor, "B T D"]:
        """The last states of positions after `prompt`; `mask` covers both."""
        past = list(zip(prompt.keys, prompt.values, strict=True))
        return self.run(embeds, mask, positions, past)

    def prompts(
        self, embeds: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T D"], list[tuple[Tensor, Tensor]]]:
        """The last states, and keys and values of every layer; padding is on the left."""
        shape = len(embeds), self.kv_heads, 0, self.width
        past = [(embeds.new_empty(shape), embeds.new_empty(shape)) for _ in self.backbone.layers]
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return self.run(embeds, mask, positions, past), past

    def run(
        self,
        embeds: Float[Tensor, "B T D"],
        mask: Bool[Tensor, "B A"],
        positions: Int[Tensor, "B T"],
        past: list[tuple[Tensor, Tensor]],
    ) -> Float[Tensor, "B T D"]:
        """The last states; `past` has keys and values of every layer, and gets the new ones."""
        with torch.autocast(embeds.device.type, enabled=False):
            rotation, bias = self.around(embeds, mask, positions)
            x = embeds
            for place, layer in enumerate(self.backbone.layers):
                inputs = layer, x, *past[place], rotation, bias
                if self.recompute and torch.is_grad_enabled():
                    x, keys, values = checkpoint(self.layer, *inputs, use_reentrant=False)
                else:
                    x, keys, values = self.layer(*inputs)
                past[place] = keys, values
            return rms_norm(self.backbone.norm, x)

    def layer(
        self,
        layer: nn.Module,
        x: Float[Tensor, "B T D"],
        keys: Float[Tensor, "B K P d"],
        values: Float[Tensor, "B K P d"],
        rotation: tuple[Tensor, Tensor],
        bias: Float[Tensor, "B 1 1 T A"],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The layer's output, and its keys and values with the new ones."""
        own, mlp = layer.self_attn, layer.mlp
        normed = rms_norm(layer.input_layernorm, x)
        projected = [own.q_proj(normed), own.k_proj(normed), own.v_proj(normed)]
        q, k, v = (part.unflatten(-1, (-1, self.width)) for part in projected)
        q, k = (
            Rotate.apply(q, *rotation).transpose(1, 2),
            Rotate.apply(k, *rotation).transpose(1, 2),
        )
        keys = torch.cat([keys.to(x.dtype), k], dim=2)
        values = torch.cat([values.to(x.dtype), v.transpose(1, 2)], dim=2)
        grouped = q.reshape(len(x), self.kv_heads, -1, q.shape[-1])  # [B, K, G·T, d]
        scores = (grouped @ keys.mT).unflatten(2, (-1, x.shape[1]))
        scores = torch.add(bias, scores, alpha=own.scaling)
        weights = scores.softmax(-1, dtype=torch.float32).to(x.dtype).flatten(2, 3)
        heads = (weights @ values).view(len(x), self.heads, x.shape[1], -1)
        x = x + own.o_proj(heads.transpose(1, 2).flatten(2))
        normed = rms_norm(layer.post_attention_layernorm, x)
        gate, up = mlp.gate_proj(normed), mlp.up_proj(normed)
        return x + mlp.down_proj(mlp.act_fn(gate) * up), keys, values


def like_llama(backbone: nn.Module) -> bool:
    """Whether the decoder has the parts of Llama's, and all its layers see everything."""
    layers, config = getattr(backbone, "layers", None), backbone.config
    if not isinstance(layers, nn.ModuleList) or not hasattr(backbone, "rotary_emb"):
        return False
    if getattr(config, "sliding_window", None):
        return False
    return is_rms_norm(getattr(backbone, "norm", None)) and all(
        names(layer) == LAYER
        and names(layer.self_attn) == ATTENTION
        and names(layer.mlp) == MLP
        and is_rms_norm(layer.input_layernorm)
        and is_rms_norm(layer.post_attention_layernorm)
        for layer in layers
    )


def names(module: nn.Module) -> set[str]:
    return {name for name, _ in module.named_children()}


def is_rms_norm(norm: Any) -> bool:
    return hasattr(norm, "variance_epsilon") and norm.weight.dim() == 1


def rms_norm(norm: nn.Module, x: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
    return RMSNorm.apply(x, norm.weight, norm.variance_epsilon)


class RMSNorm(torch.autograd.Function):
    r"""w · x / r with r² = mean(x²) + ε; w is frozen.

    The gradient is that of a layer norm with mean 0, without its term -mean(w · g) / r.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "*B D"], weight: Float[Tensor, " D"], eps: float
    ) -> Float[Tensor, "*B D"]:
        wide, shape = torch.promote_types(x.dtype, torch.float32), [x.shape[-1]]
        ones = weight.new_ones(shape, dtype=wide)  # for statistics in this type
        # One fused operation gives mean and variance: mean(x²) = variance + mean².
        _, mean, inverse = torch.native_layer_norm(x, shape, ones, torch.zeros_like(ones), eps)
        inverse = (inverse.pow_(-2) + mean.square_()).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        return (x * inverse).to(x.dtype) * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "*B D"]) -> tuple[Tensor, None, None]:
        x, weight, inverse = ctx.saved_tensors
        of_x, *_ = torch.ops.aten.native_layer_norm_backward(
            grad,
            x,
            [x.shape[-1]],
            torch.zeros_like(inverse),
            inverse,
            weight.to(inverse.dtype),
            None,
            [True, False, False],
        )
        mean = (grad @ weight)[..., None] / x.shape[-1]
        return of_x.add_((mean * inverse).to(x.dtype)), None, None


class Rotate(torch.autograd.Function):
    """Rotary positions: pairs (a, b) of both halves → (a cos - b sin, b cos + a sin)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "B T H d"],
        cos: Float[Tensor, "B T 1 d"],
        sin: Float[Tensor, "B T 1 _"],
    ) -> Float[Tensor, "B T H d"]:
        ctx.save_for_backward(cos, sin)
        return rotated(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Float[Tensor, "B T H d"]) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return rotated(grad, cos, -sin), None, None


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    (first, second), out = x.chunk(2, dim=-1), x * cos
    out_first, out_second = out.chunk(2, dim=-1)
    out_first.addcmul_(second, sin, value=-1)
    out_second.addcmul_(first, sin)
    return out
