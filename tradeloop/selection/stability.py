"""How far several choices of columns agree, beyond what chance would make them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tradeloop.metrics.bootstrap import Interval


def stability(chosen: NDArray[np.bool_], *, confidence: float = 0.95) -> Interval:
    """Return the stability of m choices among d columns (m, d), with its normal interval.

    1 if all choices are the same, 0 in expectation if they are drawn by lot, whatever their sizes; NaN where fewer than
    two choices were made, or each took all columns or none. Nogueira, Sechidis and Brown (2018), On the stability of
    feature selection algorithms, equation 4 and corollary 9.
    """
    from scipy.stats import norm

    z = chosen.astype(np.float64)
    m, d = z.shape
    share, size = z.mean(axis=0), z.sum(axis=1)
    mean = float(share.mean())
    if m < 2 or not 0 < mean < 1:
        return Interval(float("nan"), float("nan"), float("nan"))
    chance = mean * (1 - mean)
    value = 1.0 - m / (m - 1) * float((share * (1 - share)).mean() / chance)
    apart = 2 * size * mean / d - size / d - mean + 1
    each = ((z * share).mean(axis=1) - size * mean / d + value / 2 * apart) / chance
    error = 2.0 / m * float(np.sqrt(((each - each.mean()) ** 2).sum()))
    half = float(norm.ppf((1 + confidence) / 2)) * error
    return Interval(value, value - half, min(value + half, 1.0))
