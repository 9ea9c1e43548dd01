"""Trend: where the price stands against its own past, and how steadily it got there.

Averages are of prices, everything else of log prices: a distance is a log ratio, whatever the currency.
"""

from __future__ import annotations

import math

import numpy as np
import talib

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change, log_close, log_high, log_low, spread, squared_change, true_range
from tradeloop.features.ordered import age_of_maximum, age_of_minimum, maximum, minimum
from tradeloop.features.registry import feature
from tradeloop.features.rolling import (
    ema,
    lag,
    log_return,
    mean,
    memory,
    ratio,
    regression,
    share,
    time_correlation,
    total,
)

FAST, SLOW, SIGNAL = 2 / 13, 2 / 27, 2 / 10
WILDER = 1 / 14
QUIET = 1e-5
"""Less than a tenth of a basis point a bar is no movement to measure others by."""

UNMOVED = 1e-9
"""A smaller log distance is rounding, not a side of an average."""


def _average(bars: Bars, window: int) -> Floats:
    return bars.memo(f"mean close {window}", lambda: mean(bars.close, window))


@feature(lookback=lambda window: window, windows=(10, 50, 200))
def sma_distance(bars: Bars, window: int) -> Floats:
    """Log distance of the close from its simple moving average: ln(C / SMA_`window`(C))."""
    return np.log(bars.close / _average(bars, window))


