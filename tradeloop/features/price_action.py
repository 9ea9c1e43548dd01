"""Price action: the shape of the last bar, and where it stands in its recent range."""

from __future__ import annotations

import numpy as np
import talib

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import feature
from tradeloop.features.rolling import lag, ratio

LONGEST = 10


@feature(lookback=2)
def gap(bars: Bars) -> Floats:
    """Gap at the open: ln(O_t / C_{t−1})."""
    return np.log(bars.open / lag(bars.close, 1))


@feature(lookback=1)
def intraday_return(bars: Bars) -> Floats:
    """Log return from the bar's open to its close: ln(C / O)."""
    return np.log(bars.close / bars.open)


@feature(lookback=1)
def close_location(bars: Bars) -> Floats:
    """Close location value: (2C − H − L) / (H − L), in [−1, 1]; 0 for a bar without a range."""
    return ratio((bars.close - bars.low) - (bars.high - bars.close), bars.high - bars.low, empty=0.0)


@feature(lookback=1)
def body_ratio(bars: Bars) -> Floats:
    """Body over range: (C − O) / (H − L), in [−1, 1]; 0 for a bar without a range."""
    return ratio(bars.close - bars.open, bars.high - bars.low, empty=0.0)


@feature(lookback=1)
def upper_wick(bars: Bars) -> Floats:
    """Upper wick over range: (H − max(O, C)) / (H − L), in [0, 1]; 0 for a bar without a range."""
    return ratio(bars.high - np.maximum(bars.open, bars.close), bars.high - bars.low, empty=0.0)


@feature(lookback=1)
def lower_wick(bars: Bars) -> Floats:
    """Lower wick over range: (min(O, C) − L) / (H − L), in [0, 1]; 0 for a bar without a range."""
    return ratio(np.minimum(bars.open, bars.close) - bars.low, bars.high - bars.low, empty=0.0)


@feature(lookback=LONGEST + 1)
def streak(bars: Bars) -> Floats:
    """Run of closes in one direction: number of bars, negative when falling, at most 10 either way; 0 if unchanged."""
    side = np.sign(bars.close - lag(bars.close, 1))
    length = np.ones(len(bars))
    alive = np.ones(len(bars), dtype=bool)
    for back in range(1, LONGEST):
        alive &= lag(side, back) == side
        length += alive
    return np.where(np.isnan(lag(side, LONGEST - 1)), np.nan, side * length)


@feature(lookback=lambda window: window, windows=(60,))
def high_distance(bars: Bars, window: int) -> Floats:
    """Log distance below the highest high of `window` bars: ln(C / max H), at most 0."""
    highest: Floats = talib.MAX(bars.high, window)
    return np.log(bars.close / highest)


@feature(lookback=lambda window: window, windows=(60,))
def low_distance(bars: Bars, window: int) -> Floats:
    """Log distance above the lowest low of `window` bars: ln(C / min L), at least 0."""
    lowest: Floats = talib.MIN(bars.low, window)
    return np.log(bars.close / lowest)
