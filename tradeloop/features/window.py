"""What a stream of bars keeps: the newest bars of a symbol, and a context series as it was known at any time."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tradeloop.bars import Bars, Floats, Times, to_times
from tradeloop.journal import Level

FIELDS = 5
"""Rows of a window before context and inputs: open, high, low, close, volume."""

_BEGINNING = -(2**63)


class Window:
    """The kept bars of one symbol, oldest first, in arrays that are made once.

    Parameters
    ----------
    keep
        How many bars; the arrays have twice the room, so that moving the kept ones to the front is seldom needed.
    context, inputs
        Names of the columns beyond prices and volume.

    Attributes
    ----------
    whole
        Whether no bar of the symbol has been dropped: then the rows of the warm-up are batch's, too.
    """

    def __init__(self, symbol: str, keep: int, context: tuple[str, ...] = (), inputs: tuple[str, ...] = ()) -> None:
        self.symbol = symbol
        self.whole = True
        self._keep = keep
        self._context, self._inputs = context, inputs
        self._values = np.empty((FIELDS + len(context) + len(inputs), 2 * keep))
        self._times = np.empty(2 * keep, dtype=np.int64)
        self._first = self._end = 0

    def __len__(self) -> int:
        return self._end - self._first

    def begin(self, history: Bars) -> None:
        """Take the newest bars of a history, their context left out."""
        kept = history[-self._keep :]
        self.whole, self._first, self._end = len(kept) == len(history), 0, len(kept)
        self._times[: self._end] = kept.timestamp.astype("datetime64[us]").view(np.int64)
        prices = (kept.open, kept.high, kept.low, kept.close, kept.volume)
        unknown = np.full(len(kept), np.nan)
        inputs = [kept.inputs.get(name, unknown) for name in self._inputs]
        for row, values in enumerate([*prices, *(unknown for _ in self._context), *inputs]):
            self._values[row, : self._end] = values

    @property
    def times(self) -> Times:
        """The closes, ``datetime64[us]``."""
        return self._times[self._first : self._end].view("datetime64[us]")

    def bars(self, count: int | None = None) -> Bars:
        """Return all kept bars, or the newest so many; views of what is kept."""
        first = self._first if count is None else max(self._first, self._end - count)
        opened, high, low, close, volume, *more = self._values[:, first : self._end]
        times = self._times[first : self._end].view("datetime64[us]")
        context = dict(zip(self._context, more, strict=False))
        inputs = dict(zip(self._inputs, more[len(context) :], strict=True))
        return Bars(self.symbol, times, opened, high, low, close, volume, context, inputs)

    def find(self, time: int) -> tuple[int, bool]:
        """Return where a bar of this time stands, or would stand, and whether one is there; -1 for one too old."""
        count = len(self)
        if not count or time > self._times[self._end - 1]:
            return count, False
        place = int(self._times[self._first : self._end].searchsorted(time))
        there = bool(self._times[self._first + place] == time)
        if place == 0 and not there and (count == self._keep or not self.whole):
            return -1, False
        return place, there

    def holds(self, place: int, values: Sequence[float]) -> bool:
        """Return whether the bar at a place has these values."""
        return np.array_equal(self._values[:, self._first + place], values, equal_nan=True)

    def insert(self, place: int, time: int, values: Sequence[float]) -> None:
        """Put a bar before the one at a place, or behind all; what is then too many is dropped, the oldest first."""
        if self._end == len(self._times):
            count = len(self)
            self._times[:count] = self._times[self._first :]
            self._values[:, :count] = self._values[:, self._first :]
            self._first, self._end = 0, count
        at = self._first + place
        if at < self._end:
            self._times[at + 1 : self._end + 1] = self._times[at : self._end]
            self._values[:, at + 1 : self._end + 1] = self._values[:, at : self._end]
        self._times[at] = time
        self._values[:, at] = values
        self._end += 1
        if len(self) > self._keep:
            self._first += 1
            self.whole = False

    def replace(self, place: int, values: Sequence[float]) -> None:
        """Put another bar in the place of one."""
        self._values[:, self._first + place] = values

    def differs(self, position: int, values: Floats) -> int:
        """Return the first place where a row of values is not the one given; the number of bars if there is none."""
        held = self._values[position, self._first : self._end]
        other = np.flatnonzero((held != values) & ~(np.isnan(held) & np.isnan(values)))
        return int(other[0]) if len(other) else len(self)

    def fill(self, position: int, values: Floats) -> None:
        """Take another row of values for all kept bars."""
        self._values[position, self._first : self._end] = values


class Series:
    """A context series as it was known at any time: `bars.known_close` and `sources.table.context_frame`, kept up."""

    def __init__(self, frame: pd.DataFrame | None = None) -> None:
        self._all: list[tuple[int, int, float]] = []  # known, time, close; in this order
        self._known: list[int] = []  # of those that were the newest when they became known
        self._close: list[float] = []
        self._newest = _BEGINNING
        if frame is not None:
            known, times = (to_times(frame[name]).view(np.int64).tolist() for name in ("known_at", "timestamp"))
            last = dict(zip(zip(known, times, strict=True), frame["close"].tolist(), strict=True))
            self._all = [(*key, last[key]) for key in sorted(last)]
            self._build()

    def add(self, level: Level) -> bool:
        """Take a value, in place of one of the same two times; return whether that is news."""
        key, row = (level.known, level.time), (level.known, level.time, level.close)
        place = bisect_left(self._all, key, key=lambda known: known[:2])
        if place == len(self._all):
            self._all.append(row)
            self._newest = max(self._newest, level.time)
            if level.time == self._newest:
                self._known.append(level.known)
                self._close.append(level.close)
            return True
        if self._all[place][:2] == key:
            if self._all[place] == row:
                return False
            self._all[place] = row
        else:
            self._all.insert(place, row)
        self._build()
        return True

    def at(self, time: int) -> float:
        """Return what was known at a time, NaN if nothing was."""
        place = bisect_right(self._known, time)
        return self._close[place - 1] if place else np.nan

    def known(self, times: Times) -> Floats:
        """Return what was known at each of some increasing times."""
        stamps: NDArray[np.int64] = times.view(np.int64)
        first = max(bisect_right(self._known, int(stamps[0])) - 1, 0) if len(stamps) else 0
        at = np.searchsorted(self._known[first:], stamps, side="right")
        return np.append(np.nan, self._close[first:])[at]

    def _build(self) -> None:
        self._known, self._close, self._newest = [], [], _BEGINNING
        for known, time, close in self._all:
            if time >= self._newest:
                self._newest = time
                self._known.append(known)
                self._close.append(close)
