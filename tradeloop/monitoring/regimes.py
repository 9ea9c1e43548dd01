"""The volatility regime of a bar: low, normal or high, told from closed bars only.

1. Volatility at a bar is the root mean square of the last `bars` Parkinson ranges, ``ln(H/L)``, its own included.
2. Its place is the share of the last `history` volatilities before it that are lower, ties counted half.
3. Below the share `low` the regime is low, from `high` on it is high, between them normal; with fewer than `warm_up`
   volatilities before it, unknown.

A place among past values needs no level of its own, so the same numbers serve a stock and a coin, and nothing that
happens later moves it. Both windows are finite: a bar's regime needs the last ``bars + history`` bars and no others.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats
from tradeloop.config import Regimes
from tradeloop.monitoring.records import Regime

REGIMES: tuple[Regime, ...] = ("unknown", "low", "normal", "high")
"""What the codes 0, 1, 2 and 3 mean."""

_ROWS_AT_ONCE = 4096

Codes = NDArray[np.int8]


def regime_codes(bars: Bars, config: Regimes, *, since: int = 0) -> Codes:
    """Return the code (`REGIMES`) of each bar from position `since` on, int8 (n - since,).

    Parameters
    ----------
    bars
        Closed bars of one symbol, oldest first.
    since
        Where to begin; no more than the bars that are needed before it are read.
    """
    start = max(0, since - config.history - config.bars + 1)
    level = _level(bars[start:], config.bars)
    place = _places(level, config, since - start)
    codes = np.full(len(place), 2, dtype=np.int8)
    codes[place < config.low] = 1
    codes[place >= config.high] = 3
    codes[np.isnan(place)] = 0
    return codes


def regime_at(bars: Bars, position: int, config: Regimes) -> Regime:
    """Return the regime of one bar.

    Parameters
    ----------
    position
        Of the bar, from 0; bars after it are not looked at.
    """
    return REGIMES[int(regime_codes(bars[: position + 1], config, since=position)[0])]


def _level(bars: Bars, window: int) -> Floats:
    """Return the mean squared log range of the last `window` bars (n,), NaN before there are so many."""
    level = np.full(len(bars), np.nan)
    if len(bars) >= window:
        squared = np.log(bars.high / bars.low) ** 2
        level[window - 1 :] = sliding_window_view(squared, window).mean(axis=-1)
    return level


def _places(level: Floats, config: Regimes, since: int) -> Floats:
    """Return the share of lower levels before each bar from `since` on, NaN in warm-up."""
    places = np.full(len(level) - since, np.nan)
    # The window of row i ends right before bar i.
    before = sliding_window_view(np.concatenate([np.full(config.history, np.nan), level]), config.history)
    known = np.clip(np.arange(len(level)) - (config.bars - 1), 0, config.history)
    for first in range(since, len(level), _ROWS_AT_ONCE):
        rows = slice(first, min(first + _ROWS_AT_ONCE, len(level)))
        own = level[rows, None]
        lower = np.count_nonzero(before[rows] < own, axis=1) + 0.5 * np.count_nonzero(before[rows] == own, axis=1)
        enough = known[rows] >= config.warm_up
        places[first - since : rows.stop - since][enough] = lower[enough] / known[rows][enough]
    return places
