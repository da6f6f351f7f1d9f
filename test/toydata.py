"""Combined data for trainings of seconds: random encoder states, short answers."""

import numpy as np

from pam.data.archive import write_archive
from pam.data.scp import write_table
from pam.encoders.pooling import dump_name

TASKS = {"asr_clean": "hello you", "asr_noisy": "go on", "snv": "two", "ac": "a bell"}
SHAPES = {"first": (3, 6), "second": (2, 4)}


def make_combined(folder, count=6, native=False):
    """A combined directory of random states: `count` utterances of each task. `native`: at 50 Hz,
    the odd last frame left out."""
    rng = np.random.default_rng(0)
    utts = {f"{task}-{i}": task for task in sorted(TASKS) for i in range(count)}
    frames = {utt: int(rng.integers(30, 40)) for utt in utts}
    write_table(folder / "utt2task", utts)
    write_table(folder / "text", {utt: TASKS[task] for utt, task in utts.items()})
    write_table(folder / "utt2num_frames", {utt: str(n) for utt, n in frames.items()})
    for name, (states, dim) in SHAPES.items():
        arrays = (
            (utt, rng.standard_normal((2 * n - 1 if native else n, states * dim)).astype("f2"))
            for utt, n in frames.items()
        )
        scp = folder / f"feats_{dump_name(name, native)}.scp"
        write_archive(folder / f"{name}.ark", scp, arrays)
    return folder
