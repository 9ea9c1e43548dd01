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
_FEW = 8
"""Up to so many bars are cheaper one by one."""

Codes = NDArray[np.int8]


def regime_codes(bars: Bars, config: Regimes) -> Codes:
    """Return the code (`REGIMES`) of each bar of a history, int8 (n,)."""
    return RegimeTracker(config).codes(bars, 0, len(bars) - 1)


def regime_at(bars: Bars, position: int, config: Regimes) -> Regime:
    """Return the regime of one bar, from the bars that it needs; those after `position` are not looked at."""
    start = max(0, position - config.history - config.bars + 1)
    last = position - start
    return REGIMES[int(RegimeTracker(config).codes(bars[start : position + 1], last, last)[0])]


class RegimeTracker:
    """Regimes of one symbol whose bars grow; a bar costs the same however many there are.

    It remembers the volatility of bars that it has seen, so one whose bars were restated needs a new tracker.
    """

    def __init__(self, config: Regimes) -> None:
        self._config = config
        self._level = np.empty(1024)
        self._size = 0

    def codes(self, bars: Bars, first: int, last: int) -> Codes:
        """Return the codes of the bars from position `first` to `last`."""
        self._learn(bars, last + 1)
        config, level = self._config, self._level[: last + 1]
        if last - first < _FEW:
            place = np.array([_place(level, row, config) for row in range(first, last + 1)])
        else:
            place = _places(level, config, first)
        codes = np.full(len(place), 2, dtype=np.int8)
        codes[place < config.low] = 1
        codes[place >= config.high] = 3
        codes[np.isnan(place)] = 0
        return codes

    def _learn(self, bars: Bars, size: int) -> None:
        """Take up the levels of the bars before position `size`."""
        known, window = self._size, self._config.bars
        if size <= known:
            return
        if size > len(self._level):
            self._level = np.concatenate([self._level[:known], np.empty(2 * size - known)])
        start = max(0, known - window + 1)
        squared = np.log(bars.high[start:size] / bars.low[start:size]) ** 2
        for row in range(known, min(size, window - 1)):
            self._level[row] = np.nan
        first = max(known, window - 1)
        if size - first < _FEW:
            for row in range(first, size):
                self._level[row] = squared[row - window + 1 - start : row + 1 - start].mean()
        else:
            self._level[first:size] = sliding_window_view(squared, window)[first - window + 1 - start :].mean(axis=-1)
        self._size = size


def _place(level: Floats, row: int, config: Regimes) -> float:
    """Return the share of lower levels before a bar, NaN in warm-up."""
    known = min(row - (config.bars - 1), config.history)
    if known < config.warm_up:
        return float("nan")
    before, own = level[row - known : row], level[row]
    return (np.count_nonzero(before < own) + 0.5 * np.count_nonzero(before == own)) / known


def _places(level: Floats, config: Regimes, first: int) -> Floats:
    """Return `_place` of all bars from `first` on at once."""
    size = len(level)
    places = np.full(size - first, np.nan)
    # The window of row i ends right before bar i.
    before = sliding_window_view(np.concatenate([np.full(config.history, np.nan), level]), config.history)
    known = np.clip(np.arange(size) - (config.bars - 1), 0, config.history)
    for start in range(first, size, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, size))
        own = level[rows, None]
        lower = np.count_nonzero(before[rows] < own, axis=1) + 0.5 * np.count_nonzero(before[rows] == own, axis=1)
        enough = known[rows] >= config.warm_up
        places[start - first : rows.stop - first][enough] = lower[enough] / known[rows][enough]
    return places
