"""Confidence intervals and paired tests, by resampling utterances.

Every metric here is a ratio of sums over utterances: errors / words for WER, points / 1 for a mean.
"""

# U utterances, N bootstrap samples
from collections.abc import Sequence

import numpy as np
from scipy.stats import norm

SAMPLES = 2000
_DRAWS_AT_ONCE = 4_000_000  # bounds the memory: indices drawn in one go


def bootstrap_ratios(numerators: np.ndarray, denominators: np.ndarray, seed: int) -> np.ndarray:
    """Ratios of sums of `numerators` [K, U] over `denominators` [U], resampled: [K, N].

    All K rows see the same resampled utterances, which is what makes a comparison paired.
    """
    count = denominators.shape[0]
    rng = np.random.default_rng(seed)
    chunk = max(1, _DRAWS_AT_ONCE // count)
    ratios_KN = []
    for start in range(0, SAMPLES, chunk):
        index_NU = rng.integers(count, size=(min(chunk, SAMPLES - start), count))
        total_N = denominators[index_NU].sum(axis=1)
        sums_KN = np.stack([row[index_NU].sum(axis=1) for row in numerators])
        # A sample without a single reference word says nothing: nan, left out of the quantiles.
        with np.errstate(invalid="ignore", divide="ignore"):
            ratios_KN.append(np.where(total_N > 0, sums_KN / total_N, np.nan))
    return np.concatenate(ratios_KN, axis=1)


def ci95(
    numerators: Sequence[float],
    denominators: Sequence[float] | None = None,
    *,
    seed: int = 0,
    scale: float = 100.0,
) -> list[float]:
    """Percentile interval of `scale` · Σ numerators / Σ denominators (without these: a mean)."""
    num_U = np.asarray(numerators, dtype=np.float64)
    den_U = np.ones_like(num_U) if denominators is None else np.asarray(denominators, np.float64)
    ratios_N = bootstrap_ratios(num_U[None], den_U, seed)[0]
    return [round(scale * float(q), 4) for q in np.nanquantile(ratios_N, [0.025, 0.975])]


def proportion_ci95(hits: Sequence[bool], *, seed: int = 0) -> list[float]:
    """Interval, in percent, of the share of true values.

    Where all are true or all false every resample is the same and the bootstrap's interval has no
    width, which overstates what a few utterances prove: there it is Wilson's interval.
    """
    values_U = np.asarray(hits, dtype=np.float64)
    if 0 < values_U.sum() < values_U.size:
        return ci95(values_U, seed=seed)
    return wilson95(int(values_U.sum()), values_U.size)


def wilson95(correct: int, count: int) -> list[float]:
    """Wilson's 95 % score interval of `correct` out of `count`, in percent."""
    z2 = 1.959964**2
    share = correct / count
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    spread = (z2 * (share * (1 - share) / count + z2 / (4 * count**2))) ** 0.5 / (1 + z2 / count)
    return [round(100 * max(0.0, centre - spread), 4), round(100 * min(1.0, centre + spread), 4)]


def paired_bootstrap(
    first: Sequence[float],
    second: Sequence[float],
    denominators: Sequence[float] | None = None,
    *,
    seed: int = 0,
    scale: float = 100.0,
) -> dict[str, float | list[float]]:
    """Is the difference of two systems on the same utterances more than chance?

    `first` and `second` are numerators [U], as for `ci95`. Returns `difference` (first − second,
    times `scale`), its `ci95`, and the two-sided `p`: twice the share of resamples on the other
    side of zero, at least 1 / N.
    """
    num_KU = _pair(first, second)
    den_U = np.ones(num_KU.shape[1]) if denominators is None else np.asarray(denominators, float)
    ratios_KN = bootstrap_ratios(num_KU, den_U, seed)
    deltas_N = ratios_KN[0] - ratios_KN[1]
    deltas_N = deltas_N[~np.isnan(deltas_N)]
    tail = min((deltas_N <= 0).mean(), (deltas_N >= 0).mean())
    low, high = np.quantile(deltas_N, [0.025, 0.975])
    return {
        "difference": scale * float((num_KU[0].sum() - num_KU[1].sum()) / den_U.sum()),
        "ci95": [scale * float(low), scale * float(high)],
        "p": min(1.0, max(2 * float(tail), 1 / SAMPLES)),
    }


def matched_pairs(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Matched pairs of segments: is the mean difference of their errors zero?

    The test of Gillick and Cox (ICASSP 1989) on counts of word errors [U]; every utterance is one
    segment, which supposes that errors in one utterance do not cause errors in the next. Returns
    `mean` (errors an utterance, first − second), `z` and the two-sided `p` of the normal
    distribution, good for some 50 utterances and more; z is infinite where every utterance differs
    by the same count.
    """
    num_KU = _pair(first, second)
    delta_U = num_KU[0] - num_KU[1]
    mean = float(delta_U.mean())
    if mean == 0 or delta_U.size == 1:
        return {"mean": mean, "z": 0.0, "p": 1.0}
    with np.errstate(divide="ignore"):
        z = float(mean / (delta_U.std(ddof=1) / np.sqrt(delta_U.size)))
    return {"mean": mean, "z": z, "p": float(2 * norm.sf(abs(z)))}


def _pair(first: Sequence[float], second: Sequence[float]) -> np.ndarray:
    """[2, U]; ValueError where there is no utterance or the systems do not have the same."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} utterances cannot be paired")
    if len(first) == 0:
        raise ValueError("no utterance to compare")
    return np.asarray([first, second], dtype=np.float64)
