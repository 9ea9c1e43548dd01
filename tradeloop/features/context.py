"""Context: the market around the symbol, one set of columns for each context series.

A context value is the series' latest close that was known at the bar's close. Where the series has not begun, or its
close is not positive, these features are NaN, for as long as the window holds such a bar.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import feature
from tradeloop.features.rolling import log_return, mean, slope
from tradeloop.features.volatility import log_volatility_of

STEEPEST = 10.0


def _known(bars: Bars, series: str) -> Floats:
    close = bars.context[series]
    return np.where(close > 0, close, np.nan)


@feature(lookback=lambda window: window + 1, windows=(1,), per_context=True, columns=("return",))
def context_return(bars: Bars, series: str, window: int) -> Floats:
    """Log return of `series` over `window` bars of the symbol; 0 while no newer close of it is known."""
    return log_return(_known(bars, series), window)


@feature(lookback=lambda window: window + 1, windows=(20,), per_context=True, columns=("log_volatility",))
def context_log_volatility(bars: Bars, series: str, window: int) -> Floats:
    """Log root mean square of the log returns of `series` over `window` bars of the symbol."""
    return log_volatility_of(mean(log_return(_known(bars, series)) ** 2, window))


@feature(lookback=lambda window: window + 1, windows=(60,), per_context=True)
def beta(bars: Bars, series: str, window: int) -> Floats:
    """Slope of the symbol's log returns on those of `series` over `window` bars, within ±10; 0 where it is flat."""
    change = log_return(_known(bars, series))
    return np.clip(slope(log_return(bars.close), change, window), -STEEPEST, STEEPEST)


@feature(lookback=lambda window: window + 1, windows=(20,), per_context=True)
def relative_strength(bars: Bars, series: str, window: int) -> Floats:
    """Log return of the symbol less that of `series`, over `window` bars."""
    return log_return(bars.close, window) - log_return(_known(bars, series), window)
