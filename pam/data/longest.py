"""The longest clip that an experiment was trained on; longer clips in decoding log a warning.

exp/NAME/training_audio.json    {"longest_seconds": …}; older experiments do not have this file
"""

import json
from pathlib import Path

from pam.atomic import write_json
from pam.data.scp import read_text_file
from pam.rate import FRAMES_PER_SECOND

RECORD = "training_audio.json"
TOLERANCE = 1.05  # no warning for a clip that is up to 5 % longer


def record_longest(exp: Path, train: Path) -> None:
    """Write the length of the longest clip of the combined training directory `train` to `exp`."""
    frames = read_text_file(train / "utt2num_frames").values()
    write_json(exp / RECORD, {"longest_seconds": max(map(int, frames)) / FRAMES_PER_SECOND})


def read_longest(exp: Path) -> float | None:
    """Seconds of the longest clip that `exp` was trained on; None if unknown."""
    try:
        return float(json.loads((exp / RECORD).read_text(encoding="utf-8"))["longest_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def is_beyond(seconds: float, longest: float | None) -> bool:
    """Whether a clip is longer than all training clips."""
    return longest is not None and seconds > TOLERANCE * longest


def beyond(name: str, seconds: float, longest: float) -> str:
    """The warning about one clip."""
    return (
        f"{name}: {seconds:.1f} s of audio, but the model was trained on clips of up to "
        f"{longest:.1f} s: the answer may miss parts or repeat itself; cut the audio"
    )
