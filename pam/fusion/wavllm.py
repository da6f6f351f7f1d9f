r"""WavLLM's adapters (Table 1, A.3): a branch for every encoder, then concatenation.

.. math::
    u_e = \mathrm{GLU}(C_2 * \mathrm{GLU}(C_1 * h_{e,L})), \qquad
    v_e = \mathrm{LN}(A_2\,\mathrm{GELU}(A_1 u_e)) + u_e, \qquad
    S = A\,[P_1 v_1; \dots; P_E v_E]

C₁ and C₂ are convolutions over time of 3 frames. In WavLLM (Hu et al., 2024) both halve the rate,
from 50 features a second to 12.5; here the states come at 25, so C₁ keeps the rate. The channels of
C₁ differ between WavLLM's two branches (640 and 256); here they are those of its WavLM branch,
whose encoder is as wide as the paper's. WavLLM's learned weights over WavLM's layers are left out:
all encoders give their last state, as the paper says of its baselines (section 4.1).
"""

# B batch, T frames, U features, C width of one encoder, D width of the LLM

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from pam.encoders.padding import padding_mask
from pam.fusion.base import Fusion

KERNEL = 3
STRIDES = (1, 2)  # 25 → 25 → 12.5 features a second


class Branch(nn.Module):
    """Convolutions, bottleneck adapter and projection of one encoder."""

    def __init__(self, dim: int, width: int, conv_channels: int, channels: int, bottleneck: int):
        super().__init__()
        sizes = ((dim, conv_channels), (conv_channels, channels))
        # GLU halves what a convolution makes.
        self.convs = nn.ModuleList(
            nn.Conv1d(inputs, 2 * outputs, KERNEL, stride, padding=KERNEL // 2)
            for (inputs, outputs), stride in zip(sizes, STRIDES, strict=True)
        )
        self.down = nn.Linear(channels, bottleneck)
        self.up = nn.Linear(bottleneck, channels)
        self.norm = nn.LayerNorm(channels)
        self.project = nn.Linear(channels, width)

    def forward(
        self, state_BTC: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"]
    ) -> Float[Tensor, "B U D"]:
        x_BCT = state_BTC.transpose(1, 2)
        for conv in self.convs:
            # A bias makes padding nonzero: set it to zero again before every convolution.
            x_BCT = x_BCT.masked_fill(~padding_mask(lengths, x_BCT.shape[2])[:, None], 0.0)
            x_BCT = F.glu(conv(x_BCT), dim=1)
            lengths = conv_lengths(lengths, conv.stride[0])
        x_BUC = x_BCT.transpose(1, 2)
        return self.project(self.norm(self.up(F.gelu(self.down(x_BUC)))) + x_BUC)


def conv_lengths(lengths: Int[Tensor, " B"], stride: int) -> Int[Tensor, " B"]:
    """Outputs of a convolution over 3 frames with a frame of padding at both ends."""
    return (lengths - 1) // stride + 1


class WavLLM(Fusion):
    """The last states through a branch each, concatenated and projected to D.

    Args:
        dims, width: widths of the encoders and of the LLM.
        states, num_experts: not used.
        conv_channels: of the first convolution, after its GLU.
        channels: of the second one, and of the bottleneck adapter.
        bottleneck: width inside the adapter.
    """

    JOINS = "ffn_o"  # see pam.fusion.extend

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        conv_channels: int = 256,
        channels: int = 1024,
        bottleneck: int = 512,
    ):
        super().__init__()
        sizes = (width, conv_channels, channels, bottleneck)
        self.branches = nn.ModuleList([Branch(dim, *sizes) for dim in dims])
        self.ffn_o = nn.Linear(len(dims) * width, width)

    def encoder_parts(self) -> Iterable[nn.Module]:
        return self.branches

    def output_lengths(self, lengths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        for stride in STRIDES:
            lengths = conv_lengths(lengths, stride)
        return lengths

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ T _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        pairs = zip(self.branches, states, strict=True)
        return self.ffn_o(torch.cat([branch(s[:, -1], lengths) for branch, s in pairs], dim=-1))
