"""The dates of bars, and the trading sessions around them: calendars are known long before, so nothing looks ahead.

A bar belongs to the first session that closes at or after it: one from before the open counts to the session to come.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats
from tradeloop.calendars import sessions
from tradeloop.features.compiled import compiled

HOUR, DAY = 3.6e9, 86_400_000_000
"""In microseconds."""

THIRD = 14
"""Days from the first to the third Friday of a month."""

Stamps = NDArray[np.int64]
"""Microseconds since 1970, UTC."""


class Schedule(NamedTuple):
    """Sessions in order: opens and closes place in the month and sessions of the month."""

    opens: Stamps
    closes: Stamps
    place: Stamps
    of_month: Stamps


@lru_cache(maxsize=64)
def schedule(calendar: str, first: int, last: int) -> Schedule:
    """Return the sessions of these years, with a month before and after; a calendar's errors as `sessions` has them."""
    table = sessions(calendar, np.datetime64(f"{first - 1}-12-01"), np.datetime64(f"{last + 1}-01-31"))
    opens, closes = (table[name].to_numpy("datetime64[us]").astype(np.int64) for name in ("open", "close"))
    month = table.index.to_numpy("datetime64[M]").astype(np.int64)
    starts = np.searchsorted(month, month, side="left")
    return Schedule(opens, closes, np.arange(len(month)) - starts, np.searchsorted(month, month, side="right") - starts)


def _years(stamps: Stamps) -> tuple[int, int]:
    first, last = (
        int(year) + 1970 for year in stamps[[0, -1]].view("datetime64[us]").astype("datetime64[Y]").view(int)
    )
    return first, last


def _stamps(bars: Bars) -> Stamps:
    return np.ascontiguousarray(bars.timestamp.astype("datetime64[us]", copy=False).view(np.int64))


@compiled
def _first_at_or_after(times: Stamps, time: int) -> int:
    """Return the position of the first of increasing `times` that is not before `time`; the last one if all are."""
    low, high = 0, len(times) - 1
    while low < high:
        middle = (low + high) // 2
        if times[middle] < time:
            low = middle + 1
        else:
            high = middle
    return low


@compiled
def _around(stamps: Stamps, opens: Stamps, closes: Stamps, place: Stamps, of_month: Stamps) -> Floats:
    found = np.empty((6, len(stamps)))
    for i in range(len(stamps)):
        at, ahead = _first_at_or_after(closes, stamps[i]), _first_at_or_after(closes, stamps[i] + 1)
        found[0, i], found[1, i] = at, (stamps[i] - opens[at]) / HOUR
        found[2, i], found[3, i] = (closes[at] - stamps[i]) / HOUR, (closes[ahead] - stamps[i]) / HOUR
        found[4, i], found[5, i] = place[at], of_month[at]
    return found


def session_times(bars: Bars, calendar: str) -> Floats:
    """Return each bar's session as rows.

    They are its number, the hours since its open, until its close, and until the next close after the bar (for the last
    bar of a session the next session's), its place in the month, counted from 0, and the sessions of the month. Where
    the calendar has no session any more, the last one it has stands.
    """

    def make() -> Floats:
        stamps = _stamps(bars)
        if not len(stamps):
            return np.empty((6, 0))
        return _around(stamps, *schedule(calendar, *_years(stamps)))

    return bars.memo(f"sessions {calendar}", make)


@compiled
def _dates(stamps: Stamps) -> Floats:
    dates = np.empty((5, len(stamps)))
    for i in range(len(stamps)):
        day = stamps[i] // DAY
        # Days to months, with years that begin in March: Hinnant (2013), chrono-compatible low-level date algorithms.
        era, of_era = divmod(day + 719468, 146097)
        year = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
        of_year = of_era - (365 * year + year // 4 - year // 100)
        month = (5 * of_year + 2) // 153
        first = day - (of_year - (153 * month + 2) // 5)
        leap = (year + 1) % 4 == 0 and ((year + 1) % 100 != 0 or (year + 1 + era * 400) % 400 == 0)
        length = (28 + leap) if month == 11 else (153 * (month + 1) + 2) // 5 - (153 * month + 2) // 5
        dates[0, i], dates[1, i] = (day + 3) % 7, (month + 2) % 12  # 1970-01-01 was a Thursday
        dates[2, i] = (stamps[i] - first * DAY) / (length * DAY)
        friday = first + THIRD + (1 - first) % 7  # 1970-01-02 was a Friday
        dates[3, i], dates[4, i] = (stamps[i] - friday * DAY) / DAY, stamps[i] % DAY / DAY
    return dates


def dates(bars: Bars) -> Floats:
    """Return the dates of the bars' closes, UTC, as rows.

    They are the weekday (Monday is 0), the month (January is 0), the share of the month gone, days since the month's
    third Friday began (below 0 before it), and the share of the day gone.
    """
    return bars.memo("dates", lambda: _dates(_stamps(bars)))
