"""Base class of the trained models: frozen parts keep their type and stay out of checkpoints.

It has ESPnet's methods without ESPnet, which only training needs (`pam.train.task`).
"""

import fnmatch
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from pam.errors import PamError
from pam.registry import nearest


class TrainableOnlyModel(nn.Module):
    """A model whose checkpoints hold only learned weights.

    Frozen weights come from the pretrained models' files. `to` moves the model but keeps the type
    of every part, because ESPnet would cast a bfloat16 LLM to its `train_dtype`.
    """

    def to(self, *args, dtype=None, **kwargs):
        return super().to(*args, **kwargs)

    # Learned weights that `train_only` froze. Pretrained files do not have them.
    held: frozenset[str] = frozenset()

    def trainable_names(self) -> set[str]:
        return {name for name, p in self.named_parameters() if p.requires_grad}

    def measured_names(self) -> set[str]:
        """Statistics of the training data: the buffers that modules list in `MEASURED`."""
        return {
            f"{prefix}.{name}".lstrip(".")
            for prefix, module in self.named_modules()
            for name in getattr(module, "MEASURED", ())
            if getattr(module, name) is not None
        }

    def learned_names(self) -> set[str]:
        """Names of the weights in checkpoints."""
        return self.trainable_names() | self.held | self.measured_names()

    def train_only(self, patterns: Sequence[str | Mapping[str, Sequence[int]]]) -> None:
        """Freeze all weights that match no pattern, such as "fusion.experts.4.*".

        {pattern: [4]} trains only row 4. Checkpoints still hold all learned weights.
        """
        learned = {name: p for name, p in self.named_parameters() if p.requires_grad}
        chosen = {}
        for entry in patterns:
            entries = entry if isinstance(entry, Mapping) else {entry: None}
            for pattern, rows in entries.items():
                names = fnmatch.filter(learned, pattern)
                if not names:
                    raise PamError(f"trainable: {pattern!r}: {nearest(pattern, learned)}")
                chosen |= dict.fromkeys(names, rows)
        for name, parameter in learned.items():
            if name not in chosen:
                parameter.requires_grad_(False)
            elif chosen[name] is not None:
                train_rows(parameter, chosen[name], name)
        self.held = frozenset(learned.keys() - chosen.keys())

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        everything = super().state_dict(*args, **kwargs)
        keep = self.learned_names()
        return type(everything)((k, v) for k, v in everything.items() if k in keep)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, **kwargs):
        """Load learned weights. `PamError` names the first weight that does not fit."""
        for name, own in (*self.named_parameters(), *self.named_buffers()):
            if name in state_dict and state_dict[name].shape != own.shape:
                raise PamError(
                    f"the checkpoint is of another system: {name} is {[*state_dict[name].shape]}, "
                    f"not {[*own.shape]}"
                )
        result = super().load_state_dict(state_dict, strict=False, **kwargs)
        missing = sorted(self.learned_names() - set(state_dict))
        if strict and (missing or result.unexpected_keys):
            raise PamError(
                f"the checkpoint is of another system: missing {missing[:1]}, "
                f"unexpected {result.unexpected_keys[:1]}"
            )
        return result

    def collect_feats(self, **batch: Tensor) -> dict[str, Tensor]:
        """ESPnet's statistics stage is not used, because the dump writes the lengths."""
        return {}


def train_rows(parameter: nn.Parameter, rows: Sequence[int], name: str) -> None:
    """Train only these rows of a weight.

    The attribute `partial` disables weight decay, which would change the other rows too.
    """
    if wrong := [row for row in rows if not 0 <= row < len(parameter)]:
        raise PamError(f"trainable: {name} has {len(parameter)} rows, so no row {wrong[0]}")
    moves = torch.zeros(len(parameter), *[1] * (parameter.dim() - 1))
    moves[list(rows)] = 1
    parameter.register_hook(lambda gradient: gradient * moves.to(gradient.device))
    parameter.partial = True
