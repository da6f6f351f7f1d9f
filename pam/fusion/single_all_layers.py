"""One encoder with learned layer weights (beyond the paper): f_e → FFN_o.

The paper's single encoders give their last layer only. With all layers, as in SUPERB, a single
encoder shows what the other encoders add, and not what the other layers add.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pam.errors import PamError
from pam.fusion.concat_all_layers import ConcatAllLayers


class SingleAllLayers(ConcatAllLayers):
    """The weighted layers of the only encoder through FFN_e and FFN_o.

    Args:
        dims, states, width, num_experts, adapter: see `AdapterFusion`.
        expansion: see `ConcatAllLayers`.
    """

    def __init__(
        self,
        dims: Sequence[int],
        states: Sequence[int],
        width: int,
        num_experts: int,
        expansion: float = 0.0,
        adapter: Mapping[str, Any] | None = None,
    ):
        if len(dims) != 1:
            raise PamError(
                f"fusion 'single_all_layers' takes one encoder, {len(dims)} are configured"
            )
        super().__init__(dims, states, width, num_experts, expansion, adapter)
