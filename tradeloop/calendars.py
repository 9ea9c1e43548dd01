"""When markets trade: sessions in UTC with their early closes, and the close that each bar is stamped with.

Three kinds of calendar are known:

- ``24/7``: a session a UTC day.
- ``24/5``: the week of foreign exchange. A session runs from 17:00 to 17:00 in New York and is labelled by the day it
  ends on, Monday to Friday. (exchange-calendars also has a ``24/5``, but from Monday to Friday midnight UTC: it leaves
  out Sunday evening, when that market trades, and claims Friday evening, when it does not.)
- every name that exchange-calendars knows (``XNYS``, ``XTKS``, …), with holidays, early closes and lunch breaks.
"""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.errors import ConfigError

Times = NDArray[np.datetime64]  # UTC

DAY = timedelta(days=1)
FX_ZONE = ZoneInfo("America/New_York")
FX_CLOSE = timedelta(hours=17)


def sessions(calendar: str, first: np.datetime64, last: np.datetime64) -> pd.DataFrame:
    """Return the sessions whose labels lie between two dates, both included.

    Returns
    -------
    DataFrame
        Indexed by label (midnight, no time zone), increasing; columns ``open``, ``close``, ``break_start`` and
        ``break_end`` (NaT where there is no break), all ``datetime64[us]``, UTC by convention.

    Raises
    ------
    ConfigError
        If the calendar is not known.
    """
    first, last = first.astype("datetime64[D]"), last.astype("datetime64[D]")
    # Whole decades, so that the series of one market share a calendar that is built once.
    table = _decades(calendar, int(str(first)[:4]) // 10 * 10, int(str(last)[:4]) // 10 * 10 + 9)
    return table.loc[pd.Timestamp(first) : pd.Timestamp(last)]


@lru_cache(maxsize=32)
def _decades(calendar: str, first: int, last: int) -> pd.DataFrame:
    labels = pd.date_range(f"{first}-01-01", f"{last}-12-31", freq="D", unit="us")
    if calendar == "24/7":
        return _table(labels, labels, labels + DAY)
    if calendar == "24/5":
        labels = labels[labels.dayofweek < 5]
        return _table(labels, _in_new_york(labels - DAY), _in_new_york(labels))
    return _exchange(calendar, labels[0], labels[-1])


def _in_new_york(days: pd.DatetimeIndex) -> pd.DatetimeIndex:
    return (days + FX_CLOSE).tz_localize(FX_ZONE).tz_convert(None)


def _table(labels: pd.DatetimeIndex, opens: pd.DatetimeIndex, closes: pd.DatetimeIndex) -> pd.DataFrame:
    none = np.full(len(labels), np.datetime64("NaT", "us"))
    return pd.DataFrame({"open": opens, "close": closes, "break_start": none, "break_end": none}, index=labels)


def _exchange(calendar: str, start: pd.Timestamp, end: pd.Timestamp) -> pd.DataFrame:
    """Return the sessions of an exchange, as far as its holidays are on record."""
    from exchange_calendars import get_calendar, get_calendar_names  # up to 2 s: only where a market has an exchange

    if calendar not in get_calendar_names():
        raise ConfigError(f"calendar must be 24/7, 24/5 or one of exchange-calendars (XNYS, XLON, …), got {calendar!r}")
    try:
        # The defaults reach back 20 years only.
        exchange = get_calendar(calendar, start=start, end=end)
    except ValueError:  # outside its record
        known = get_calendar(calendar)
        start, end = max(start, known.bound_min() or start), min(end, known.bound_max() or end)
        exchange = get_calendar(calendar, start=start, end=end)
    schedule = exchange.schedule[["open", "close", "break_start", "break_end"]]
    index = pd.DatetimeIndex(schedule.index).as_unit("us")
    columns = {name: times.dt.tz_convert(None).astype("datetime64[us]") for name, times in schedule.items()}
    return pd.DataFrame(columns, index=index)


def session_closes(calendar: str, labels: Times) -> Times:
    """Return the close of each labelled session, UTC; NaT for a date on which there is no session.

    Parameters
    ----------
    labels
        Dates, shape (n,), any order, any ``datetime64`` unit; their time of day is ignored.
    """
    days = labels.astype("datetime64[D]")
    if not len(days):
        return days.astype("datetime64[us]")
    table = sessions(calendar, days.min(), days.max())
    return np.asarray(table["close"].reindex(pd.DatetimeIndex(days)).to_numpy(dtype="datetime64[us]"))


def next_session_closes(calendar: str, labels: Times) -> Times:
    """Return, for each date, the close of the first session labelled after it, UTC; NaT beyond the record."""
    days = labels.astype("datetime64[D]")
    if not len(days):
        return days.astype("datetime64[us]")
    table = sessions(calendar, days.min(), days.max() + np.timedelta64(31, "D"))
    at = np.searchsorted(table.index.to_numpy(), days.astype("datetime64[us]"), side="right")
    closes = np.append(table["close"].to_numpy(dtype="datetime64[us]"), np.datetime64("NaT", "us"))
    return np.asarray(closes[at])


def close_stamps(calendar: str, opens: Times, interval: timedelta) -> Times:
    """Return the close of each bar from its open: one interval later, or the end of trading if that comes first.

    An hourly bar of XNYS stamped 15:30 closes at 16:00, and on the day after Thanksgiving one stamped 12:30 at 13:00.
    A bar that opens while the market is shut keeps the plain ``open + interval``; `integrity` reports it.

    Parameters
    ----------
    opens
        Bar opens, UTC, shape (n,), any order.
    """
    opens = opens.astype("datetime64[us]")
    closes: Times = opens + np.timedelta64(interval)
    if not len(opens):
        return closes
    starts, ends = trading_periods(calendar, opens.min(), opens.max())
    if not len(starts):
        return closes
    at = np.searchsorted(starts, opens, side="right") - 1
    end = ends[np.maximum(at, 0)]
    cut = (at >= 0) & (opens < end) & (end < closes)
    closes[cut] = end[cut]
    return closes


def trading_periods(calendar: str, first: np.datetime64, last: np.datetime64) -> tuple[Times, Times]:
    """Return starts and ends (UTC) of the uninterrupted stretches of trading of all sessions near two times.

    A session with a lunch break is two stretches; sessions that follow one another without a pause are one, so that
    foreign exchange has one a week. Stretches that end before `first` or start after `last` may be included.
    """
    table = sessions(calendar, first - np.timedelta64(8, "D"), last + np.timedelta64(8, "D"))
    lunch = table["break_start"].notna()
    starts = pd.concat([table["open"], table.loc[lunch, "break_end"]]).to_numpy(dtype="datetime64[us]")
    ends = pd.concat([table["close"].where(~lunch, table["break_start"]), table.loc[lunch, "close"]])
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], ends.to_numpy(dtype="datetime64[us]")[order]
    pause = starts[1:] > stops[:-1]
    return starts[np.append(True, pause)[: len(starts)]], stops[np.append(pause, True)[: len(stops)]]


def expected_closes(calendar: str, interval: timedelta, first: np.datetime64, last: np.datetime64) -> Times:
    """Return the closes that a complete series has between two times, both included, UTC, increasing.

    Daily bars close with their session. Shorter bars are counted from the open of each stretch of trading, and the last
    of a stretch closes with it.

    Raises
    ------
    ConfigError
        If the interval is longer than a day.
    """
    if interval > DAY:
        raise ConfigError(f"an interval must be at most 1d, got {interval}")
    if interval == DAY:
        table = sessions(calendar, first - np.timedelta64(2, "D"), last + np.timedelta64(2, "D"))
        closes = table["close"].to_numpy(dtype="datetime64[us]")
    else:
        starts, ends = trading_periods(calendar, first, last)
        step = np.timedelta64(interval).astype("timedelta64[us]")
        count = -((starts - ends) // step)  # rounded up: a shorter last bar counts
        period = np.repeat(np.arange(len(starts)), count)
        number = np.arange(len(period)) - np.repeat(np.cumsum(count) - count, count) + 1
        closes = np.minimum(starts[period] + number * step, ends[period])
    return np.asarray(closes[(closes >= first) & (closes <= last)])