@feature(lookback=lambda window: window, windows=(20, 80, 200))
def sma_cross(bars: Bars, window: int) -> Floats:
    """Log ratio of two simple moving averages: ln(SMA_{`window`/4}(C) / SMA_`window`(C)); of 200: golden cross."""
    return np.log(_average(bars, window // 4) / _average(bars, window))


@feature(lookback=lambda window: memory(2 / (window + 1)), windows=(5, 21))
def ema_distance(bars: Bars, window: int) -> Floats:
    """Log distance of the close from its exponential moving average of span `window`: ln(C / EMA(C))."""
    return np.log(bars.close / ema(bars.close, 2 / (window + 1)))


@feature(lookback=lambda window: 2 * window - 1, windows=(20,))
def above_average(bars: Bars, window: int) -> Floats:
    """Share of the last `window` closes above their simple moving average of `window` bars less that below."""
    distance = np.log(bars.close / _average(bars, window))
    return mean(np.sign(distance) * (np.abs(distance) > UNMOVED), window)


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
    high, low = log_high(bars), log_low(bars)
    plus = ema(talib.PLUS_DM(high, low, 1), WILDER)
    minus = ema(talib.MINUS_DM(high, low, 1), WILDER)
    difference = plus - minus
    strength = ema(ratio(np.abs(difference), plus + minus, empty=0.0), WILDER)
    return strength, ratio(difference, ema(true_range(bars), WILDER), empty=0.0)


@feature(lookback=lambda window: window + 1, windows=(14,))
def vortex(bars: Bars, window: int) -> Floats:
    """Vortex, VI⁺ − VI⁻ of log prices: Σ(|H_t − L_{t−1}| − |L_t − H_{t−1}|) / Σ TR over `window` bars; 0 where flat.

    Botes, Siepman (2010).
    """
    high, low = log_high(bars), log_low(bars)
    moves = np.abs(high - lag(low, 1)) - np.abs(low - lag(high, 1))
    return share(moves, true_range(bars), window, empty=0.0, floor=QUIET)


@feature(lookback=lambda window: window + 1, windows=(25,))
def aroon(bars: Bars, window: int) -> Floats:
    """Aroon oscillator: bars since the `window`-bar low less bars since the high, over `window`; in [−1, 1]. TA-Lib."""
    return (age_of_minimum(bars.low, window + 1) - age_of_maximum(bars.high, window + 1)) / window


@feature(lookback=lambda window: window, windows=(20, 60))
def trend_correlation(bars: Bars, window: int) -> Floats:
    """Correlation of the close with time over `window` bars: the signed root of the trend line's R²; 0 where flat."""
    return time_correlation(bars.close, window)


@feature(lookback=lambda window: window + 1, windows=(20, 60), columns=("regression_slope", "regression_distance"))
def regression_channel(bars: Bars, window: int) -> tuple[Floats, Floats]:
    """Least-squares line of ln C over `window` bars: its slope a bar, and the newest close's distance from it.

    Both over the root mean square of the bars' log returns, at least 1e-5: in moves of one bar.
    """
    gradient, _, distance = regression(log_close(bars), window)
    unit = np.maximum(np.sqrt(mean(squared_change(bars), window)), QUIET)
    return gradient / unit, distance / unit


@feature(lookback=60)
def regression_bend_60(bars: Bars) -> Floats:
    """Slope of the least-squares line of ln C over the last 30 bars less that over the 30 before.

    Over the mean of ln(H / L) over 60 bars, at least 1e-5; above 0 where a rise quickens or a fall slows.
    """
    gradient = regression(log_close(bars), 30)[0]
    return (gradient - lag(gradient, 30)) / np.maximum(mean(spread(bars), 60), QUIET)


@feature(lookback=lambda window: window + 1, windows=(10, 30))
def efficiency(bars: Bars, window: int) -> Floats:
    """Kaufman's (1995) efficiency ratio of log prices: |ln(C_t / C_{t−n})| / Σ|ln(C_i / C_{i−1})|, n = `window`.

    In [0, 1]; 0 where nothing moved.
    """
    path = total(np.abs(change(bars)), window)
    return ratio(np.abs(log_return(bars.close, window)), path, empty=0.0, floor=QUIET)


@feature(lookback=lambda window: window + 1, windows=(14,))
def choppiness(bars: Bars, window: int) -> Floats:
    """Choppiness of log prices: ln(Σ TR / (max of true highs − min of true lows)) / ln n over n = `window` bars.

    Dreiss. 0 in a straight run, 1 where every bar covers the same range; 0.5 where flat.
    """
    before = lag(log_close(bars), 1)
    highest = maximum(np.maximum(log_high(bars), before), window)
    lowest = minimum(np.minimum(log_low(bars), before), window)
    quotient = ratio(total(true_range(bars), window), highest - lowest, empty=math.sqrt(window), floor=QUIET)
    return np.log(np.maximum(quotient, 1.0)) / math.log(window)


@feature(lookback=lambda window: window + 1, windows=(28,))
def path_range(bars: Bars, window: int) -> Floats:
    """Vertical horizontal filter of log prices: (max C − min C) / Σ|ln(C_i / C_{i−1})| over `window` bars.

    White (1991). In [0, 1]; 0 where nothing moved.
    """
    close, path = log_close(bars), total(np.abs(change(bars)), window)
    return ratio(maximum(close, window) - minimum(close, window), path, empty=0.0, floor=QUIET)


@feature(lookback=lambda window: window + 1, windows=(20, 55))
def donchian(bars: Bars, window: int) -> Floats:
    """Place of the close in the Donchian channel of the `window` bars *before*: 0 at their low, 1 at their high.

    Outside [0, 1] on a breakout, cut at −1 and 2; 0.5 where the channel has no width.
    """
    high, low = lag(maximum(bars.high, window), 1), lag(minimum(bars.low, window), 1)
    return np.clip(ratio(bars.close - low, high - low, empty=0.5), -1.0, 2.0)


def _middle(high: Floats, low: Floats, window: int) -> Floats:
    return (maximum(high, window) + minimum(low, window)) / 2


@feature(lookback=78, columns=("ichimoku_cross", "ichimoku_distance", "ichimoku_width"))
def ichimoku(bars: Bars) -> tuple[Floats, Floats, Floats]:
    """Ichimoku 9/26/52 from closed bars; a line is the middle of the range of the last n bars. Hosoda (1969).

    cross = ln(line₉ / line₂₆); the cloud under the present bar was drawn 26 bars ago, between the mean of line₉ and
    line₂₆ and line₅₂ of then: distance = ln(C / its middle), width = ln(first / second).
    """
    turning, base = _middle(bars.high, bars.low, 9), _middle(bars.high, bars.low, 26)
    first, second = lag((turning + base) / 2, 26), lag(_middle(bars.high, bars.low, 52), 26)
    return np.log(turning / base), np.log(2 * bars.close / (first + second)), np.log(first / second)
