"""SpeechBrain's ECAPA-TDNN to a folder that pam.encoders.ecapa loads."""

from pathlib import Path

from pam.encoders import load_encoder


def convert(source: Path, folder: Path) -> None:
    """Write config and float32 weights of the blocks into `folder`; what pools their frames over
    time, and the speaker embedding after it, are left out."""
    load_encoder({"family": "ecapa", "path": str(source)}).model.save_pretrained(folder)
