"""The rules that a series of bars is held to. Each finds the bars that break it; none changes anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tradeloop.bars import Floats, Times
from tradeloop.calendars import expected_closes

Severity = Literal["error", "warning"]
Rows = NDArray[np.intp]
Mask = NDArray[np.bool_]

ROUNDING = 1e-12  # relative; adjustment by a factor leaves a few ulps (2e-16 each), no quote is as fine as this
STALE_RUN = 5  # bars
ODD_SHARE = 0.01  # what is rarer than this among a series' bars stands out
MAD_TO_SIGMA = 1.4826  # of a normal distribution
SPLIT_RATIOS = np.array([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50])
SPLIT_TOLERANCE = 0.03  # log; what a stock moves overnight beside the split itself


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

    def expected(self) -> Times:
        """Return the closes that a complete series has between this one's first and last."""
        return expected_closes(self.calendar, self.interval, self.times.min(), self.times.max())


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
    text
        Says what is wrong with the hit of an index.
    """

    rows: Rows
    times: Times
    bars: Rows
    text: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.rows)


def stamp(time: np.datetime64) -> str:
    """Return a time of UTC as text, to the second."""
    return f"{np.datetime_as_string(time, unit='s')}Z"


def _at(series: Series, broken: Mask, text: Callable[[int], str]) -> Hits:
    """Return a hit of one bar for each broken row; `text` takes the row."""
    rows = np.flatnonzero(broken)
    return Hits(rows, series.times[rows], np.ones(len(rows), dtype=np.intp), lambda hit: text(int(rows[hit])))


def _ohlc(series: Series, row: int) -> str:
    values = ", ".join(
        f"{n}={float(v)!r}" for n, v in zip(("open", "high", "low", "close"), series.prices[:, row], strict=True)
    )
    return f"({values}, volume={float(series.volume[row])!r})"


def not_finite(series: Series) -> Hits:
    """Find prices or volumes that are missing or infinite."""
    broken = ~(np.isfinite(series.prices).all(axis=0) & np.isfinite(series.volume))
    return _at(series, broken, lambda row: f"prices and volume must be finite {_ohlc(series, row)}")


def non_positive_price(series: Series) -> Hits:
    """Find prices of zero or less."""
    broken = np.asarray((series.prices <= 0).any(axis=0))
    return _at(series, broken, lambda row: f"prices must be positive {_ohlc(series, row)}")


def negative_volume(series: Series) -> Hits:
    """Find volumes below zero."""
    return _at(series, np.asarray(series.volume < 0), lambda row: f"volume must not be negative {_ohlc(series, row)}")


def zero_volume(series: Series) -> Hits:
    """Find bars without volume: nothing traded, or the vendor does not know what did."""
    return _at(series, series.volume == 0, lambda _: "no volume")


def excess(series: Series) -> Floats:
    """Return by how much (relative) each bar's open or close lies outside its low and high; 0 if inside, NaN if NaN."""
    _, high, low, _ = series.prices
    with np.errstate(divide="ignore", invalid="ignore"):
        above = series.prices.max(axis=0) / high - 1
        below = 1 - series.prices.min(axis=0) / low
    return np.asarray(np.maximum(above, below))


def broken_ohlc(series: Series) -> Hits:
    """Find bars whose open or close lies outside low to high, by more than rounding."""
    return _at(
        series, excess(series) > ROUNDING, lambda row: f"prices must lie within low to high {_ohlc(series, row)}"
    )


def rounding(series: Series) -> Hits:
    """Find bars whose open or close lies outside low to high by a rounding error; cleaning widens the range by it."""
    by = excess(series)
    # An excess of one ulp may be nothing as a ratio.
    outside = (series.prices.max(axis=0) > series.prices[1]) | (series.prices.min(axis=0) < series.prices[2])
    return _at(series, outside & (by <= ROUNDING), lambda row: f"outside low to high by a share of {by[row]:.1e}")


def duplicate(series: Series) -> Hits:
    """Find bars of which a later copy (same close time) stands further on in the file."""
    order = np.argsort(series.times, kind="stable")
    same = series.times[order][1:] == series.times[order][:-1]
    rows, copies = order[:-1][same], order[1:][same]
    copy_of = dict(zip(rows.tolist(), copies.tolist(), strict=True))

    def text(row: int) -> str:
        copy = copy_of[row]
        equal = (
            np.array_equal(series.prices[:, row], series.prices[:, copy]) and series.volume[row] == series.volume[copy]
        )
        return (
            "an identical copy follows" if equal else f"another copy follows {_ohlc(series, row)} {_ohlc(series, copy)}"
        )

    broken = np.zeros(len(series), dtype=bool)
    broken[rows] = True
    return _at(series, broken, text)


