"""Momentum: what the price did lately, plainly and in its own range."""

from __future__ import annotations

import numpy as np
import talib

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import feature
from tradeloop.features.rolling import ema, log_return, memory, ratio, zscore

WILDER = 1 / 14


@feature(lookback=lambda window: window + 1, windows=(1, 2, 3, 5, 10, 20, 60))
def return_(bars: Bars, window: int) -> Floats:
    """Log return of the close over `window` bars: ln(C_t / C_{t−`window`})."""
    return log_return(bars.close, window)


@feature(lookback=memory(WILDER) + 1)
def rsi_14(bars: Bars) -> Floats:
    """Relative strength index of log prices: mean gain over mean absolute change, Wilder (1978), n = 14.

    In [0, 1]; 0.5 where the price did not move.
    """
    change = log_return(bars.close)
    return ratio(ema(np.maximum(change, 0.0), WILDER), ema(np.abs(change), WILDER), empty=0.5)


@feature(lookback=lambda window: window, windows=(14,))
def stochastic(bars: Bars, window: int) -> Floats:
    """Fast stochastic %K: (C − min L) / (max H − min L) over `window` bars, in [0, 1]; 0.5 where flat. Lane.

    Williams %R is this less one, so it has no column.
    """
    low = talib.MIN(bars.low, window)
    return ratio(bars.close - low, talib.MAX(bars.high, window) - low, empty=0.5)


@feature(lookback=lambda window: window, windows=(20,))
def price_zscore(bars: Bars, window: int) -> Floats:
    """Place in the Bollinger band: (C − mean) / standard deviation of C over `window` bars; 0 where flat."""
    return zscore(bars.close, window)
