"""How old data, features and the model are on the market's own clock, and which components are silent.

Age is counted in bars that the calendar says have closed, so that a weekend or a holiday ages nothing. Only the
heartbeats of components are in wall time: a process is alive or not whatever the market does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tradeloop.calendars import expected_closes
from tradeloop.config import Drift, Market, parse_interval

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Beat(Protocol):
    """The part of a heartbeat that is read here."""

    @property
    def component(self) -> str:
        """Who was seen."""

    @property
    def wall_time(self) -> datetime:
        """When, by the wall's clock."""


def closes_between(market: Market, after: datetime, until: datetime) -> int:
    """Return how many bars of a complete series close after one time, up to and including another; 0 if none can."""
    if until <= after:
        return 0
    first, last = _stamp(after), _stamp(until)
    count = 0
    for year in range(_utc_year(after), _utc_year(until) + 1):
        closes = _closes(market.calendar, market.interval, year)
        count += int(closes.searchsorted(last, side="right") - closes.searchsorted(first, side="right"))
    return count


def nth_newest_close(market: Market, count: int, until: datetime) -> datetime:
    """Return the close from which on `count` bars have closed by `until`, that one and the newest included.

    Where the calendar's record does not reach back so far, it is the earliest close on it.
    """
    last = found = _stamp(until)
    for year in range(_utc_year(until), 1970, -1):
        closes = _closes(market.calendar, market.interval, year)
        closes = closes[: closes.searchsorted(last, side="right")]
        if len(closes) >= count:
            return _moment(int(closes[-count]))
        found = int(closes[0]) if len(closes) else found
        count -= len(closes)
    return _moment(found)


class Staleness:
    """Watches the ages of one market's parts.

    Parameters
    ----------
    market
        Whose calendar, interval and ``max_age`` count.
    config
        ``late_bars``, ``model_age`` and ``heartbeat``.
    """

    def __init__(self, market: Market, config: Drift) -> None:
        self._market = market
        self._late_bars = config.late_bars
        self._max_age = parse_interval(market.max_age)
        self._model_age = parse_interval(config.model_age)
        self._heartbeat = parse_interval(config.heartbeat)

    def evidence(
        self,
        now: datetime,
        *,
        bars: Mapping[str, datetime | None],
        features: Mapping[str, datetime | None],
        train_end: datetime | None = None,
    ) -> dict[str, Any]:
        """Return what is stale at the market's time `now`, as JSON.

        Parameters
        ----------
        bars, features
            By symbol, the newest bar's close and the newest feature row's time; None where there is none at all.
        train_end
            Time of the champion's newest training row.

        Returns
        -------
        dict
            ``late_data`` and ``late_features``: bars missed, by symbol, of those that are late (null: there is
            nothing at all); ``too_old``: symbols on which the service abstains, their features being older than
            ``max_age``; ``model_bars`` and ``model_days`` since `train_end`; ``model_old``.
        """
        found: dict[str, Any] = {
            "late_data": self._late(bars, now),
            "late_features": self._late(features, now),
            "too_old": sorted(name for name, at in features.items() if at is None or now - at > self._max_age),
        }
        if train_end is not None:
            age = max(now - train_end, timedelta(0))
            found["model_bars"] = closes_between(self._market, train_end, now)
            found["model_days"] = round(age / timedelta(days=1), 3)
            found["model_old"] = age > self._model_age
        return found

    def late_components(self, heartbeats: Iterable[Beat], wall: datetime) -> dict[str, float]:
        """Return, for those silent for too long at wall time `wall`, for how many seconds they have been.

        A beat from the future counts by its distance too: the clock was set back.
        """
        silent = {beat.component: abs(wall - beat.wall_time) for beat in heartbeats}
        return {name: round(age.total_seconds(), 3) for name, age in sorted(silent.items()) if age > self._heartbeat}

    def _late(self, newest: Mapping[str, datetime | None], now: datetime) -> dict[str, int | None]:
        late: dict[str, int | None] = {}
        for symbol, at in sorted(newest.items()):
            missed = None if at is None else closes_between(self._market, at, now)
            if missed is None or missed >= self._late_bars:
                late[symbol] = missed
        return late


@lru_cache(maxsize=128)
def _closes(calendar: str, interval: str, year: int) -> NDArray[np.int64]:
    """Return the closes of one year in microseconds since 1970; one at its very first instant belongs to it."""
    first, last = np.datetime64(f"{year}-01-01", "us"), np.datetime64(f"{year + 1}-01-01", "us")
    return expected_closes(calendar, parse_interval(interval), first, last - np.timedelta64(1, "us")).astype(np.int64)


def _stamp(time: datetime) -> int:
    return (time - _EPOCH) // _MICROSECOND


def _moment(stamp: int) -> datetime:
    return _EPOCH + stamp * _MICROSECOND


def _utc_year(time: datetime) -> int:
    return time.astimezone(UTC).year
