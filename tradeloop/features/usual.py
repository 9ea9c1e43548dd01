"""A bar's count or amount against what is usual: what families on irregular data (liquidations, news, quotes) share."""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Floats
from tradeloop.features.rolling import lag, mean, moments, ratio

NONE = 0.01
"""Added to a ratio before its log, so that a bar without any has a finite one (ln 0.0099 = −4.6)."""

BURST = 3.0
"""Standard deviations above the mean of the bars before from where a bar stands out."""


def log_relative(values: Floats, usual: Floats) -> Floats:
    """Return ln((x / usual + 0.01) / 1.01); 0 where nothing is usual."""
    return np.log((ratio(values, usual, empty=1.0) + NONE) / (1 + NONE))


def against_mean(values: Floats, window: int) -> Floats:
    """Return `log_relative` to the mean over `window` bars, this one included."""
    return log_relative(values, mean(values, window))


def share(part: Floats, whole: Floats, *, empty: float = 0.5) -> Floats:
    """Return the quotient of two amounts, within [−1, 1]; `empty` where the whole is nothing."""
    return np.clip(ratio(part, whole, empty=empty), -1.0, 1.0)


def burst(values: Floats, window: int) -> Floats:
    """Return 1 where the value lies more than `BURST` standard deviations above the `window` bars before, else 0.

    Depends on ``window + 1`` bars; NaN where one of them is.
    """
    average, variance = moments(lag(values, 1), window)
    limit = average + BURST * np.sqrt(variance)
    # A constant amount that differs by rounding is no burst.
    stands_out = np.asarray(values > limit + 1e-9 * np.abs(limit), dtype=np.float64)
    return np.where(np.isnan(values + limit), np.nan, stands_out)
