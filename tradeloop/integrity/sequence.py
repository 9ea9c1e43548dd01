"""Rules for the order of bars in time: gaps, the calendar's grid, runs and jumps. None changes anything."""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Floats
from tradeloop.integrity.series import Hits, Mask, Rows, Series, runs, single, stamp, stretches

STALE_RUN = 5  # bars
DRIFT_RUN = 5  # bars
MAD_TO_SIGMA = 1.4826  # of a normal distribution
SPLIT_RATIOS = np.array([1.5, 2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 50])
SPLIT_TOLERANCE = 0.03  # log; what a stock moves overnight beside the split itself
TAKEN_BACK = 0.8  # share of a jump that the next bar undoes, from which on it looks like a bad tick


def out_of_order(series: Series) -> Hits:
    """Find bars that stand after a later one."""
    newest = np.maximum.accumulate(series.times)
    return single(series, series.times < newest, lambda row: f"stands after the bar of {stamp(newest[row])}")


def gap(series: Series) -> Hits:
    """Find stretches of bars that the calendar has and the series has not; a hit's time is the first one missing."""
    expected = series.expected
    missing = ~np.isin(expected, series.times)
    starts, counts = stretches(missing)
    rows = np.searchsorted(np.maximum.accumulate(series.times), expected[starts]).astype(np.intp)

    def text(hit: int) -> str:
        return f"bars missing to {stamp(expected[starts[hit] + counts[hit] - 1])}: {counts[hit]}"

    return Hits(rows, expected[starts], counts, expected[missing], text)


def off_grid(series: Series) -> Hits:
    """Find bars whose close is none of the calendar's."""
    return single(series, ~series.on_grid, lambda _: f"no {series.calendar} bar closes then")


def drift(series: Series) -> Hits:
    """Find runs of `DRIFT_RUN` bars or more on one side of the grid by less than half an interval: a clock is off."""
    near = ~series.on_grid & (np.abs(series.offset) < np.timedelta64(series.interval) / 2)
    late = series.offset > np.timedelta64(0)

    def text(first: int, count: int) -> str:
        ends = (series.offset[row] / np.timedelta64(1, "s") for row in (first, first + count - 1))
        return f"{count} bars close beside the grid, by {' s to '.join(f'{end:+g}' for end in ends)} s"

    sides = [runs(series, near & side, DRIFT_RUN, text) for side in (late, ~late)]
    rows = np.concatenate([side.rows for side in sides])
    order = np.argsort(rows)
    bars = np.concatenate([side.bars for side in sides])[order]
    texts = [side.text(hit) for side in sides for hit in range(len(side))]
    each = np.sort(np.concatenate([side.each for side in sides]))
    return Hits(rows[order], series.times[rows[order]], bars, each, lambda hit: texts[order[hit]])


def irregular(series: Series) -> Hits:
    """Find bars whose distance from the bar before is no number of the calendar's steps."""
    steps = np.append(np.timedelta64(0, "us"), np.diff(series.times))
    broken = np.append(False, series.offset[1:] != series.offset[:-1])
    return single(series, broken, lambda row: f"{steps[row] / np.timedelta64(1, 's'):g} s after the bar before")


def stale(series: Series) -> Hits:
    """Find runs of at least `STALE_RUN` bars that stand still at the close before them."""
    close = series.prices[3]
    still = np.append(False, (series.prices[:, 1:] == close[:-1]).all(axis=0))
    return runs(series, still, STALE_RUN, lambda first, count: f"{count} bars stand still at {float(close[first])!r}")


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
    spanned = np.append(1, np.diff(np.searchsorted(series.expected, series.times)))
    scale = scale * np.sqrt(np.maximum(spanned, 1))
    return returns, np.divide(centred, scale, out=np.full(len(returns), np.nan), where=scale > 0)


def _splits(series: Series, returns: Floats, rows: Rows) -> Mask:
    """Tell which of some rows' returns are a split's: the bar opens and closes a plain ratio from the close before."""
    overnight = np.log(series.prices[0, rows] / series.prices[3, rows - 1])
    near = np.abs(np.abs(overnight)[:, None] - np.log(SPLIT_RATIOS)) < SPLIT_TOLERANCE
    return np.asarray(near.any(axis=1) & (np.abs(returns[rows] - overnight) < 2 * SPLIT_TOLERANCE))


def jump_and_split(series: Series, jump_z: float) -> tuple[Hits, Hits]:
    """Find log returns further than `jump_z` robust standard deviations from the median, and tell splits from jumps.

    Returns
    -------
    jump, split
        A split is a jump by a plain ratio between a close and the next open, which the rest of the bar does not add to:
        prices were not adjusted for it.
    """
    returns, z = _returns(series)
    far = np.flatnonzero(np.abs(z) > jump_z)
    with np.errstate(divide="ignore", invalid="ignore"):
        of_split = _splits(series, returns, far)
    split, jump = np.zeros((2, len(series)), dtype=bool)
    split[far[of_split]], jump[far[~of_split]] = True, True
    following = np.append(returns[1:], np.nan)

    def said(row: int) -> str:
        text = f"log return {returns[row]:+.4f}, {abs(z[row]):.1f} robust standard deviations"
        back = -following[row] / returns[row]
        return f"{text}, {back:.0%} taken back by the next bar" if TAKEN_BACK <= back <= 1 / TAKEN_BACK else text

    return single(series, jump, said), single(
        series, split, lambda row: f"× {np.exp(returns[row]):.4f} from the last close: a split, not adjusted for?"
    )
