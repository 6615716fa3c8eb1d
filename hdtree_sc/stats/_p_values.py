"""P-values from a null, and one of several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]


def share_below(null: Array, values: Array) -> Array:
    """Share of a null at most as large as each value, the value itself counted; missing values stay missing."""
    below = np.searchsorted(np.sort(null), values, side="right")
    return np.where(np.isnan(values), np.nan, (1 + below) / (1 + len(null)))


def combined_p(p: Array) -> float:
    """One p-value of several: Fisher's or Simes', whichever is lower, times two."""
    from scipy.stats import combine_pvalues

    if len(p) < 2:
        return float(p[0]) if len(p) else float("nan")
    several = float(combine_pvalues(np.maximum(p, 1e-300), method="fisher").pvalue)
    one = float((np.sort(p) * len(p) / np.arange(1, len(p) + 1)).min())
    return min(1.0, 2 * min(several, one))
