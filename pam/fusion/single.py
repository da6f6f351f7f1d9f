"""One encoder (Tables 1 and 13, single-encoder baselines): f_L → linear."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from pam.errors import UserError
from pam.fusion.adapter import build_adapters, last_features


class Single(nn.Module):
    """The last state of the only encoder through FFN_e and a linear layer."""

    needs_gate = False

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        adapter: str = "mlp",
        norm: bool = False,
        stack: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__()
        if len(dims) != 1:
            raise UserError(f"fusion 'single' takes one encoder, {len(dims)} are configured")
        self.stack = stack
        self.adapters = build_adapters(
            dims, width, kind=adapter, norm=norm, stack=stack, dropout=dropout
        )
        self.ffn_o = nn.Linear(width, width)

    def forward(
        self, states: Sequence[Float[Tensor, "B _ T _"]], gate: Tensor | None = None
    ) -> Float[Tensor, "B U D"]:
        return self.ffn_o(last_features(self.adapters, states)[0])
