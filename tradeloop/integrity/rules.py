"""Rules for single bars and for copies of them. Each finds the bars that break it; none changes anything."""

from __future__ import annotations

import numpy as np
import pandas as pd

from tradeloop.bars import COLUMNS, PRICES, Floats, to_times
from tradeloop.integrity.series import Hits, Mask, Rows, Series, single

ROUNDING = 1e-12  # relative; adjustment by a factor leaves a few ulps (2e-16 each), no quote is as fine as this
ODD_SHARE = 0.01  # what is rarer than this among a series' bars stands out


def _ohlc(series: Series, row: int) -> str:
    values = ", ".join(f"{n}={float(v)!r}" for n, v in zip(PRICES, series.prices[:, row], strict=True))
    return f"({values}, volume={float(series.volume[row])!r})"


def not_finite(series: Series) -> Hits:
    """Find prices or volumes that are missing or infinite."""
    broken = ~(np.isfinite(series.prices).all(axis=0) & np.isfinite(series.volume))
    return single(series, broken, lambda row: f"prices and volume must be finite {_ohlc(series, row)}")


def non_positive_price(series: Series) -> Hits:
    """Find prices of zero or less."""
    broken = np.asarray((series.prices <= 0).any(axis=0))
    return single(series, broken, lambda row: f"prices must be positive {_ohlc(series, row)}")


def negative_volume(series: Series) -> Hits:
    """Find volumes below zero."""
    broken = np.asarray(series.volume < 0)
    return single(series, broken, lambda row: f"volume must not be negative {_ohlc(series, row)}")


def zero_volume(series: Series) -> Hits:
    """Find bars without volume: nothing traded, or the vendor does not know what did."""
    return single(series, series.volume == 0, lambda _: "no volume")


def excess(series: Series) -> Floats:
    """Return by how much (relative) each bar's open or close lies outside its low and high; 0 if inside, NaN if NaN."""
    _, high, low, _ = series.prices
    with np.errstate(divide="ignore", invalid="ignore"):
        above = series.prices.max(axis=0) / high - 1
        below = 1 - series.prices.min(axis=0) / low
    return np.asarray(np.maximum(above, below))


def broken_ohlc(series: Series) -> Hits:
    """Find bars whose open or close lies outside low to high, by more than rounding."""
    broken = excess(series) > ROUNDING
    return single(series, broken, lambda row: f"prices must lie within low to high {_ohlc(series, row)}")


def rounding(series: Series) -> Hits:
    """Find bars whose open or close lies outside low to high by a rounding error; cleaning widens the range by it."""
    by = excess(series)
    # An excess of one ulp may be nothing as a ratio.
    outside = (series.prices.max(axis=0) > series.prices[1]) | (series.prices.min(axis=0) < series.prices[2])
    return single(series, outside & (by <= ROUNDING), lambda row: f"outside low to high by a share of {by[row]:.1e}")


def _copies(series: Series) -> tuple[Rows, Rows]:
    """Return the rows of which another with the same close stands further on, and that next copy's row."""
    order = np.argsort(series.times, kind="stable")
    same = series.times[order][1:] == series.times[order][:-1]
    return order[:-1][same], order[1:][same]


def _unlike(was: Floats, now: Floats) -> Mask:
    """Tell where values differ; what is missing in both does not."""
    return np.asarray((was != now) & ~(np.isnan(was) & np.isnan(now)))


def _became(was: Floats, now: Floats) -> str:
    """Return what of open, high, low, close and volume another value took the place of."""
    pairs = zip(COLUMNS[1:], was.tolist(), now.tolist(), _unlike(was, now), strict=True)
    return "; ".join(f"{name} {old!r} became {new!r}" for name, old, new, other in pairs if other)


def duplicate(series: Series) -> Hits:
    """Find bars of which a later copy (same close time) stands further on in the file."""
    rows, copies = _copies(series)
    values = series.values
    copy_of = dict(zip(rows.tolist(), copies.tolist(), strict=True))
    broken = np.zeros(len(series), dtype=bool)
    broken[rows] = True

    def text(row: int) -> str:
        other = _unlike(values[:, row], values[:, copy_of[row]]).any()
        return "another copy follows" if other else "an identical copy follows"

    return single(series, broken, text)


def restated(series: Series) -> Hits:
    """Find the duplicates whose next copy has other values: the vendor changed its mind."""
    rows, copies = _copies(series)
    values = series.values
    other = _unlike(values[:, rows], values[:, copies]).any(axis=0)
    copy_of = dict(zip(rows[other].tolist(), copies[other].tolist(), strict=True))
    broken = np.zeros(len(series), dtype=bool)
    broken[rows[other]] = True
    return single(series, broken, lambda row: _became(values[:, row], values[:, copy_of[row]]))


def restatements(before: pd.DataFrame, after: pd.DataFrame) -> list[tuple[np.datetime64, str]]:
    """Return when and how `after` contradicts `before`: bars that both have, with other values.

    For feeds and repeated reads. Both are bar frames; of copies within one frame the last counts.

    Returns
    -------
    list
        Close (UTC) and what became of the bar, in order of time.
    """
    was, now = (
        frame.drop_duplicates("timestamp", keep="last").set_index("timestamp").sort_index() for frame in (before, after)
    )
    both = was.index.intersection(now.index)
    old, new = (frame.loc[both, list(COLUMNS[1:])].to_numpy() for frame in (was, now))
    times = to_times(both.to_series())
    return [(times[row], _became(old[row], new[row])) for row in np.flatnonzero(_unlike(old, new).any(axis=1))]


def partial_bar(series: Series) -> Hits:
    """Find bars that were read before they had closed.

    1. A quote among the bars: its time lies off the grid and within an interval of the bar before, and no bar follows
       it by just an interval. The bar before was still open when the quote was made, so both are partial.
    2. A last bar without volume or movement, where such bars are rare.
    """
    step = np.diff(series.times)
    quote = np.append(False, (step > np.timedelta64(0)) & (step < np.timedelta64(series.interval)))
    quote &= ~series.on_grid & np.append(step != np.timedelta64(series.interval), True)
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

    return single(series, quote | opened | last, text)
