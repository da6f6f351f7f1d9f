"""Levels, cuts and mixtures of 16 kHz samples; decibels are of the mean power."""

import numpy as np
from jaxtyping import Float

from pam.rate import SAMPLE_RATE

FADE_SAMPLES = SAMPLE_RATE // 200  # 5 ms: a cut must not click
LEVEL_DB = -26.0  # mean power of what is brought to a common level; full scale is 0
FRAME_SAMPLES = SAMPLE_RATE // 100
TINY = 1e-12


def power(samples: Float[np.ndarray, " N"]) -> float:
    return float(np.mean(np.square(samples, dtype=np.float64))) + TINY


def gain(decibels: float) -> np.float32:
    return np.float32(10 ** (decibels / 20))


def at_level(
    samples: Float[np.ndarray, " N"], level_db: float = LEVEL_DB
) -> Float[np.ndarray, " N"]:
    """Scaled to a mean power of `level_db` relative to full scale."""
    return samples * gain(level_db - 10 * np.log10(power(samples)))


def mix_at_snr(
    speech: Float[np.ndarray, " N"], noise: Float[np.ndarray, " N"], snr_db: float
) -> Float[np.ndarray, " N"]:
    """Speech plus noise scaled so that the ratio of their powers is `snr_db`."""
    return speech + noise * gain(10 * np.log10(power(speech) / power(noise)) - snr_db)


def looped(samples: Float[np.ndarray, " N"], length: int, start: int) -> Float[np.ndarray, " M"]:
    """`length` samples from `start` on, beginning again at the end."""
    return np.take(samples, np.arange(start, start + length), mode="wrap")


def faded(samples: Float[np.ndarray, " N"]) -> Float[np.ndarray, " N"]:
    """With short ramps at both ends."""
    count = min(FADE_SAMPLES, len(samples) // 2)
    out = samples.copy()
    ramp = np.linspace(0, 1, count, endpoint=False, dtype=np.float32)
    out[:count] *= ramp
    out[len(out) - count :] *= ramp[::-1]
    return out


def loudest_start(samples: Float[np.ndarray, " N"], length: int) -> int:
    """Where the part of `length` samples with most energy starts, in steps of 10 ms."""
    if len(samples) <= length:
        return 0
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    starts = np.arange(0, len(samples) - length + 1, FRAME_SAMPLES)
    return int(starts[np.argmax(energy[starts + length] - energy[starts])])


def silence(seconds: float) -> Float[np.ndarray, " N"]:
    return np.zeros(round(seconds * SAMPLE_RATE), np.float32)
