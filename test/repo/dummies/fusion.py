"""A dummy fusion: the sum of all hidden states, mapped to the LLM's width."""

import torch
from torch import nn

from pam.fusion.base import Fusion


class Dummy(Fusion):
    """Frames stay; the router's gate scales them.

    Args:
        size: width of the layer between.
    """

    needs_gate = True

    def __init__(self, dims, states, width, num_experts, size: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(sum(dims), size), nn.Linear(size, width))

    def output_lengths(self, lengths):
        return lengths

    def forward(self, states, lengths, gate=None, *_):
        features = self.layers(torch.cat([x.sum(1) for x in states], dim=-1))
        return features * gate.sum(-1)[:, None, None]
