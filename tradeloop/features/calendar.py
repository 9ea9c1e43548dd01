"""Calendar: when the bar closed, as angles, so that December lies beside January, and what is known of days to come.

Dates are UTC. What depends on the market's sessions comes from its calendar, which is published long before.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import Sessions, feature
from tradeloop.features.schedule import dates, session_times

HOURS = 24.0
SHORTEST = 1 / 60
"""Hours: what is left is never taken to be less than a minute."""

TURN = 3
WEEKDAY, MONTH, MONTH_GONE, SINCE_EXPIRY, DAY_GONE = range(5)
"""Rows of `dates`."""


def _circle(phase: Floats) -> tuple[Floats, Floats]:
    angle = 2 * np.pi * phase
    return np.sin(angle), np.cos(angle)


@feature(lookback=1, columns=("weekday_sin", "weekday_cos"))
def weekday(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the weekday of the bar's close, UTC: angle 2π · (days since Monday) / 7."""
    return _circle(dates(bars)[WEEKDAY] / 7)


@feature(lookback=1, columns=("month_sin", "month_cos"))
def month(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the month of the bar's close, UTC: angle 2π · (month − 1) / 12."""
    return _circle(dates(bars)[MONTH] / 12)


@feature(lookback=1)
def month_progress(bars: Bars) -> Floats:
    """Share of the calendar month that lies behind the bar's close, UTC, in [0, 1)."""
    gone: Floats = dates(bars)[MONTH_GONE]
    return gone


@feature(lookback=1, columns=("monthday_sin", "monthday_cos"))
def monthday(bars: Bars) -> tuple[Floats, Floats]:
    """Sine and cosine of the place in the calendar month, UTC: angle 2π · (share of the month gone)."""
    return _circle(dates(bars)[MONTH_GONE])


@feature(lookback=1)
def quarter_progress(bars: Bars) -> Floats:
    """Share of the calendar quarter's three months that lies behind the bar's close, UTC, in [0, 1)."""
    known = dates(bars)
    gone: Floats = (known[MONTH] % 3 + known[MONTH_GONE]) / 3
    return gone


@feature(lookback=1)
def winter(bars: Bars) -> Floats:
    """Whether the bar closed from November to April, UTC: the half-year of higher returns. Bouman, Jacobsen (2002)."""
    half: Floats = ((dates(bars)[MONTH] + 2) % 12 < 6).astype(np.float64)
    return half


@feature(lookback=1)
def expiry_distance(bars: Bars) -> Floats:
    """Days from the month's third Friday, when options expire, to the bar's close, UTC, over 31; below 0 before it.

    Stoll, Whaley (1987).
    """
    since: Floats = dates(bars)[SINCE_EXPIRY] / 31
    return since


@feature(lookback=2)
def log_days_since_bar(bars: Bars) -> Floats:
    """Log of the days between the previous bar's close and this one's: 0 for a day, ln 3 over a weekend."""
    days = np.full(len(bars), np.nan)
    days[1:] = np.log(np.diff(bars.timestamp) / np.timedelta64(1, "D"))
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
    return _circle(dates(bars)[DAY_GONE])
