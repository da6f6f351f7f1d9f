"""AVG Rank: the mean of a row's ranks over the columns of a table."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata


def average_rank(values: Sequence[Sequence[float | None]], better: Sequence[str]) -> list[float]:
    """The mean rank of every row of `values` [R rows, C columns]; 1 is best.

    `better` has "lower" or "higher" for each column. Ranks are ordinal: of equal values the earlier
    row is better, as in the paper's tables. A missing value (None) is the worst.
    """
    if unknown := set(better) - {"lower", "higher"}:
        raise ValueError(f"better: expected 'lower' or 'higher', found {min(unknown)!r}")
    sign_C = np.array([1.0 if way == "lower" else -1.0 for way in better])
    costs_RC = np.array(values, dtype=float) * sign_C  # None becomes nan
    costs_RC[np.isnan(costs_RC)] = np.inf
    return rankdata(costs_RC, method="ordinal", axis=0).mean(axis=1).tolist()
