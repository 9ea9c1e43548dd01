"""The edge of the stream: one JSON object a message, held to the rules of a closed bar before anything is done with it.

A bar is ``{"symbol", "timestamp", "open", "high", "low", "close", "volume"}``, and may carry ``"context"``: values of
context series that are known at its close. A context value of its own is ``{"series", "timestamp", "close"}`` and may
carry ``"known_at"``, by default its timestamp. Times are ISO 8601 with their offset, or numbers since 1970; ``"id"``
is the origin's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
import orjson

from tradeloop.calendars import expected_closes
from tradeloop.clock import Clock
from tradeloop.config import Params, parse_interval
from tradeloop.errors import DataError
from tradeloop.journal import Bar, Level

EPOCHS = {"s": 1_000_000, "ms": 1_000, "us": 1}  # in microseconds

_PRICES = ("open", "high", "low", "close")
_BAR = frozenset({"symbol", "timestamp", *_PRICES, "volume", "context", "id"})
_LEVEL = frozenset({"series", "timestamp", "known_at", "close", "id"})
_YEARS = (-2_208_988_800_000_000, 7_258_118_400_000_000)  # 1900 to 2200, in microseconds since 1970
_DAY = 86_400_000_000
_SHOWN = 80


@dataclass(frozen=True)
class Said:
    """What a message says: context values, and a bar or none."""

    levels: tuple[Level, ...]
    bar: Bar | None


class Edge:
    """Reads messages of one market.

    Parameters
    ----------
    clock
        The wall's: a bar that closes later than now is not closed.
    """

    def __init__(self, params: Params, clock: Clock) -> None:
        market = params.active
        self._market = params.market
        self._symbols = frozenset(market.symbols)
        self._context = frozenset(market.context)
        self._calendar, self._interval = market.calendar, parse_interval(market.interval)
        self._unit = EPOCHS[params.stream.epoch]
        self._untraded = "zero_volume" not in params.check.drop
        self._clock = clock

    def read(self, text: bytes | str) -> Said:
        """Return what a message says.

        Raises
        ------
        DataError
            One line that names the value and the rule.
        """
        try:
            content = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            raise DataError(f"a message must be JSON: {error}") from None
        return self.parse(content)

    def parse(self, content: Any) -> Said:
        """Return what a decoded message says; errors as `read`."""
        if not isinstance(content, dict):
            raise DataError(f"a message must be an object, got {_shown(content)}")
        if "series" in content:
            return Said((self._level(content),), None)
        _closed_to(content, _BAR)
        symbol = content.get("symbol")
        if not isinstance(symbol, str) or symbol not in self._symbols:
            raise DataError(f"symbol must be one of market {self._market}, got {_shown(symbol)}")
        time = self._time(content, "timestamp")
        if time not in _closes(self._calendar, self._interval, time // _DAY):
            raise DataError(
                f"{symbol}: timestamp must be a bar's close on calendar {self._calendar} at {self._interval}, "
                f"got {_shown(content['timestamp'])}"
            )
        prices = [_positive(content, name, symbol) for name in _PRICES]
        opened, high, low, close = prices
        if max(prices) > high or min(prices) < low:
            given = ", ".join(f"{name}={price}" for name, price in zip(_PRICES, prices, strict=True))
            raise DataError(f"{symbol}: prices must lie within low to high, got {given}")
        volume = _number(content, "volume", symbol)
        if volume < 0:
            raise DataError(f"{symbol}: volume must not be negative, got {volume}")
        if volume == 0 and not self._untraded:
            raise DataError(f"{symbol}: volume is 0, and check.drop leaves out bars without any")
        return Said(self._carried(content, time), Bar(symbol, time, opened, high, low, close, volume))

    def _carried(self, content: Mapping[str, Any], time: int) -> tuple[Level, ...]:
        context = content.get("context") or {}
        if not isinstance(context, dict):
            raise DataError(f"context must be an object of series and values, got {_shown(context)}")
        return tuple(Level(self._series(name), time, time, _number(context, name, "context")) for name in context)

    def _level(self, content: Mapping[str, Any]) -> Level:
        _closed_to(content, _LEVEL)
        series = self._series(content["series"])
        time = self._time(content, "timestamp")
        known = self._time(content, "known_at") if "known_at" in content else time
        if known < time:
            raise DataError(f"{series}: known_at must not be before the timestamp, got {_shown(content['known_at'])}")
        return Level(series, time, known, _number(content, "close", series))

    def _series(self, name: Any) -> str:
        if not isinstance(name, str) or name not in self._context:
            raise DataError(f"series must be one of {sorted(self._context)}, got {_shown(name)}")
        return name

    def _time(self, content: Mapping[str, Any], name: str) -> int:
        given = content.get(name)
        time = _microseconds(given, self._unit, name)
        if not _YEARS[0] <= time < _YEARS[1]:
            raise DataError(f"{name} must lie between 1900 and 2200, got {_shown(given)} (stream.epoch)")
        if time > self._clock.now().timestamp() * 1e6:
            raise DataError(f"{name} must not lie in the future, a bar exists once it is closed, got {_shown(given)}")
        return time


def _microseconds(given: Any, unit: int, name: str) -> int:
    if isinstance(given, str):
        try:
            moment = datetime.fromisoformat(given)
        except ValueError:
            raise DataError(f"{name} must be an ISO time or a number since 1970, got {_shown(given)}") from None
        if moment.tzinfo is None:
            raise DataError(f"{name} must carry its UTC offset (2013-02-28T21:00:00Z), got {_shown(given)}")
        return round(moment.timestamp() * 1e6)
    if isinstance(given, bool) or not isinstance(given, int | float) or not isfinite(given):
        raise DataError(f"{name} must be an ISO time or a number since 1970, got {_shown(given)}")
    return round(given * unit)


def _number(content: Mapping[str, Any], name: str, of: str) -> float:
    value = content.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        raise DataError(f"{of}: {name} must be a finite number, got {_shown(value)}")
    return float(value)


def _positive(content: Mapping[str, Any], name: str, of: str) -> float:
    value = _number(content, name, of)
    if value <= 0:
        raise DataError(f"{of}: {name} must be positive, got {value}")
    return value


def _closed_to(content: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in content:
        if name not in known:
            raise DataError(f"unknown key {name!r} (known: {', '.join(sorted(known))})")


@lru_cache(maxsize=4096)
def _closes(calendar: str, interval: timedelta, day: int) -> frozenset[int]:
    """Return the closes of the bars of a UTC day, counted from 1970, in microseconds."""
    first = np.datetime64(day * _DAY, "us")
    closes = expected_closes(calendar, interval, first, first + np.timedelta64(_DAY - 1, "us"))
    return frozenset(closes.astype("datetime64[us]").view(np.int64).tolist())


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