def partial_bar(series: Series) -> Hits:
    """Find bars that were read before they had closed.

    1. A quote among the bars: its time lies off the grid and within an interval of the bar before. That bar was still
       open when the quote was made, so both are partial.
    2. A last bar without volume or movement, where such bars are rare.
    """
    step = np.diff(series.times)
    quote = np.append(False, (step > np.timedelta64(0)) & (step < np.timedelta64(series.interval)))
    quote &= ~np.isin(series.times, series.expected())
    if quote.mean() > ODD_SHARE:  # a series that is off the grid throughout is not one of quotes
        quote[:] = False
    still = (series.prices == series.prices[3]).all(axis=0) & (series.volume == 0)
    last = np.zeros(len(series), dtype=bool)
    last[-1] = still[-1] and still.mean() <= ODD_SHARE
    opened = np.append(quote[1:], False)

    def text(row: int) -> str:
        if quote[row]:
            return "a quote among the bars"
        return "still open at the quote that follows" if opened[row] else "the last bar has no volume and does not move"

    return _at(series, quote | opened | last, text)


def out_of_order(series: Series) -> Hits:
    """Find bars that stand after a later one."""
    newest = np.maximum.accumulate(series.times)
    return _at(series, series.times < newest, lambda row: f"stands after the bar of {stamp(newest[row])}")


def gap(series: Series) -> Hits:
    """Find stretches of bars that the calendar has and the series has not; a hit's time is the first one missing."""
    expected = series.expected()
    present = np.isin(expected, series.times)
    edges = np.flatnonzero(np.diff(np.concatenate(([True], present, [True])).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]  # each run of missing ones
    times, counts = expected[starts], (ends - starts).astype(np.intp)
    rows = np.searchsorted(np.maximum.accumulate(series.times), times).astype(np.intp)
    return Hits(rows, times, counts, lambda hit: f"bars missing to {stamp(expected[ends[hit] - 1])}: {counts[hit]}")


def off_grid(series: Series) -> Hits:
    """Find bars whose close is none of the calendar's."""
    broken = ~np.isin(series.times, series.expected())
    return _at(series, broken, lambda _: f"no {series.calendar} bar closes then")


def stale(series: Series) -> Hits:
    """Find runs of at least `STALE_RUN` bars that stand still at the close before them."""
    close = series.prices[3]
    still = np.append(False, (series.prices[:, 1:] == close[:-1]).all(axis=0))
    edges = np.flatnonzero(np.diff(np.concatenate(([False], still, [False])).astype(np.int8)))
    starts, counts = edges[::2].astype(np.intp), (edges[1::2] - edges[::2]).astype(np.intp)
    starts, counts = starts[counts >= STALE_RUN], counts[counts >= STALE_RUN]
    return Hits(
        starts, series.times[starts], counts, lambda hit: f"{counts[hit]} bars stand still at {close[starts[hit]]!r}"
    )


def _returns(series: Series) -> tuple[Floats, Floats]:
    """Return each bar's log return from the close before (NaN where there is none), and its robust z-score.

    Over a gap, the standard deviation grows with the square root of the bars that it spans.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        returns = np.append(np.nan, np.diff(np.log(series.prices[3])))
    returns[~np.isfinite(returns)] = np.nan
    if np.isnan(returns).all():
        return returns, returns
    centred = returns - np.nanmedian(returns)
    scale = MAD_TO_SIGMA * np.nanmedian(np.abs(centred))
    spanned = np.append(1, np.diff(np.searchsorted(series.expected(), series.times)))
    scale = scale * np.sqrt(np.maximum(spanned, 1))
    return returns, np.divide(centred, scale, out=np.full(len(returns), np.nan), where=scale > 0)


def _splits(series: Series, returns: Floats) -> Mask:
    """Tell which returns are a split's: the bar opens and closes a plain ratio from the close before."""
    with np.errstate(divide="ignore", invalid="ignore"):
        overnight = np.append(np.nan, np.log(series.prices[0, 1:] / series.prices[3, :-1]))
    near = np.abs(np.abs(overnight)[:, None] - np.log(SPLIT_RATIOS)) < SPLIT_TOLERANCE
    return np.asarray(near.any(axis=1) & (np.abs(returns - overnight) < 2 * SPLIT_TOLERANCE))


def split(series: Series, jump_z: float) -> Hits:
    """Find jumps that look like a split for which prices were not adjusted."""
    returns, z = _returns(series)
    broken = (np.abs(z) > jump_z) & _splits(series, returns)
    return _at(
        series, broken, lambda row: f"× {np.exp(returns[row]):.4f} from the last close: a split, not adjusted for?"
    )


def jump(series: Series, jump_z: float) -> Hits:
    """Find log returns further than `jump_z` robust standard deviations from the median, that are no split's."""
    returns, z = _returns(series)
    broken = (np.abs(z) > jump_z) & ~_splits(series, returns)
    return _at(
        series, broken, lambda row: f"log return {returns[row]:+.4f}, {abs(z[row]):.1f} robust standard deviations"
    )
