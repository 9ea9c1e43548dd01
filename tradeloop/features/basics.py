"""What many features are made from, computed once for the same bars.

Prices are logs, so a difference is a relative change whatever the currency. All are float64 of length n; what needs the
bar before is NaN at the first.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.compiled import compiled
from tradeloop.features.rolling import lag

# Rows of `_logs`: prices, then changes.
_HIGH, _LOW, _CLOSE, _CHANGE, _GAP, _BODY, _SPREAD, _TRUE_RANGE = range(8)
_UP_OPEN, _UP_CLOSE, _DOWN_OPEN, _DOWN_CLOSE = range(8, 12)


@compiled
def _ratios(opened: Floats, high: Floats, low: Floats, close: Floats) -> Floats:
    rows = np.full((12, len(close)), np.nan)
    for i in range(len(close)):
        rows[_HIGH, i], rows[_LOW, i], rows[_CLOSE, i] = high[i], low[i], close[i]
        rows[_BODY, i], rows[_SPREAD, i] = close[i] / opened[i], high[i] / low[i]
        rows[_UP_OPEN, i], rows[_UP_CLOSE, i] = high[i] / opened[i], high[i] / close[i]
        rows[_DOWN_OPEN, i], rows[_DOWN_CLOSE, i] = low[i] / opened[i], low[i] / close[i]
        if i > 0:
            before = close[i - 1]
            rows[_CHANGE, i], rows[_GAP, i] = close[i] / before, opened[i] / before
            rows[_TRUE_RANGE, i] = max(high[i], before) / min(low[i], before)
    return rows


def _logs(bars: Bars) -> Floats:
    """Return the logs of prices and of their ratios as rows: one call for all of them."""

    def make() -> Floats:
        rows = _ratios(bars.open, bars.high, bars.low, bars.close)
        return np.log(rows, out=rows)

    return bars.memo("logs", make)


def _row(bars: Bars, row: int) -> Floats:
    values: Floats = _logs(bars)[row]
    return values


def log_high(bars: Bars) -> Floats:
    """Log of the high."""
    return _row(bars, _HIGH)


def log_low(bars: Bars) -> Floats:
    """Log of the low."""
    return _row(bars, _LOW)


def log_close(bars: Bars) -> Floats:
    """Log of the close."""
    return _row(bars, _CLOSE)


def change(bars: Bars) -> Floats:
    """Log return of the bar, close to close: ln(C_t / C_{t−1})."""
    return _row(bars, _CHANGE)


def move(bars: Bars) -> Floats:
    """Size of `change`."""
    return bars.memo("move", lambda: np.abs(change(bars)))


def squared_change(bars: Bars) -> Floats:
    """Square of `change`."""
    return bars.memo("squared_change", lambda: change(bars) ** 2)


def gap(bars: Bars) -> Floats:
    """Log change from the close before to the open: ln(O_t / C_{t−1})."""
    return _row(bars, _GAP)


def body(bars: Bars) -> Floats:
    """Log change from open to close: ln(C / O)."""
    return _row(bars, _BODY)


def spread(bars: Bars) -> Floats:
    """Log range: ln(H / L)."""
    return _row(bars, _SPREAD)


def previous_close(bars: Bars) -> Floats:
    """Close of the bar before."""
    return bars.memo("previous_close", lambda: lag(bars.close, 1))


def true_range(bars: Bars) -> Floats:
    """Wilder's true range of log prices: ln(max(H, C_{t−1}) / min(L, C_{t−1}))."""
    return _row(bars, _TRUE_RANGE)


def typical(bars: Bars) -> Floats:
    """Typical price: (H + L + C) / 3."""
    return bars.memo("typical", lambda: (bars.high + bars.low + bars.close) / 3)


def parkinson_variance(bars: Bars) -> Floats:
    """Each bar's variance from its range: ln(H/L)² / (4 ln 2). Parkinson (1980)."""
    return bars.memo("parkinson_variance", lambda: spread(bars) ** 2 / (4 * math.log(2)))


def rogers_satchell_variance(bars: Bars) -> Floats:
    """Each bar's variance, free of drift: ln(H/O) ln(H/C) + ln(L/O) ln(L/C). Rogers, Satchell (1991)."""

    def make() -> Floats:
        rows = _logs(bars)
        up: Floats = rows[_UP_OPEN] * rows[_UP_CLOSE]
        down: Floats = rows[_DOWN_OPEN] * rows[_DOWN_CLOSE]
        return up + down

    return bars.memo("rogers_satchell_variance", make)


def typical_flow(bars: Bars) -> Floats:
    """Money traded: typical price × volume."""
    return bars.memo("typical_flow", lambda: typical(bars) * bars.volume)
