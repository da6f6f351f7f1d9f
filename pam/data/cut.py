"""Cut long audio into pieces at quiet places.

A piece ends at the quietest place in the last third of what the model can take. Neighbouring
pieces overlap, so that a word at the cut is whole in one of them; `pam.decode.join` joins the
answers. The audio comes in blocks, and only one block and one piece are in memory.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pam.data.longest import is_beyond
from pam.rate import SAMPLE_RATE

LONGEST_PIECE = 30.0  # seconds; Whisper's encoder reads no more at a time
WINDOW_SHARE = 1 / 3  # of a piece: where the cut is searched
OVERLAP_SECONDS, OVERLAP_SHARE = 1.0, 1 / 8  # the shorter of the two
HOP_SAMPLES = SAMPLE_RATE // 100
SMOOTHED_HOPS = 20  # 0.2 s: longer than the closure of a plosive, shorter than most pauses


@dataclass(frozen=True)
class AudioPiece:
    """A part of a recording: mono samples at 16 kHz that begin `start` seconds after its start."""

    start: float
    samples: Float[np.ndarray, " N"]

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / SAMPLE_RATE


def longest_piece(longest: float | None) -> float:
    """Seconds that a piece has at most, if the longest training clip has `longest` seconds."""
    return LONGEST_PIECE if longest is None else min(LONGEST_PIECE, longest)


def overlap_seconds(limit: float) -> float:
    """The overlap of neighbouring pieces of at most `limit` seconds."""
    return min(OVERLAP_SECONDS, OVERLAP_SHARE * limit)


def cut_audio(blocks: Iterable[Float[np.ndarray, " N"]], limit: float) -> Iterator[AudioPiece]:
    """Cut the audio in `blocks` into pieces of at most `limit` seconds; the last may have 5 % more.

    Audio that is not longer is one piece. The pieces do not depend on the sizes of the blocks.
    """
    most, half = round(limit * SAMPLE_RATE), round(overlap_seconds(limit) * SAMPLE_RATE / 2)
    window = round(WINDOW_SHARE * limit * SAMPLE_RATE)
    begin, rest = 0, np.empty(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        while is_beyond(len(rest) / SAMPLE_RATE, limit):
            last = most - half
            place = last - window + quietest(rest[last - window : last])
            yield AudioPiece(begin / SAMPLE_RATE, rest[: place + half])
            rest, begin = rest[place - half :], begin + place - half
    if len(rest):
        yield AudioPiece(begin / SAMPLE_RATE, rest)


def quietest(samples: Float[np.ndarray, " N"]) -> int:
    """The sample in the middle of the quietest 0.2 s; of a longer silence, the silence's middle."""
    if len(samples) < HOP_SAMPLES:
        return len(samples) // 2
    hops = len(samples) // HOP_SAMPLES
    energy = np.square(samples[: hops * HOP_SAMPLES]).reshape(hops, HOP_SAMPLES).sum(axis=1)
    width = min(SMOOTHED_HOPS, hops)
    sums = np.convolve(energy.astype(np.float64), np.ones(width), mode="valid")
    lowest = np.flatnonzero(sums <= sums.min())
    return round((lowest[len(lowest) // 2] + width / 2) * HOP_SAMPLES)
