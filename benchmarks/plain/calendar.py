"""Calendar and session, the plain way: dates by pandas, an exchange's sessions by exchange-calendars.

The frame's `attrs` name the calendar; without, it is 24/7.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from benchmarks.plain.pieces import FLOOR, Plain, typical


@cache
def _schedule(calendar: str) -> pd.DataFrame:
    """Return label, open and close of each session, UTC."""
    days = pd.Series(pd.date_range("1990-01-01", "2030-01-31"))
    if calendar == "24/7":
        opens, closes = days.dt.tz_localize("UTC"), days.dt.tz_localize("UTC") + pd.Timedelta(days=1)
    elif calendar == "24/5":
        days = days[days.dt.dayofweek < 5].reset_index(drop=True)
        opens, closes = ((days + pd.Timedelta(hours=hours)).dt.tz_localize("America/New_York") for hours in (-7, 17))
    else:
        from exchange_calendars import get_calendar

        known = get_calendar(calendar, start="1990-01-01", end="2030-01-31").schedule
        days, opens, closes = (known[name].reset_index(drop=True) for name in ("open", "open", "close"))
        days = pd.Series(known.index)
    table = {"label": days, "open": opens.dt.tz_convert("UTC"), "close": closes.dt.tz_convert("UTC")}
    return pd.DataFrame(table).astype({"open": "datetime64[us, UTC]", "close": "datetime64[us, UTC]"})


def _session(f: pd.DataFrame, *, after: bool = False) -> pd.DataFrame:
    """Return the session of each close: the first that ends at or after it, or the first that ends after it."""
    return pd.merge_asof(
        f[["timestamp"]],
        _schedule(f.attrs.get("calendar", "24/7")),
        left_on="timestamp",
        right_on="close",
        direction="forward",
        allow_exact_matches=not after,
    )


def _progress(f: pd.DataFrame) -> pd.Series:
    into = (f.timestamp - f.timestamp.dt.normalize()) / pd.Timedelta(days=1)
    return (f.timestamp.dt.day - 1 + into) / f.timestamp.dt.days_in_month


def _expiry(f: pd.DataFrame) -> pd.Series:
    fridays = pd.date_range("1990-01-01", "2030-01-31", freq="WOM-3FRI", tz="UTC")
    third = {(friday.year, friday.month): friday for friday in fridays}
    return f.timestamp.map(lambda time: (time - third[time.year, time.month]) / pd.Timedelta(days=31))


def _to_close(f: pd.DataFrame) -> pd.Series:
    return np.log((_session(f, after=True).close - f.timestamp) / pd.Timedelta(days=1))


def _turn(f: pd.DataFrame) -> pd.Series:
    labels = _schedule(f.attrs.get("calendar", "24/7")).label
    months = labels.groupby([labels.dt.year, labels.dt.month])
    return _session(f).label.isin([*months.head(3), *months.tail(1)]).astype(float)


def _sessions(f: pd.DataFrame) -> pd.Series:
    return _session(f).label


def _ends(f: pd.DataFrame, which: str) -> pd.Series:
    return _session(f)[which]


def _share(f: pd.DataFrame) -> pd.Series:
    return (f.timestamp - _ends(f, "open")) / (_ends(f, "close") - _ends(f, "open"))


def _opened(f: pd.DataFrame) -> pd.Series:
    return f.open.groupby(_sessions(f)).transform("first")


def _of_session(f: pd.DataFrame, column: str, how: str) -> pd.Series:
    return getattr(f[column].groupby(_sessions(f)), how)()


def _last(f: pd.DataFrame, column: str, how: str) -> pd.Series:
    """Return a column's last, highest or lowest value in the session before."""
    return _sessions(f).map(f[column].groupby(_sessions(f)).agg(how).shift())


def _range(f: pd.DataFrame) -> pd.Series:
    now = np.log(_of_session(f, "high", "cummax") / _of_session(f, "low", "cummin")).clip(lower=FLOOR)
    return np.log(now / np.log(_last(f, "high", "max") / _last(f, "low", "min")).clip(lower=FLOOR))


def _position(f: pd.DataFrame) -> pd.Series:
    low = _of_session(f, "low", "cummin")
    return (f.close - low) / (_of_session(f, "high", "cummax") - low)


def _vwap(f: pd.DataFrame) -> pd.Series:
    frame = f.assign(flow=typical(f) * f.volume)
    return _of_session(frame, "flow", "cumsum") / _of_session(frame, "volume", "cumsum")


HOUR = pd.Timedelta(hours=1)

CALENDAR: dict[str, Plain] = {
    "monthday_sin": lambda f: np.sin(2 * np.pi * _progress(f)),
    "monthday_cos": lambda f: np.cos(2 * np.pi * _progress(f)),
    "quarter_progress": lambda f: ((f.timestamp.dt.month - 1) % 3 + _progress(f)) / 3,
    "winter": lambda f: f.timestamp.dt.month.isin([11, 12, 1, 2, 3, 4]).astype(float),
    "expiry_distance": _expiry,
    "log_days_to_close": _to_close,
    "turn_of_month": _turn,
}

SESSION: dict[str, Plain] = {
    "session_progress": _share,
    "first_hour": lambda f: (f.timestamp <= _ends(f, "open") + HOUR).astype(float),
    "last_hour": lambda f: (f.timestamp > _ends(f, "close") - HOUR).astype(float),
    "session_gap": lambda f: np.log(_opened(f) / _last(f, "close", "last")),
    "session_return": lambda f: np.log(f.close / _opened(f)),
    "session_position": _position,
    "session_range": _range,
    "session_vwap_distance": lambda f: np.log(f.close / _vwap(f)),
    "last_session_high_distance": lambda f: np.log(f.close / _last(f, "high", "max")),
    "last_session_low_distance": lambda f: np.log(f.close / _last(f, "low", "min")),
}
