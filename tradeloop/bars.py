"""The OHLCV frame contract: a bar exists only once it is closed.

A *bar frame* has the columns of `COLUMNS`: ``timestamp`` is the bar's close (``datetime64[us, UTC]``), unique and
increasing; prices are positive floats with ``low ≤ open, close ≤ high``; ``volume`` is a non-negative float.

A *context frame* has the columns of `CONTEXT_COLUMNS`: ``timestamp`` is the context bar's close, ``known_at`` the
moment from which its ``close`` may be used (both ``datetime64[us, UTC]``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.errors import DataError

COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")
CONTEXT_COLUMNS = ("timestamp", "known_at", "close")
PRICES = ("open", "high", "low", "close")
TIME = "datetime64[us, UTC]"

Floats = NDArray[np.float64]
Times = NDArray[np.datetime64]


def to_times(column: pd.Series[Any]) -> Times:
    """Return a UTC column as ``datetime64[us]`` without time zone (UTC by convention)."""
    return np.asarray(column.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(dtype="datetime64[us]"))


def from_times(times: Times) -> pd.Series[Any]:
    """Return ``datetime64`` (UTC by convention) as a column of `TIME`; the inverse of `to_times`."""
    return pd.Series(times.astype("datetime64[us]")).dt.tz_localize("UTC")


def validate_bars(frame: pd.DataFrame, *, name: str) -> pd.DataFrame:
    """Return `frame` with the contract's columns in order, or raise DataError naming `name`, time and rule."""
    missing = [column for column in COLUMNS if column not in frame.columns]
    if missing:
        raise DataError(f"{name}: a bar frame needs the columns {list(COLUMNS)}, {missing} are missing")
    frame = frame.loc[:, list(COLUMNS)].reset_index(drop=True)
    if str(frame["timestamp"].dtype) != TIME:
        raise DataError(f"{name}: timestamp must be {TIME}, got {frame['timestamp'].dtype}")
    order = frame["timestamp"].diff().iloc[1:] <= pd.Timedelta(0)
    _refuse(frame, order.reindex(frame.index, fill_value=False), name, "timestamps must increase strictly")
    prices = frame[list(PRICES)]
    _refuse(frame, ~np.isfinite(prices).all(axis=1), name, "prices must be finite")
    _refuse(frame, (prices <= 0).any(axis=1), name, "prices must be positive")
    _refuse(frame, prices.max(axis=1) > frame["high"], name, "no price may lie above the high")
    _refuse(frame, prices.min(axis=1) < frame["low"], name, "no price may lie below the low")
    volume = frame["volume"]
    _refuse(frame, ~np.isfinite(volume) | (volume < 0), name, "volume must be finite and not negative")
    return frame


def _refuse(frame: pd.DataFrame, broken: Any, name: str, rule: str) -> None:
    broken = np.asarray(broken, dtype=bool)
    if broken.any():
        row = frame.iloc[int(broken.argmax())]
        values = ", ".join(f"{c}={row[c]}" for c in COLUMNS[1:])
        raise DataError(f"{name} at {row['timestamp']}: {rule} ({values}); {int(broken.sum())} such bars")


@dataclass(frozen=True)
class Bars:
    """The closed bars of one symbol as aligned arrays of length n; what a feature is a function of.

    Attributes
    ----------
    timestamp
        Bar closes, ``datetime64[us]``, UTC.
    open, high, low, close, volume
        float64; prices in quote currency, volume in units of the asset.
    context
        For each context series, its latest close that was *known* at each bar's close (NaN before the first).
    inputs
        Columns of data beyond bars, named ``kind.column``, as known at each bar's close (NaN where nothing is).
    """

    symbol: str
    timestamp: Times
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    context: Mapping[str, Floats] = field(default_factory=dict)
    inputs: Mapping[str, Floats] = field(default_factory=dict)
    _made: dict[str, Floats] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.timestamp)

    def memo(self, key: str, make: Callable[[], Floats]) -> Floats:
        """Return what `make` gives, made once for these bars: an intermediate that several features share.

        It must follow from the bars alone, and `key` must name it wholly; nobody may write to it.
        """
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = make()
        return made

    @classmethod
    def from_frame(cls, symbol: str, frame: pd.DataFrame, context: Mapping[str, pd.DataFrame] | None = None) -> Bars:
        """Validate a bar frame and join each context frame as of the bars' closes."""
        frame = validate_bars(frame, name=symbol)
        times = to_times(frame["timestamp"])
        open_, high, low, close, volume = (frame[name].to_numpy(dtype=np.float64) for name in COLUMNS[1:])
        joined = {name: known_close(times, series) for name, series in (context or {}).items()}
        return cls(symbol, times, open_, high, low, close, volume, joined)

    def __getitem__(self, rows: slice) -> Bars:
        """Return the bars at a slice of positions."""
        return Bars(
            self.symbol,
            self.timestamp[rows],
            self.open[rows],
            self.high[rows],
            self.low[rows],
            self.close[rows],
            self.volume[rows],
            {name: series[rows] for name, series in self.context.items()},
            {name: values[rows] for name, values in self.inputs.items()},
        )


def known_close(times: Times, context: pd.DataFrame) -> Floats:
    """Return, for each of `times`, the close of the newest context bar with ``known_at ≤ time`` (else NaN)."""
    known = to_times(context["known_at"])
    if len(known) and (np.diff(known) < np.timedelta64(0)).any():
        raise DataError("a context frame's known_at must not decrease")
    at = np.searchsorted(known, times, side="right") - 1
    close = context["close"].to_numpy(dtype=np.float64)
    result = np.full(len(times), np.nan)
    result[at >= 0] = close[at[at >= 0]]
    return result
