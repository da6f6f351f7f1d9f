r"""SALMONN's window-level Q-Former (Table 1, A.3).

.. math::
    z_t = [\mathrm{LN}_1(h_{1,L,t}); \dots; \mathrm{LN}_E(h_{E,L,t})], \qquad
    S_w = A\,\mathrm{QFormer}(Q, z_{wN}, \dots, z_{wN+N-1})

Learned queries Q attend to the N frames of one window at a time; the features of all windows follow
one another. After SALMONN (Tang et al., 2024), whose windows are 0.333 s long: 8 frames at 25 a
second, 0.32 s. One difference: SALMONN drops a last window that is not full; here it is kept and
its missing frames are masked.

The paper's "query length=32" (A.3) is SALMONN's setting `num_speech_query_token`, which counts per
window and is 1 in the original. 32 of them make 100 features a second, four times as many as there
are frames, and the LLM reads them all: lower `batch.max_frames`, or `queries`. With `window: 0` the
whole clip is one window, which is another way to read A.3: 32 features for a clip of any length.
"""

# B batch, T frames, W windows of a clip, N frames of a window, Q queries, H width of the Q-Former,
# K windows with a real frame, C widths of all encoders, U features, D width of the LLM

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from pam.encoders.padding import padding_mask
from pam.errors import PamError
from pam.fusion.base import Fusion


class Salmonn(Fusion):
    """LayerNorm per encoder, concatenation, Q-Former (BERT's layers, cross-attention in each).

    Args:
        dims, width: widths of the encoders and of the LLM.
        states, num_experts: not used.
        window: N, frames of a window; 0: the whole clip is one.
        queries: Q, features that a window becomes.
        hidden, layers, heads, ffn: sizes of the Q-Former.
        dropout: probability, where BERT has it.
    """

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        window: int = 8,
        queries: int = 32,
        hidden: int = 768,
        layers: int = 2,
        heads: int = 12,
        ffn: int = 3072,
        dropout: float = 0.1,
    ):
        super().__init__()
        if window < 0 or queries < 1:
            raise PamError(
                f"fusion_conf: window {window} and queries {queries}: "
                "expected 0 or more frames, and at least one query"
            )
        if hidden % heads:
            raise PamError(f"fusion_conf.hidden: {hidden} is no multiple of heads, {heads}")
        self.window = window
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for dim in dims])
        config = Blip2QFormerConfig(
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=ffn,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            encoder_hidden_size=sum(dims),
            cross_attention_frequency=1,
        )
        self.qformer = Blip2QFormerModel(config)
        self.queries_QH = nn.Parameter(torch.randn(queries, hidden) * config.initializer_range)
        self.project = nn.Linear(hidden, width)

    def output_lengths(self, lengths: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        windows = -(-lengths // self.window) if self.window else torch.ones_like(lengths)
        return windows * len(self.queries_QH)

    def forward(
        self,
        states: Sequence[Float[Tensor, "B _ T _"]],
        lengths: Int[Tensor, " B"],
        gate: Tensor | None = None,
    ) -> Float[Tensor, "B U D"]:
        pairs = zip(self.norms, states, strict=True)
        features_BTC = torch.cat([norm(state[:, -1]) for norm, state in pairs], dim=-1)
        windows_BWNC, real_BWN = self.cut(features_BTC, lengths)
        used_BW = real_BWN.any(-1)
        windows_KNC, real_KN = windows_BWNC[used_BW], real_BWN[used_BW]
        queried_KQH = self.qformer(
            query_embeds=self.queries_QH.expand(len(windows_KNC), -1, -1),
            encoder_hidden_states=windows_KNC,
            encoder_attention_mask=real_KN.long(),
        ).last_hidden_state
        features_KQD = self.project(queried_KQH)
        out_BWQD = features_KQD.new_zeros(*used_BW.shape, *features_KQD.shape[1:])
        out_BWQD[used_BW] = features_KQD
        return out_BWQD.flatten(1, 2)

    def cut(
        self, features_BTC: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B W N C"], Bool[Tensor, "B W N"]]:
        """Windows, the last one filled up, and which of their frames are real."""
        window = self.window or features_BTC.shape[1]
        features_BTC = F.pad(features_BTC, (0, 0, 0, -features_BTC.shape[1] % window))
        real_BT = padding_mask(lengths, features_BTC.shape[1])
        return features_BTC.unflatten(1, (-1, window)), real_BT.unflatten(1, (-1, window))
