"""How long the clips are that an experiment is trained on: of longer ones it has learned nothing.

exp/NAME/training_audio.json    {"longest_seconds": …}; older experiments have none
"""

import json
from pathlib import Path

from pam.atomic import write_json
from pam.data.audio import FRAMES_PER_SECOND
from pam.data.scp import read_text_file

RECORD = "training_audio.json"
TOLERANCE = 1.05  # a clip that is hardly longer is none to warn of


def record_longest(exp: Path, train: Path) -> None:
    """Note in `exp` the longest clip of the combined training directory `train`."""
    frames = read_text_file(train / "utt2num_frames").values()
    write_json(exp / RECORD, {"longest_seconds": max(map(int, frames)) / FRAMES_PER_SECOND})


def read_longest(exp: Path) -> float | None:
    """Seconds of the longest clip that `exp` was trained on; None where it is not known."""
    try:
        return float(json.loads((exp / RECORD).read_text(encoding="utf-8"))["longest_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_beyond(seconds: float, longest: float | None) -> bool:
    """Is a clip longer than what was trained on?"""
    return longest is not None and seconds > TOLERANCE * longest


def beyond(name: str, seconds: float, longest: float) -> str:
    """The warning about one clip."""
    return (
        f"{name}: {seconds:.1f} s of audio, but the model was trained on clips of up to "
        f"{longest:.1f} s: the answer may miss parts or repeat itself; cut the audio"
    )
