"""Rolling statistics of log returns and log prices: their distribution, their memory, their depth of loss.

Log returns whose standard deviation is below `STILL` are flat: their differences are rounding, and the neutral value
stands.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change, log_close, log_high, log_low
from tradeloop.features.compiled import compiled
from tradeloop.features.ordered import maximum, minimum, order, quantile, rank
from tradeloop.features.registry import feature
from tradeloop.features.rolling import STILL, correlation, lag, log_return, mean, moments, ratio, skewness

UNMOVED = 1e-9
NORMAL_CENTRE = 0.41
"""Interquartile range of a normal distribution over that between its 5% and 95% quantiles."""

WORDS = 8


def _moments(bars: Bars, window: int) -> Floats:
    """Return mean and variance of the log returns as rows."""
    return bars.memo(f"moments of returns {window}", lambda: np.stack(moments(change(bars), window)))


@feature(lookback=lambda window: window + 1, windows=(20, 60))
def return_zscore(bars: Bars, window: int) -> Floats:
    """Distance of the log return from its mean of `window` bars, in their standard deviations; 0 where flat."""
    average, variance = _moments(bars, window)
    return ratio(change(bars) - average, np.sqrt(variance), empty=0.0, floor=STILL)


@feature(lookback=lambda window: window + 1, windows=(20, 60), columns=("skewness", "kurtosis"))
def shape(bars: Bars, window: int) -> tuple[Floats, Floats]:
    """Skewness g₁ and excess kurtosis g₂ of the log returns of `window` bars; 0 where flat. Fisher (1930)."""
    skew, kurtosis = skewness(change(bars), window)
    flat = _moments(bars, window)[1] <= STILL**2
    return np.where(flat, 0.0, skew), np.where(flat, 0.0, kurtosis)


@feature(lookback=66, windows=(1, 2, 3, 4, 5))
def autocorrelation(bars: Bars, window: int) -> Floats:
    """Correlation of the log return with that `window` bars before, over 60 bars; 0 where flat."""
    return correlation(change(bars), lag(change(bars), window), 60)


@feature(lookback=121, windows=(5, 20))
def variance_ratio(bars: Bars, window: int) -> Floats:
    """Variance ratio of 120 bars: variance of the log returns over n = `window` bars over n times that over one.

    1 for a random walk, more in trends, less where moves turn back; 1 where flat. Lo, MacKinlay (1988).
    """
    several = moments(log_return(bars.close, window), 121 - window)[1]
    return ratio(several, window * _moments(bars, 120)[1], empty=1.0, floor=STILL**2)


@compiled
def _rescaled(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Return the range of the cumulated deviations from the mean of each window, and the standard deviation."""
    width, spread = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for i in range(window - 1, len(values)):
        average, squares, added, lowest, highest = 0.0, 0.0, 0.0, 0.0, 0.0
        for j in range(i - window + 1, i + 1):
            average += values[j]
        average /= window
        for j in range(i - window + 1, i + 1):
            added += values[j] - average
            squares += (values[j] - average) ** 2
            lowest, highest = min(lowest, added), max(highest, added)
        width[i], spread[i] = highest - lowest, np.sqrt(squares / window)
    return width, spread


@feature(lookback=lambda window: window + 1, windows=(120,))
def hurst(bars: Bars, window: int) -> Floats:
    """Hurst exponent by rescaled range: ln(R / S) / ln(n) of the log returns of n = `window` bars.

    R: range of the summed deviations from the mean, S: standard deviation; 0.5 where flat. Hurst (1951).
    """
    width, spread = _rescaled(change(bars), window)
    scaled = ratio(width, spread, empty=math.sqrt(window), floor=STILL)
    return np.log(scaled) / math.log(window)


@compiled
def _entropy(words: Floats, window: int, kinds: int) -> Floats:
    """Return the Shannon entropy of the window's words (0 to `WORDS` − 1), as a share of that of `kinds` equal ones."""
    result, counts = np.full(len(words), np.nan), np.zeros(WORDS)
    known = 0
    for i in range(len(words)):
        known = 0 if np.isnan(words[i]) else known + 1
        if known < window:
            continue
        counts[:] = 0.0
        for j in range(i - window + 1, i + 1):
            counts[int(words[j])] += 1
        bits = 0.0
        for kind in range(WORDS):
            if counts[kind] > 0:
                bits -= counts[kind] / window * np.log(counts[kind] / window)
        result[i] = bits / np.log(kinds)
    return result


@feature(lookback=lambda window: window + 3, windows=(60,))
def sign_entropy(bars: Bars, window: int) -> Floats:
    """Entropy of words of three signs (rose or not) of successive log returns, `window` words; 1: all eight alike.

    0 where one word repeats.
    """
    up = np.sign(np.maximum(change(bars), 0.0))
    return _entropy(up + 2 * lag(up, 1) + 4 * lag(up, 2), window, WORDS)


