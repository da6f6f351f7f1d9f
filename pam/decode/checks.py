"""Scores that mark doubtful answers. They change no token.

Silence, steady noise and very short clips make a Speech LLM invent sentences, and greedy search may
repeat itself. The thresholds are in `pam.decode.settings`. The scores of silence look at the audio
alone: to what it invents, the model gives the same probabilities as to what it hears
(egs/multitask/RESULTS.md).
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from pam.data.audio import load_audio
from pam.data.datadir import DataDir
from pam.data.tasks import get_task
from pam.errors import PamError
from pam.rate import SAMPLE_RATE

# Where a score is 0.5, and how far from there it is 0.27 or 0.73.
SILENT_DB = -55.0, 3.0  # dBFS, the loudest 100 ms
STEADY_DB = 4.0, 0.5  # dB, from the quiet frames to the loud ones
SHORT_SECONDS = 0.5, 0.1
PREEMPHASIS = 0.97  # so that the slow waves of low noise do not count as changes
FLOOR = 1e-12  # power; -120 dB


def no_speech(samples: Float[np.ndarray, " N"], is_transcript: bool) -> float:
    """A score from 0 to 1 that a clip has nothing to answer about; 0.5 is where that begins.

    It is the highest of three: the loudest 100 ms are below -55 dBFS; the clip is shorter than
    0.5 s; and, if it is to be transcribed, its level is steady as that of noise or hum, that is, it
    changes by less than 4 dB (percentiles 10 and 95 of frames of 25 ms). Other prompts may ask
    about a steady sound.
    """
    loudest = levels(samples, SAMPLE_RATE // 10).max()
    scores = [
        _below(loudest, *SILENT_DB),
        _below(len(samples) / SAMPLE_RATE, *SHORT_SECONDS),
    ]
    if is_transcript:
        emphasised = np.append(samples[:1], samples[1:] - PREEMPHASIS * samples[:-1])
        quiet, loud = np.percentile(levels(emphasised, SAMPLE_RATE // 40), (10, 95))
        scores.append(_below(loud - quiet, *STEADY_DB))
    return max(scores)


def levels(samples: Float[np.ndarray, " N"], width: int) -> Float[np.ndarray, " M"]:
    """The levels in dBFS of parts of `width` samples; of the whole if it is shorter."""
    width = min(width, len(samples))
    parts = samples[: len(samples) // width * width].reshape(-1, width)
    return 10 * np.log10(np.square(parts, dtype=np.float64).mean(axis=1) + FLOOR)


def _below(value: float, middle: float, width: float) -> float:
    return 0.5 - 0.5 * math.tanh((value - middle) / (2 * width))


def repetition(text: str) -> float:
    """The share of repeated trigrams of words: 1 - distinct / all (rep-3 of Welleck et al., 2020,
    "Neural Text Generation with Unlikelihood Training"). In a single word, of characters."""
    words = text.casefold().split()
    units = words if len(words) > 1 else text.casefold().strip()
    trigrams = [tuple(units[at : at + 3]) for at in range(len(units) - 2)]
    return 1 - len(set(trigrams)) / len(trigrams) if trigrams else 0.0


def no_speech_of(data: DataDir, utt: str, needed: bool) -> float | None:
    """The score of an utterance; None if its audio is gone, unless that is `needed`."""
    path, start, end = data.audio(utt)
    try:
        samples = load_audio(path, start, end)
    except PamError as error:
        if needed:
            raise PamError(f"--skip_silence: no audio of {utt}: {error}") from error
        return None
    return no_speech(samples, get_task(data["utt2task"][utt]).metric == "wer")


def checked(
    line: Mapping[str, Any], score: float | None, skip_silence: float | None
) -> dict[str, Any]:
    """A line of hyp.jsonl with its scores; without its answer if `score` reaches `skip_silence`."""
    skipped = skip_silence is not None and score >= skip_silence
    found = {**line, "hyp": ""} if skipped else dict(line)
    found["no_speech"] = None if score is None else round(score, 4)
    found["repetition"] = round(repetition(found["hyp"]), 4)
    return found | {"skipped": True} if skipped else found
