"""Convolutions that a library computes wrongly in a low precision, kept in float32.

On processors with AMX, oneDNN (torch 2.11) returns wrong sums for a one-dimensional bfloat16
convolution of 2 to 14 input channels a group and a kernel of 8 taps or more. The positional
convolution of a narrow wav2vec 2.0 is one of these; those of the published models have 48 or 64
channels a group. The rule holds on all processors, so that an encoder gives the same states
everywhere.
"""

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn

WIDE = 16  # input channels a group, from which on all kernels are right


def keep_narrow_convolutions_in_float32(module: nn.Module) -> None:
    """Let every `nn.Conv1d` of 2 to 15 input channels a group compute in float32.

    Input, output and weights keep their type. Convolutions of one channel a group use another
    kernel, which is right.
    """
    for conv in module.modules():
        if isinstance(conv, nn.Conv1d) and 1 < conv.in_channels // conv.groups < WIDE:
            conv._conv_forward = partial(_in_float32, conv)


def _in_float32(
    conv: nn.Conv1d, x: Float[Tensor, "*B C N"], weight: Tensor, bias: Tensor | None
) -> Float[Tensor, "*B O M"]:
    bias = None if bias is None else bias.float()
    return nn.Conv1d._conv_forward(conv, x.float(), weight.float(), bias).to(x.dtype)
