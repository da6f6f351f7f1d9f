"""What every ESPnet model here does about its frozen parts."""

from collections.abc import Mapping

from espnet2.train.abs_espnet_model import AbsESPnetModel
from torch import Tensor

from pam.errors import UserError


class TrainableOnlyModel(AbsESPnetModel):
    """An ESPnet model whose checkpoints hold what is trained, nothing else.

    The frozen weights are the pretrained models' own files. `to` moves the model but keeps every
    part's type: ESPnet would cast a bfloat16 LLM to its `train_dtype`.
    """

    def to(self, *args, dtype=None, **kwargs):
        return super().to(*args, **kwargs)

    def trainable_names(self) -> set[str]:
        return {name for name, p in self.named_parameters() if p.requires_grad}

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        everything = super().state_dict(*args, **kwargs)
        keep = self.trainable_names()
        return type(everything)((k, v) for k, v in everything.items() if k in keep)

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, **kwargs):
        """Load trainable weights; what does not fit is an error that names the first mismatch."""
        result = super().load_state_dict(state_dict, strict=False, **kwargs)
        missing = sorted(self.trainable_names() - set(state_dict))
        if strict and (missing or result.unexpected_keys):
            raise UserError(
                f"the checkpoint is of another system: missing {missing[:1]}, "
                f"unexpected {result.unexpected_keys[:1]}"
            )
        return result

    def collect_feats(self, **batch: Tensor) -> dict[str, Tensor]:
        """ESPnet's statistics stage is not used: the dump writes the lengths."""
        return {}
