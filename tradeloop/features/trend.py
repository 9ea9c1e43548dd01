"""Trend: where the price stands against its own past, and how steadily it got there."""

from __future__ import annotations

import numpy as np
import talib

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import feature
from tradeloop.features.rolling import ema, mean, memory, ratio, time_correlation

FAST, SLOW, SIGNAL = 2 / 13, 2 / 27, 2 / 10
WILDER = 1 / 14


@feature(lookback=lambda window: window, windows=(10, 50))
def sma_distance(bars: Bars, window: int) -> Floats:
    """Log distance of the close from its simple moving average: ln(C / SMA_`window`(C))."""
    return np.log(bars.close / mean(bars.close, window))


@feature(lookback=memory(SLOW) + memory(SIGNAL) - 1, columns=("macd", "macd_histogram"))
def macd(bars: Bars) -> tuple[Floats, Floats]:
    """MACD 12/26/9 free of scale: macd = ln(EMA12(C) / EMA26(C)), histogram = macd − EMA9(macd). Appel (1979)."""
    line = np.log(ema(bars.close, FAST) / ema(bars.close, SLOW))
    return line, line - ema(line, SIGNAL)


@feature(lookback=2 * memory(WILDER), columns=("adx_14", "di_difference_14"))
def adx(bars: Bars) -> tuple[Floats, Floats]:
    """Directional movement of log prices, Wilder (1978), n = 14.

    di_difference = (DM⁺ − DM⁻) / TR, in [−1, 1]; adx = Wilder mean of |DM⁺ − DM⁻| / (DM⁺ + DM⁻), in [0, 1];
    DM and TR are Wilder means; 0 where nothing moved.
    """
    high, low, close = np.log(bars.high), np.log(bars.low), np.log(bars.close)
    plus = ema(talib.PLUS_DM(high, low, 1), WILDER)
    minus = ema(talib.MINUS_DM(high, low, 1), WILDER)
    difference = plus - minus
    strength = ema(ratio(np.abs(difference), plus + minus, empty=0.0), WILDER)
    return strength, ratio(difference, ema(talib.TRANGE(high, low, close), WILDER), empty=0.0)


@feature(lookback=lambda window: window + 1, windows=(25,))
def aroon(bars: Bars, window: int) -> Floats:
    """Aroon oscillator: bars since the `window`-bar low less bars since the high, over `window`; in [−1, 1]. TA-Lib."""
    oscillator: Floats = talib.AROONOSC(bars.high, bars.low, window)
    return oscillator / 100


@feature(lookback=lambda window: window, windows=(20,))
def trend_correlation(bars: Bars, window: int) -> Floats:
    """Correlation of the close with time over `window` bars: the signed root of the trend line's R²; 0 where flat."""
    return time_correlation(bars.close, window)
