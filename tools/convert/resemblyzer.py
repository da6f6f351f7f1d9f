"""Resemblyzer's checkpoint (.pt) to a folder that pam.encoders.resemblyzer loads."""

from pathlib import Path

from convert.weights import load_exactly, rename
from pam.checkpoint import read_checkpoint
from pam.encoders.resemblyzer import ResemblyzerConfig, ResemblyzerModel
from pam.errors import PamError

# One LSTM of several layers is one of one layer for each of ours.
RENAMES = [(r"^lstm\.(\w+)_l(\d+)$", r"layers.\2.\1_l0")]
TRAINING = ("similarity_weight", "similarity_bias")  # of the GE2E loss


def convert(source: Path, folder: Path) -> None:
    """Write config and float32 weights into `folder`; those of the loss are left out."""
    checkpoint = read_checkpoint(str(source))
    if not isinstance(checkpoint, dict) or "lstm.weight_ih_l0" not in checkpoint.get(
        "model_state", {}
    ):
        raise PamError(f"{source}: no 'lstm.weight_ih_l0' in 'model_state': is it Resemblyzer's?")
    found = checkpoint["model_state"]
    weights = {rename(k, RENAMES): v for k, v in found.items() if k not in TRAINING}
    config = ResemblyzerConfig(
        num_mels=found["lstm.weight_ih_l0"].shape[1],
        hidden_size=found["lstm.weight_hh_l0"].shape[1],
        num_layers=sum(key.startswith("lstm.weight_hh_l") for key in found),
    )
    model = ResemblyzerModel(config).eval()
    load_exactly(model, weights)
    model.save_pretrained(folder)
