"""Combined data for trainings of seconds: random encoder states, short answers."""

import numpy as np

from pam.data.archive import write_archive
from pam.data.scp import write_text_file

TASKS = {"asr_clean": "hello you", "asr_noisy": "go on", "snv": "two", "ac": "a bell"}
SHAPES = {"first": (3, 6), "second": (2, 4)}


def make_combined(folder, count=6):
    """A combined directory of random states: `count` utterances of each task."""
    rng = np.random.default_rng(0)
    utts = {f"{task}-{i}": task for task in sorted(TASKS) for i in range(count)}
    frames = {utt: int(rng.integers(30, 40)) for utt in utts}
    write_text_file(folder / "utt2task", utts)
    write_text_file(folder / "text", {utt: TASKS[task] for utt, task in utts.items()})
    write_text_file(folder / "utt2num_frames", {utt: str(n) for utt, n in frames.items()})
    for name, (states, dim) in SHAPES.items():
        arrays = (
            (utt, rng.standard_normal((n, states * dim)).astype("f2")) for utt, n in frames.items()
        )
        scp = folder / f"feats_{name}.scp"
        write_archive(folder / f"{name}.ark", scp, arrays)
    return folder
