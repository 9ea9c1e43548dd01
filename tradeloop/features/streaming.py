"""Features of a stream: `Streaming.update` takes one closed bar and gives the rows that batch would give.

Of each symbol the bars that decide a row are kept, and a few more (`late`) behind which a bar may still come in. They
lie in arrays made once, as views of which the features are computed: nothing is copied for a bar but, now and then, the
kept ones to the front. What a bar does follows from its event time alone:

1. newer than all: one more row, by `compute_tail`;
2. among the kept ones: put in, or put in place of another one, and every row from there on that changed comes again;
3. the same as the one that is there: nothing;
4. older than all that is kept: no row that can still be given depends on it, so it is for the offline store alone.

So whatever the order of arrival, the last row given for each of the newest `late` times is that of batch, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import pandas as pd

from tradeloop.bars import Bars, Floats
from tradeloop.features.engine import Row, compute, compute_tail, schema_lookback
from tradeloop.features.window import FIELDS, Series, Window
from tradeloop.journal import Bar, Level
from tradeloop.schema import Schema

LATE = 64


class Outcome(StrEnum):
    """What a bar was to the engine."""

    NEW = "new"
    LATE = "late"
    RESTATED = "restated"
    DUPLICATE = "duplicate"
    TOO_OLD = "too_old"


class FeatureRow(NamedTuple):
    """A feature row; `time` is the close of its bar, UTC, `values` float32 (d,)."""

    symbol: str
    time: np.datetime64
    values: Row


@dataclass(frozen=True)
class Update:
    """What became of a bar, and the rows that follow from it, oldest first."""

    outcome: Outcome
    rows: Sequence[FeatureRow] = ()


@dataclass(frozen=True)
class Observed:
    """What a context value brought: whether it was news, the symbols whose kept bars see it, the rows that changed."""

    news: bool
    symbols: frozenset[str] = frozenset()
    rows: Sequence[FeatureRow] = ()


class Streaming:
    """The newest feature rows of a market's symbols, kept up bar by bar.

    Parameters
    ----------
    schema
        Which features; see `schema_for`.
    context, inputs
        Names of the context series that the market has, and of the columns of data beyond bars.
    late
        How many bars behind the newest a row is still given again when it changes.

    Raises
    ------
    SchemaMismatch
        The schema was made by other definitions than these.
    """

    def __init__(
        self, schema: Schema, *, context: Sequence[str] = (), inputs: Sequence[str] = (), late: int = LATE
    ) -> None:
        self.schema = schema
        self.lookback = schema_lookback(schema, context)
        self._context = {name: Series() for name in context}
        self._inputs = tuple(inputs)
        self._keep = self.lookback + late
        self._windows: dict[str, Window] = {}

    def seed(self, bars: Bars) -> None:
        """Begin a symbol with its history; the context is that of `seed_context`, to be called before."""
        window = self._windows[bars.symbol] = Window(bars.symbol, self._keep, tuple(self._context), self._inputs)
        window.begin(bars)
        for position, series in enumerate(self._context.values(), start=FIELDS):
            window.fill(position, series.known(window.times))

    def seed_context(self, name: str, frame: pd.DataFrame) -> None:
        """Begin a context series with a context frame."""
        self._context[name] = Series(frame)

    def update(self, bar: Bar, *, rows: bool = True) -> Update:
        """Take a closed bar; with `rows`, return those that are new or changed, else none (ask `newest`)."""
        window = self._window(bar.symbol)
        values = self._values(bar)
        place, there = window.find(bar.time)
        if there and window.holds(place, values):
            return Update(Outcome.DUPLICATE)
        if place < 0:
            window.whole = False
            return Update(Outcome.TOO_OLD)
        if place == len(window):
            window.insert(place, bar.time, values)
            return Update(Outcome.NEW, [self._newest(window)] if rows else ())
        before = self._rows(window, place) if rows else {}
        if there:
            window.replace(place, values)
        else:
            window.insert(place, bar.time, values)
            place, _ = window.find(bar.time)
        outcome = Outcome.RESTATED if there else Outcome.LATE
        return Update(outcome, self._changed(window, place, before) if rows else ())

    def observe(self, level: Level, *, rows: bool = True) -> Observed:
        """Take a value of a context series; with `rows`, return every row that changed by it."""
        series = self._context[level.series]
        if not series.add(level):
            return Observed(news=False)
        position = FIELDS + list(self._context).index(level.series)
        found: list[FeatureRow] = []
        symbols: set[str] = set()
        for window in self._windows.values():
            known = series.known(window.times)
            place = window.differs(position, known)
            if place < len(window):
                symbols.add(window.symbol)
                before = self._rows(window, place) if rows else {}
                window.fill(position, known)
                found += self._changed(window, place, before) if rows else []
        return Observed(True, frozenset(symbols), found)

    def join_inputs(self, symbol: str, values: Mapping[str, Floats]) -> None:
        """Take the columns of data beyond bars for all kept bars of a symbol, as they are known now."""
        window = self._window(symbol)
        for position, name in enumerate(self._inputs, start=FIELDS + len(self._context)):
            window.fill(position, values[name])

    def newest(self, symbols: Iterable[str]) -> list[FeatureRow]:
        """Return the newest row of each of `symbols` that has bars."""
        windows = (self._windows.get(symbol) for symbol in symbols)
        return [self._newest(window) for window in windows if window is not None and len(window)]

    def bars(self, symbol: str) -> Bars:
        """Return the kept bars of a symbol, a view that the next bar may change."""
        return self._window(symbol).bars()

    def _window(self, symbol: str) -> Window:
        window = self._windows.get(symbol)
        if window is None:
            window = self._windows[symbol] = Window(symbol, self._keep, tuple(self._context), self._inputs)
        return window

    def _values(self, bar: Bar) -> list[float]:
        context = [series.at(bar.time) for series in self._context.values()]
        given = bar.inputs or {}
        inputs = [given.get(name, np.nan) for name in self._inputs]
        return [bar.open, bar.high, bar.low, bar.close, bar.volume, *context, *inputs]

    def _newest(self, window: Window) -> FeatureRow:
        bars = window.bars(self.lookback)
        return FeatureRow(window.symbol, bars.timestamp[-1], compute_tail(bars, self.schema))

    def _rows(self, window: Window, place: int) -> dict[np.datetime64, Row]:
        """Return the rows from a place on, by time: those of which all bars are kept."""
        place = place if window.whole else max(place, self.lookback - 1)
        if place >= len(window):
            return {}
        bars = window.bars(len(window) - max(place - self.lookback + 1, 0))
        rows = compute(bars, self.schema)[place - len(window) :]
        return dict(zip(bars.timestamp[place - len(window) :].copy(), rows, strict=True))

    def _changed(self, window: Window, place: int, before: Mapping[np.datetime64, Row]) -> list[FeatureRow]:
        after = self._rows(window, place)
        return [
            FeatureRow(window.symbol, time, values)
            for time, values in after.items()
            if time not in before or not np.array_equal(before[time], values, equal_nan=True)
        ]
