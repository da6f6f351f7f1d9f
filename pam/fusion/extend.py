r"""Add an encoder to a trained fusion.

A layer that joins the encoders' features, such as FFN_o over [f_1; …; f_E; g_1; …; g_M], gets
columns for f_{E+1} that start as zero. They are a separate matrix, whose product is added last. So
the sum over the old columns does not change by a single bit, as it would in one wider product.
`fusion_conf.extended` is the number of encoders that were added in this way.
"""

# B batch, T frames, D width of the LLM, X features that are joined

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ExtendedLinear(nn.Linear):
    """A linear layer over [f_1; …; f_E; others] whose last encoders were added after training.

    `weight` has the original columns, `new` those of each added encoder.
    """

    def __init__(self, linear: nn.Linear, width: int, encoders: int, added: int):
        super().__init__(linear.in_features - added * width, linear.out_features)
        self.width, self.first, self.last = width, (encoders - added) * width, encoders * width
        self.new = nn.ModuleList(
            nn.Linear(width, linear.out_features, bias=False) for _ in range(added)
        )
        for layer in self.new:
            nn.init.zeros_(layer.weight)

    def forward(self, x: Float[Tensor, "*B X"]) -> Float[Tensor, "*B D"]:
        out = super().forward(torch.cat([x[..., : self.first], x[..., self.last :]], dim=-1))
        for layer, feature in zip(
            self.new, x[..., self.first : self.last].split(self.width, dim=-1), strict=True
        ):
            out = out + layer(feature)
        return out


def extend_fusion(fusion: nn.Module, encoders: int, width: int, added: int) -> None:
    """Add columns to every layer that joins encoders; a module names its own in `JOINS`."""
    for module in list(fusion.modules()):
        if name := getattr(module, "JOINS", None):
            layer = getattr(module, name)
            if isinstance(layer, nn.Sequential):  # its first layer joins
                layer[0] = ExtendedLinear(layer[0], width, encoders, added)
            else:
                setattr(module, name, ExtendedLinear(layer, width, encoders, added))