@feature(lookback=lambda window: window + 2, windows=(60,))
def permutation_entropy(bars: Bars, window: int) -> Floats:
    """Permutation entropy of order 3: of the six orders of three successive closes, `window` words; 1: all alike.

    Equal closes count as falling. Bandt, Pompe (2002).
    """
    close = bars.close
    up = np.sign(np.maximum(close - lag(close, 1), 0.0))
    far = np.sign(np.maximum(close - lag(close, 2), 0.0))
    return _entropy(up + 2 * lag(up, 1) + 4 * far, window, 6)


@feature(lookback=lambda window: window + 1, windows=(60,), columns=("return_rank", "tail_asymmetry", "centre_share"))
def quantiles(bars: Bars, window: int) -> tuple[Floats, Floats, Floats]:
    """Rank of the log return among those of `window` bars, in (0, 1], and the shape of their distribution by quantiles.

    tail_asymmetry = (q₉₅ + q₅ − 2 q₅₀) / (q₉₅ − q₅), in [−1, 1]; centre_share = (q₇₅ − q₂₅) / (q₉₅ − q₅), in [0, 1],
    low where tails are heavy. 0 and 0.41, a normal distribution's, where flat. Bowley (1920), Hinkley (1975).
    """
    rounded = bars.memo("rounded change", lambda: change(bars).round(12))
    low, high, place = order(rounded, window, 0.05, 0.95)
    lower, upper, _ = order(rounded, window, 0.25, 0.75)
    width, middle = high - low, quantile(rounded, window, 0.5)
    asymmetry = ratio(high + low - 2 * middle, width, empty=0.0, floor=STILL)
    return place, asymmetry, ratio(upper - lower, width, empty=NORMAL_CENTRE, floor=STILL)


@feature(lookback=lambda window: window, windows=(120,))
def close_rank(bars: Bars, window: int) -> Floats:
    """Rank of the close among those of `window` bars, in (0, 1]; the average rank of equal ones."""
    return rank(bars.close, window)


@compiled
def _drawdowns(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Return the deepest fall from a high so far within each window, and the root mean square of all falls."""
    deepest, ulcer = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for i in range(window - 1, len(values)):
        high, worst, squares = values[i - window + 1], 0.0, 0.0
        for j in range(i - window + 1, i + 1):
            high = max(high, values[j])
            worst = max(worst, high - values[j])
            squares += (high - values[j]) ** 2
        deepest[i], ulcer[i] = worst, np.sqrt(squares / window)
    return deepest, ulcer


@feature(lookback=lambda window: window, windows=(20, 120), columns=("max_drawdown", "ulcer"))
def drawdown(bars: Bars, window: int) -> tuple[Floats, Floats]:
    """Largest log fall of the close from an earlier high within `window` bars, and the root mean square of all falls.

    Both at least 0. ulcer: Martin, McCann (1989).
    """
    return _drawdowns(log_close(bars), window)


@feature(lookback=lambda window: window + 1, windows=(20, 60))
def sign_balance(bars: Bars, window: int) -> Floats:
    """Share of rising less share of falling bars among `window`, close to close, in [−1, 1]."""
    return mean(bars.memo("side", lambda: np.sign(change(bars))), window)


@feature(lookback=lambda window: window + 1, windows=(60,))
def mean_reversion(bars: Bars, window: int) -> Floats:
    """Correlation of the log return with the log close before it, over `window` bars; 0 where either is flat.

    Far below 0: the price is drawn back to its mean. After Dickey, Fuller (1979).
    """
    return correlation(change(bars), lag(log_close(bars), 1), window)


@feature(lookback=lambda window: window + 20, windows=(60,))
def crossings(bars: Bars, window: int) -> Floats:
    """Share of `window` bars on which the close changed sides of its simple moving average of 20 bars, in [0, 1]."""
    distance = np.log(bars.close / bars.memo("mean close 20", lambda: mean(bars.close, 20)))
    side = np.sign(distance) * (np.abs(distance) > UNMOVED)
    return mean(0.5 * np.abs(side - lag(side, 1)), window)


@feature(lookback=lambda window: window, windows=(30, 120))
def fractal_dimension(bars: Bars, window: int) -> Floats:
    """Fractal dimension from ranges of log prices: log₂(2 (R₁ + R₂) / R) of the window's halves and its whole.

    1 in a straight line, 2 where each half covers the whole, within [0, 2]; 1.5 where flat. Ehlers (2005).
    """
    half = window // 2
    part = maximum(log_high(bars), half) - minimum(log_low(bars), half)
    whole = maximum(log_high(bars), window) - minimum(log_low(bars), window)
    return np.log2(np.clip(2 * ratio(part + lag(part, half), whole, empty=math.sqrt(2), floor=UNMOVED), 1.0, 4.0))
