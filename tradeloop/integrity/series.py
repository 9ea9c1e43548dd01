"""A raw series as arrays, and where it breaks a rule: what every rule takes and gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats, Times
from tradeloop.calendars import expected_closes

Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]
Spans = NDArray[np.timedelta64]


@dataclass(frozen=True)
class Series:
    """One symbol's raw bars as arrays of length n, in the order of their file.

    Attributes
    ----------
    times
        Bar closes, UTC.
    prices
        Open, high, low, close; shape (4, n).
    volume
        Shape (n,).
    """

    times: Times
    prices: Floats
    volume: Floats
    calendar: str
    interval: timedelta

    def __getitem__(self, rows: Rows | Mask) -> Series:
        """Return the bars at some rows."""
        return Series(self.times[rows], self.prices[:, rows], self.volume[rows], self.calendar, self.interval)

    def __len__(self) -> int:
        return len(self.times)

    @cached_property
    def values(self) -> Floats:
        """Prices and volume; shape (5, n)."""
        return np.vstack([self.prices, self.volume])

    @cached_property
    def expected(self) -> Times:
        """The closes that a complete series has between this one's first and last."""
        return expected_closes(self.calendar, self.interval, self.times.min(), self.times.max())

    @cached_property
    def on_grid(self) -> Mask:
        """Which bars close when the calendar says that one does."""
        return np.isin(self.times, self.expected)

    @cached_property
    def offset(self) -> Spans:
        """How long after the nearest close of the calendar each bar closes; below zero: before it."""
        result = np.zeros(len(self), dtype="timedelta64[us]")
        if self.on_grid.all():
            return result
        margin = np.timedelta64(self.interval)
        grid = expected_closes(self.calendar, self.interval, self.times.min() - margin, self.times.max() + margin)
        if not len(grid):
            return np.full(len(self), np.timedelta64("NaT", "us"))
        after = np.searchsorted(grid, self.times)
        late = self.times - grid[np.maximum(after - 1, 0)]
        early = self.times - grid[np.minimum(after, len(grid) - 1)]
        return np.where(np.abs(late) < np.abs(early), late, early)


@dataclass(frozen=True)
class Hits:
    """Where a rule is broken.

    Attributes
    ----------
    rows
        Positions in the series; for bars that are missing, of the bar after them.
    times
        When, UTC; of the same length.
    bars
        How many bars each hit concerns.
    each
        The closes of all these bars, hit by hit; shape (bars.sum(),).
    text
        Says what is wrong with the hit of an index.
    """

    rows: Rows
    times: Times
    bars: Rows
    each: Times
    text: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def total(self) -> int:
        """How many bars break the rule."""
        return len(self.each)


def stamp(time: np.datetime64) -> str:
    """Return a time of UTC as text, to the second."""
    return f"{np.datetime_as_string(time, unit='s')}Z"


def single(series: Series, broken: Mask, text: Callable[[int], str]) -> Hits:
    """Return a hit of one bar for each broken row; `text` takes the row."""
    rows = np.flatnonzero(broken)
    times = series.times[rows]
    return Hits(rows, times, np.ones(len(rows), dtype=np.intp), times, lambda hit: text(int(rows[hit])))


def runs(series: Series, broken: Mask, least: int, text: Callable[[int, int], str]) -> Hits:
    """Return a hit for each run of at least `least` broken rows; `text` takes the first row and the run's length."""
    starts, counts = stretches(broken)
    starts, counts = starts[counts >= least], counts[counts >= least]
    rows = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(int(counts.sum()))
    return Hits(
        starts,
        series.times[starts],
        counts,
        series.times[rows],
        lambda hit: text(int(starts[hit]), int(counts[hit])),
    )


def stretches(mask: Mask) -> tuple[Rows, Rows]:
    """Return where each run of true values starts, and how long it is."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return edges[::2].astype(np.intp), (edges[1::2] - edges[::2]).astype(np.intp)
