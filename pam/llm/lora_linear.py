r"""LoRA in linear layers, with one product where several layers have the same input.

.. math:: y_i = W_i x + b_i + s_i B_i A_i x

For the layers i of a group, such as q, k and v, x is converted once, all A_i x are one product, and
B_i A_i x is added in place. All products are in the type of the frozen W_i, or in that of autocast;
PEFT's own layer converts x to LoRA's float32 and back.
"""

# N positions, I inputs, O outputs of a layer, R the sum of the ranks of a group

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners.lora import Linear
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class LoRALinear(Linear):
    """PEFT's LoRA layer, computed by its `group` if it has one (see `pam.llm.lora`)."""

    group: "Group | None" = None

    def forward(self, x: Float[Tensor, "*B I"], *args: Any, **kwargs: Any) -> Float[Tensor, "*B O"]:
        ours = self.group is not None and x.device.type != "meta"
        if not ours or self.disable_adapters or args or kwargs:
            return super().forward(x, *args, **kwargs)
        return self.group(self, x)


class Group:
    """Layers with one adapter and without dropout that always get the same input.

    The first call computes the outputs of all of them.
    """

    def __init__(self, layers: Sequence[LoRALinear]):
        self.layers = list(layers)
        self.input: Tensor | None = None
        self.outputs: dict[LoRALinear, Tensor] = {}
        for layer in layers:
            layer.group = self

    def __call__(self, layer: LoRALinear, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        if x is not self.input or layer not in self.outputs:
            self.outputs = dict(zip(self.layers, self.products(x), strict=True))
        output = self.outputs.pop(layer)
        self.input = x if self.outputs else None  # nothing is kept that nobody waits for
        return output

    def products(self, x: Float[Tensor, "*B I"]) -> list[Tensor]:
        """The outputs of all layers for the input `x`."""
        kind, lora = x.device.type, []
        for layer in self.layers:
            (name,) = layer.active_adapters
            lora += [layer.lora_A[name].weight, layer.lora_B[name].weight]
        bases = [layer.get_base_layer() for layer in self.layers]
        scales = [layer.scaling[name] for layer in self.layers for name in layer.active_adapters]
        autocast = torch.is_autocast_enabled(kind)
        dtype = torch.get_autocast_dtype(kind) if autocast else bases[0].weight.dtype
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        with torch.autocast(kind, enabled=False):
            outputs = Products.apply(flat, bases, scales, *lora)
        return [output.view(*x.shape[:-1], -1) for output in outputs]


class Products(torch.autograd.Function):
    """The formula of the module, for `flat` [N, I] in the type to compute in."""

    @staticmethod
    def forward(
        ctx: Any,
        flat: Float[Tensor, "N I"],
        bases: Sequence[nn.Linear],
        scales: Sequence[float],
        *lora: Tensor,
    ) -> tuple[Float[Tensor, "N _"], ...]:
        down = torch.cat(lora[::2]).to(flat.dtype)
        ups = [(up * scale).to(flat.dtype) for up, scale in zip(lora[1::2], scales, strict=True)]
        inner = flat @ down.T
        ctx.bases, ctx.scales, ctx.kinds = bases, scales, [part.dtype for part in lora]
        ctx.save_for_backward(flat, down, inner, *ups)
        outputs = []
        for base, up, own in zip(bases, ups, by_rank(inner, ups), strict=True):
            bias = None if base.bias is None else base.bias.to(flat.dtype)
            outputs.append(F.linear(flat, base.weight.to(flat.dtype), bias).addmm_(own, up.T))
        return tuple(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Float[Tensor, "N _"]) -> tuple[Tensor | None, ...]:
        flat, down, inner, *ups = ctx.saved_tensors
        of_inner = torch.cat([grad @ up for grad, up in zip(grads, ups, strict=True)], dim=1)
        of_flat = None
        if ctx.needs_input_grad[0]:
            of_flat = of_inner @ down
            for grad, base in zip(grads, ctx.bases, strict=True):
                of_flat.addmm_(grad, base.weight.to(flat.dtype))
        of_downs = (of_inner.T @ flat).split([up.shape[1] for up in ups])
        of_ups = [
            (grad.T @ own) * scale
            for grad, own, scale in zip(grads, by_rank(inner, ups), ctx.scales, strict=True)
        ]
        of_lora = [part for pair in zip(of_downs, of_ups, strict=True) for part in pair]
        given = [part.to(kind) for part, kind in zip(of_lora, ctx.kinds, strict=True)]
        return of_flat, None, None, *given


def by_rank(x: Float[Tensor, "N R"], ups: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The columns of each layer."""
    return x.split([up.shape[1] for up in ups], dim=1)
