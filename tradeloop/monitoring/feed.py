"""The bars that outcomes are made from: closed ones, up to the clock's now, wherever they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

import numpy as np

from tradeloop.bars import Bars
from tradeloop.clock import Clock
from tradeloop.config import Params, parse_interval
from tradeloop.errors import DataError
from tradeloop.integrity import admit, inspect
from tradeloop.layout import Layout
from tradeloop.sources import open_source


class Version(NamedTuple):
    """What of a symbol's bars can be seen now; another value means other bars.

    Attributes
    ----------
    restated
        How often bars that had been shown were changed, taken away or put in between.
    bars
        How many bars there are.
    """

    restated: int
    bars: int


class BarFeed(Protocol):
    """Shows the closed bars of a market as they are known at the clock's now."""

    @property
    def symbols(self) -> Sequence[str]:
        """Return the symbols that the feed knows."""

    def version(self, symbol: str) -> Version:
        """Return what changes when bars were added or restated; cheap."""

    def bars(self, symbol: str) -> Bars:
        """Return the closed bars of a symbol, none for one that it does not know. Context is left out."""


class ArrayFeed:
    """Bars in memory, of which only those closed by now can be seen; nothing is copied.

    Parameters
    ----------
    bars
        By symbol, the whole history.
    """

    def __init__(self, bars: Mapping[str, Bars], clock: Clock) -> None:
        self._bars = {symbol: _without_context(series) for symbol, series in bars.items()}
        self._restated = dict.fromkeys(bars, 0)
        self._clock = clock
        self._now = (clock.now(), _stamp(clock.now()))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols, in the order given."""
        return tuple(self._bars)

    def version(self, symbol: str) -> Version:
        """Return how often the symbol was restated and how many of its bars are closed."""
        if symbol not in self._bars:
            return Version(0, 0)
        return Version(self._restated[symbol], self._closed(symbol))

    def bars(self, symbol: str) -> Bars:
        """Return the closed bars of a symbol."""
        if symbol not in self._bars:
            return _no_bars(symbol)
        return self._bars[symbol][: self._closed(symbol)]

    def put(self, bars: Bars) -> None:
        """Replace a symbol's history, or add one."""
        if symbol_changed(self._bars.get(bars.symbol), bars):
            self._restated[bars.symbol] = self._restated.get(bars.symbol, 0) + 1
        else:
            self._restated.setdefault(bars.symbol, 0)
        self._bars[bars.symbol] = _without_context(bars)

    def _closed(self, symbol: str) -> int:
        now = self._clock.now()
        if now != self._now[0]:
            self._now = (now, _stamp(now))
        return int(self._bars[symbol].timestamp.searchsorted(self._now[1], side="right"))


class SourceFeed:
    """Bars of the active market from its source, held to the rules of `integrity`; read again when the source changed.

    A symbol whose series cannot be read or fails the rules keeps the bars that it had; `problems` says why.
    """

    def __init__(self, layout: Layout, params: Params, clock: Clock) -> None:
        self._market = params.active
        self._check = params.check
        self._source = open_source(
            params.active, root=layout.root, seed=params.seed, streamed=layout.streamed(params.market)
        )
        self._feed = ArrayFeed({}, clock)
        self._read: dict[str, object] = {}
        self._problems: dict[str, str] = {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """The market's symbols."""
        return tuple(self._market.symbols)

    @property
    def problems(self) -> Mapping[str, str]:
        """Why the newest series of a symbol was not taken, by symbol."""
        return dict(self._problems)

    def version(self, symbol: str) -> Version:
        """Return how often the symbol was restated and how many of its bars are closed."""
        self._refresh(symbol)
        return self._feed.version(symbol)

    def bars(self, symbol: str) -> Bars:
        """Return the closed bars of a symbol."""
        self._refresh(symbol)
        return self._feed.bars(symbol)

    def _refresh(self, symbol: str) -> None:
        if symbol not in self._market.symbols:
            return
        try:
            found = self._source.version(symbol)
            if symbol in self._read and self._read[symbol] == found:
                return
            # Noted first: a series that fails is looked at again once it has changed, not at every call.
            self._read[symbol] = found
            report = inspect(
                symbol,
                self._source.read(symbol),
                calendar=self._market.calendar,
                interval=parse_interval(self._market.interval),
                config=self._check,
            )
            self._feed.put(Bars.from_frame(symbol, admit(report, self._check, file=self._market.source)))
            self._problems.pop(symbol, None)
        except DataError as error:
            self._problems[symbol] = str(error)


def symbol_changed(before: Bars | None, after: Bars) -> bool:
    """Return whether bars that were there are not there as they were; bars added at the end change nothing."""
    if before is None:
        return False
    kept = len(before)
    if len(after) < kept:
        return True
    return any(
        not np.array_equal(getattr(before, name), getattr(after, name)[:kept])
        for name in ("timestamp", "open", "high", "low", "close", "volume")
    )


def _stamp(time: datetime) -> np.datetime64:
    return np.datetime64(time.astimezone(UTC).replace(tzinfo=None), "us")


def _without_context(bars: Bars) -> Bars:
    series = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    return Bars(bars.symbol, bars.timestamp, *series) if bars.context else bars


def _no_bars(symbol: str) -> Bars:
    none = np.empty(0)
    return Bars(symbol, np.empty(0, dtype="datetime64[us]"), none, none, none, none, none)
