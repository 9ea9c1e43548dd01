"""Calendar: when the bar closed, as angles, so that December lies beside January. All in UTC."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import feature

DAY = np.timedelta64(1, "D")


def _circle(phase: Floats) -> tuple[Floats, Floats]:
    return np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase)


def _days(span: NDArray[np.timedelta64]) -> Floats:
    return span / DAY


@feature(lookback=1, columns=("weekday_sin", "weekday_cos"))
def weekday(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the weekday of the bar's close, UTC: angle 2π · (days since Monday) / 7."""
    days = bars.timestamp.astype("datetime64[D]").astype(np.int64)
    return _circle((days + 3) % 7 / 7)  # 1970-01-01 was a Thursday


@feature(lookback=1, columns=("month_sin", "month_cos"))
def month(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the month of the bar's close, UTC: angle 2π · (month − 1) / 12."""
    return _circle(bars.timestamp.astype("datetime64[M]").astype(np.int64) % 12 / 12)


@feature(lookback=1)
def month_progress(bars: Bars) -> Floats:
    """Share of the calendar month that lies behind the bar's close, UTC, in [0, 1)."""
    start = bars.timestamp.astype("datetime64[M]")
    return _days(bars.timestamp - start) / _days((start + 1).astype("datetime64[D]") - start.astype("datetime64[D]"))


@feature(lookback=2)
def log_days_since_bar(bars: Bars) -> Floats:
    """Log of the days between the previous bar's close and this one's: 0 for a day, ln 3 over a weekend."""
    days = np.full(len(bars), np.nan)
    days[1:] = np.log(_days(np.diff(bars.timestamp)))
    return days


@feature(lookback=1, columns=("time_of_day_sin", "time_of_day_cos"), intraday=True)
def time_of_day(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the time of day of the bar's close, UTC: angle 2π · (share of the day gone)."""
    return _circle(_days(bars.timestamp - bars.timestamp.astype("datetime64[D]")))
