"""Calendar: when the bar closed, as angles, so that December lies beside January, and what is known of days to come.

Dates are UTC. What depends on the market's sessions comes from its calendar, which is published long before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import Sessions, feature
from tradeloop.features.schedule import session_times

DAY = np.timedelta64(1, "D")
HOURS = 24.0
SHORTEST = 1 / 60
"""Hours: what is left is never taken to be less than a minute."""

TURN = 3
THIRD_FRIDAY = 14
"""Days after the month's first Friday."""


def _circle(phase: Floats) -> tuple[Floats, Floats]:
    return np.sin(2 * np.pi * phase), np.cos(2 * np.pi * phase)


def _days(span: NDArray[np.timedelta64]) -> Floats:
    return span / DAY


def _month(bars: Bars) -> NDArray[np.datetime64]:
    return bars.timestamp.astype("datetime64[M]")


def _month_progress(bars: Bars) -> Floats:
    def make() -> Floats:
        start = _month(bars)
        length = (start + 1).astype("datetime64[D]") - start.astype("datetime64[D]")
        return _days(bars.timestamp - start) / _days(length)

    return bars.memo("month progress", make)


@feature(lookback=1, columns=("weekday_sin", "weekday_cos"))
def weekday(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the weekday of the bar's close, UTC: angle 2π · (days since Monday) / 7."""
    days = bars.timestamp.astype("datetime64[D]").astype(np.int64)
    return _circle((days + 3) % 7 / 7)  # 1970-01-01 was a Thursday


@feature(lookback=1, columns=("month_sin", "month_cos"))
def month(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the month of the bar's close, UTC: angle 2π · (month − 1) / 12."""
    return _circle(_month(bars).astype(np.int64) % 12 / 12)


@feature(lookback=1)
def month_progress(bars: Bars) -> Floats:
    """Share of the calendar month that lies behind the bar's close, UTC, in [0, 1)."""
    return _month_progress(bars)


@feature(lookback=1, columns=("monthday_sin", "monthday_cos"))
def monthday(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the place in the calendar month, UTC: angle 2π · (share of the month gone)."""
    return _circle(_month_progress(bars))


@feature(lookback=1)
def quarter_progress(bars: Bars) -> Floats:
    """Share of the calendar quarter's three months that lies behind the bar's close, UTC, in [0, 1)."""
    return (_month(bars).astype(np.int64) % 3 + _month_progress(bars)) / 3


@feature(lookback=1)
def winter(bars: Bars) -> Floats:
    """Whether the bar closed from November to April, UTC: the half-year of higher returns. Bouman, Jacobsen (2002)."""
    number = _month(bars).astype(np.int64) % 12
    return ((number >= 10) | (number <= 3)).astype(np.float64)


@feature(lookback=1)
def expiry_distance(bars: Bars) -> Floats:
    """Days from the month's third Friday, when options expire, to the bar's close, UTC, over 31; below 0 before it.

    Stoll, Whaley (1987).
    """
    first = _month(bars).astype("datetime64[D]")
    friday = THIRD_FRIDAY + (1 - first.astype(np.int64)) % 7  # 1970-01-02 was a Friday
    return (_days(bars.timestamp - first) - friday) / 31


@feature(lookback=2)
def log_days_since_bar(bars: Bars) -> Floats:
    """Log of the days between the previous bar's close and this one's: 0 for a day, ln 3 over a weekend."""
    days = np.full(len(bars), np.nan)
    days[1:] = np.log(_days(np.diff(bars.timestamp)))
    return days


@feature(lookback=1, per_session=True)
def log_days_to_close(bars: Bars, sessions: Sessions) -> Floats:
    """Log of the days from the bar's close to the next close of a session: 0 for a day, ln 3 before a weekend.

    Holidays and early closes included, as the calendar has them; at least a minute. Ariel (1990).
    """
    ahead: Floats = np.maximum(session_times(bars, sessions.calendar)[3], SHORTEST)
    return np.log(ahead / HOURS)


@feature(lookback=1, per_session=True)
def turn_of_month(bars: Bars, sessions: Sessions) -> Floats:
    """Whether the bar's session is the month's last or among its first three. Lakonishok, Smidt (1988)."""
    *_, place, count = session_times(bars, sessions.calendar)
    turn: Floats = ((place < TURN) | (place == count - 1)).astype(np.float64)
    return turn


@feature(lookback=1, columns=("time_of_day_sin", "time_of_day_cos"), intraday=True)
def time_of_day(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the time of day of the bar's close, UTC: angle 2π · (share of the day gone)."""
    return _circle(_days(bars.timestamp - bars.timestamp.astype("datetime64[D]")))
