"""The trading sessions around bars, from the calendar: known long before, so no feature of them looks ahead.

A bar belongs to the first session that closes at or after it: one from before the open counts to the session to come.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats
from tradeloop.calendars import sessions

HOUR = 3.6e9
"""Microseconds."""


class Schedule(NamedTuple):
    """Sessions in order: opens and closes in microseconds since 1970, place in the month and sessions of the month."""

    opens: NDArray[np.int64]
    closes: NDArray[np.int64]
    place: NDArray[np.int64]
    of_month: NDArray[np.int64]


@lru_cache(maxsize=64)
def schedule(calendar: str, first: int, last: int) -> Schedule:
    """Return the sessions of these years, with a month before and after; a calendar's errors as `sessions` has them."""
    table = sessions(calendar, np.datetime64(f"{first - 1}-12-01"), np.datetime64(f"{last + 1}-01-31"))
    opens, closes = (table[name].to_numpy("datetime64[us]").astype(np.int64) for name in ("open", "close"))
    month = table.index.to_numpy("datetime64[M]").astype(np.int64)
    starts = np.searchsorted(month, month, side="left")
    return Schedule(opens, closes, np.arange(len(month)) - starts, np.searchsorted(month, month, side="right") - starts)


def _years(bars: Bars) -> tuple[int, int]:
    first, last = bars.timestamp[[0, -1]].astype("datetime64[Y]").astype(np.int64) + 1970
    return int(first), int(last)


def _stamps(bars: Bars) -> NDArray[np.int64]:
    return bars.timestamp.astype("datetime64[us]", copy=False).view(np.int64)


def session_times(bars: Bars, calendar: str) -> Floats:
    """Return each bar's session as rows: its number, hours since its open, until its close, and until the next close.

    The next close comes after the bar: for the last bar of a session it is the next session's. Where the calendar has
    no session any more, the last one it has stands.
    """

    def make() -> Floats:
        if not len(bars):
            return np.empty((6, 0))
        known, stamps = schedule(calendar, *_years(bars)), _stamps(bars)
        last = len(known.closes) - 1
        at = np.minimum(np.searchsorted(known.closes, stamps), last)
        ahead = np.minimum(np.searchsorted(known.closes, stamps, side="right"), last)
        since, until = (stamps - known.opens[at]) / HOUR, (known.closes[at] - stamps) / HOUR
        return np.stack([at, since, until, (known.closes[ahead] - stamps) / HOUR, known.place[at], known.of_month[at]])

    return bars.memo(f"sessions {calendar}", make)
