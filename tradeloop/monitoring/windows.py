"""Rolling windows over outcomes, by count and by the market's time.

`Rows` keeps every outcome once; a `Track`, one for each key, keeps which of them are its own, in the order in which
they were learned. To add an outcome is to append a number to each track. A window's sums follow lazily: what has
entered since the last look is added, what has left is taken away, and after as many additions as the window is long
they are summed afresh, so that rounding errors cannot pile up. Per outcome, all of that is O(1) on average, whatever
the window.

A window by time holds the outcomes whose label ended less than its span ago. An outcome that is learned late counts as
of the newest label's end that its track knew: windows are always stretches of the order in which outcomes were learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.metrics.base import Floats

_START = 256


class Rows:
    """Terms and series of outcomes by row number; old ones can be dropped, numbers stay."""

    def __init__(self, terms: int, series: int) -> None:
        self.first = 0
        self.size = 0
        self._terms = np.empty((_START, terms))
        self._series = np.empty((_START, series))

    def append(self, terms: Sequence[float], series: Sequence[float]) -> int:
        """Add an outcome and return its number."""
        at = self.size - self.first
        if at == len(self._terms):
            self._terms, self._series = _grown(self._terms, at), _grown(self._series, at)
        self._terms[at] = terms
        self._series[at] = series
        self.size += 1
        return self.size - 1

    def replace(self, row: int, terms: Sequence[float], series: Sequence[float]) -> None:
        """Put other values in the place of an outcome's."""
        self._terms[row - self.first] = terms
        self._series[row - self.first] = series

    def terms(self, rows: NDArray[np.int64]) -> Floats:
        """Return the terms of rows (n, terms)."""
        return np.asarray(self._terms[rows - self.first])

    def series(self, rows: NDArray[np.int64]) -> Floats:
        """Return the series of rows (n, series)."""
        return np.asarray(self._series[rows - self.first])

    def drop(self, before: int) -> None:
        """Forget the rows below a number."""
        count, kept = before - self.first, self.size - before
        self._terms[:kept] = self._terms[count : count + kept].copy()
        self._series[:kept] = self._series[count : count + kept].copy()
        self.first = before


@dataclass
class Window:
    """One window of a track: its sums cover the positions `low` to `high`, exclusive.

    Attributes
    ----------
    name
        ``n:200`` or ``t:30d``.
    count, span
        Its length in outcomes or in microseconds; the other is None.
    added
        Additions since the sums were made afresh.
    written
        The track's size when the window was last written; below zero to have it written anew.
    """

    name: str
    count: int | None
    span: int | None
    low: int = 0
    high: int = 0
    added: int = 0
    written: int = 0
    sums: Floats | None = None

    def forget(self) -> None:
        """Make the sums afresh at the next look."""
        self.sums = None


class Track:
    """The outcomes of one key, and the windows over them; positions count from its first outcome.

    Attributes
    ----------
    size
        How many outcomes there have been.
    due_at
        The size at which one of its windows is to be written again.
    newest
        The newest label's end, in microseconds since 1970.
    last_row
        The newest outcome's row.
    """

    def __init__(self, rows: Rows, windows: Sequence[Window], *, due_at: int) -> None:
        self._rows = rows
        self.windows = list(windows)
        self.size = 0
        self.due_at = due_at
        self._first = 0
        self._own = np.empty(_START, dtype=np.int64)
        self._times = np.empty(_START, dtype=np.int64)
        self.newest = -(2**62)
        self.last_row = -1
        self._most = max((window.count for window in windows if window.count), default=0)
        self._longest = max((window.span for window in windows if window.span), default=0)

    def append(self, row: int, time: int) -> None:
        """Add an outcome whose label ended at `time`, in microseconds."""
        self.newest = max(self.newest, time)
        self.last_row = row
        at = self.size - self._first
        if at == len(self._own):
            at = self._make_room()
        self._own[at] = row
        self._times[at] = self.newest
        self.size += 1

    def first_row(self) -> int:
        """Return the oldest row that a window may still need; a track has at least one."""
        return int(self._own[self._needed(self.newest) - self._first])

    def own(self, low: int) -> NDArray[np.int64]:
        """Return the row numbers from a position on."""
        return self._own[low - self._first : self.size - self._first]

    def bounds(self, window: Window, now: int) -> int:
        """Return the position at which a window begins at the time `now`."""
        if window.count is not None:
            return max(self.size - window.count, self._first)
        return self._since(now - (window.span or 0))

    def sums(self, window: Window, low: int) -> Floats:
        """Return the sums of a window that begins at `low` and ends with the newest outcome."""
        high, fresh = self.size, self.size - window.high
        afresh = low >= window.high or low < window.low or window.added + fresh > high - low
        # What is to be taken away may not be there any more.
        if window.sums is None or afresh or self._own[window.low - self._first] < self._rows.first:
            window.sums = self._rows.terms(self.own(low)).sum(axis=0)
            window.added = 0
        else:
            if fresh:
                window.sums = window.sums + self._rows.terms(self.own(window.high)).sum(axis=0)
            if low > window.low:
                gone = self._own[window.low - self._first : low - self._first]
                window.sums = window.sums - self._rows.terms(gone).sum(axis=0)
            window.added += fresh
        window.low, window.high = low, high
        return window.sums

    def _since(self, time: int) -> int:
        """Return the first position whose time is later."""
        known = self._times[: self.size - self._first]
        return self._first + int(np.searchsorted(known, time, side="right"))

    def _needed(self, now: int) -> int:
        """Return the first position that a window may still need at `now` or later."""
        return max(self._first, min(self.size - self._most, self._since(now - self._longest)))

    def _make_room(self) -> int:
        """Forget what no window needs, or grow; return where the next outcome goes."""
        needed = self._needed(self.newest)
        # What a window has not taken away yet is still there to be: its sums are made afresh instead.
        for window in self.windows:
            if window.low < needed:
                window.forget()
        gone, kept = needed - self._first, self.size - needed
        if gone > kept:
            for values in (self._own, self._times):
                values[:kept] = values[gone : gone + kept].copy()
            self._first = needed
            return kept
        self._own, self._times = _grown(self._own, len(self._own)), _grown(self._times, len(self._times))
        return self.size - self._first


def _grown(values: NDArray[Any], used: int) -> NDArray[Any]:
    grown = np.empty((2 * len(values), *values.shape[1:]), dtype=values.dtype)
    grown[:used] = values[:used]
    return grown
