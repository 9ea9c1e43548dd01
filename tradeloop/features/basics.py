"""What many features are made from, computed once for the same bars.

Prices are logs, so a difference is a relative change whatever the currency. All are float64 of length n; what needs the
bar before is NaN at the first.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.rolling import lag, log_return


def log_open(bars: Bars) -> Floats:
    """Log of the open."""
    return bars.memo("log_open", lambda: np.log(bars.open))


def log_high(bars: Bars) -> Floats:
    """Log of the high."""
    return bars.memo("log_high", lambda: np.log(bars.high))


def log_low(bars: Bars) -> Floats:
    """Log of the low."""
    return bars.memo("log_low", lambda: np.log(bars.low))


def log_close(bars: Bars) -> Floats:
    """Log of the close."""
    return bars.memo("log_close", lambda: np.log(bars.close))


def change(bars: Bars) -> Floats:
    """Log return of the bar, close to close: ln(C_t / C_{t−1})."""
    return bars.memo("change", lambda: log_return(bars.close))


def squared_change(bars: Bars) -> Floats:
    """Square of `change`."""
    return bars.memo("squared_change", lambda: change(bars) ** 2)


def gap(bars: Bars) -> Floats:
    """Log change from the close before to the open: ln(O_t / C_{t−1})."""
    return bars.memo("gap", lambda: np.log(bars.open / previous_close(bars)))


def body(bars: Bars) -> Floats:
    """Log change from open to close: ln(C / O)."""
    return bars.memo("body", lambda: np.log(bars.close / bars.open))


def spread(bars: Bars) -> Floats:
    """Log range: ln(H / L)."""
    return bars.memo("spread", lambda: np.log(bars.high / bars.low))


def previous_close(bars: Bars) -> Floats:
    """Close of the bar before."""
    return bars.memo("previous_close", lambda: lag(bars.close, 1))


def true_range(bars: Bars) -> Floats:
    """Wilder's true range of log prices: ln(max(H, C_{t−1}) / min(L, C_{t−1}))."""

    def make() -> Floats:
        before = previous_close(bars)
        # maximum and minimum pass a NaN on: the first bar has none before it
        return np.log(np.maximum(bars.high, before) / np.minimum(bars.low, before))

    return bars.memo("true_range", make)


def typical(bars: Bars) -> Floats:
    """Typical price: (H + L + C) / 3."""
    return bars.memo("typical", lambda: (bars.high + bars.low + bars.close) / 3)


def parkinson_variance(bars: Bars) -> Floats:
    """Each bar's variance from its range: ln(H/L)² / (4 ln 2). Parkinson (1980)."""
    return bars.memo("parkinson_variance", lambda: spread(bars) ** 2 / (4 * math.log(2)))


def rogers_satchell_variance(bars: Bars) -> Floats:
    """Each bar's variance, free of drift: ln(H/O) ln(H/C) + ln(L/O) ln(L/C). Rogers, Satchell (1991)."""

    def make() -> Floats:
        up: Floats = np.log(bars.high / bars.open) * np.log(bars.high / bars.close)
        down: Floats = np.log(bars.low / bars.open) * np.log(bars.low / bars.close)
        return up + down

    return bars.memo("rogers_satchell_variance", make)


def typical_flow(bars: Bars) -> Floats:
    """Money traded: typical price × volume."""
    return bars.memo("typical_flow", lambda: typical(bars) * bars.volume)
