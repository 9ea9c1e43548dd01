"""Rolling kernels whose value is a function of the window's bars alone, to the last bit.

A running sum carries the rounding error, and any NaN, of every bar before the window, and a recursive average remembers
all of them; so what a server computes on a tail is never quite what the batch computed. Here the summary of a window
is merged from summaries of adjacent runs of bars, in a tree that the window's length alone fixes:

1. summarise each single bar;
2. double: the run of 2k bars from i is the merge of the runs of k bars from i and from i + k;
3. join the runs whose lengths add up to the window (its binary digits).

That is O(n log window), vectorised, as accurate as pairwise summation, and the same on any slice that holds the window.

All arrays are float64 of length n; the first ``window - 1`` values are NaN; a NaN spoils only windows that hold it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tradeloop.bars import Floats

State = tuple[Floats, ...]
Merge = Callable[[State, State, int, int], State]

FORGOTTEN = 1e-4
"""An exponential average ends where the weight of all older bars together is below this share."""

FLAT = 1e-8
"""A window is flat, and its dispersion counted as zero, if its standard deviation is below this share of its mean."""

STILL = 1e-8
"""A window of log returns is flat below this standard deviation: rounding of prices alone makes about 1e-16."""


def fold(bars: State, window: int, merge: Merge) -> State:
    """Return the summary of each window, given those of single bars and ``merge(older, newer, n_older, n_newer)``."""
    size = len(bars[0])
    if size < window:
        return tuple(np.full(size, np.nan) for _ in bars)
    block, length = bars, 1
    joined: State = ()
    covered = 0
    while True:
        if window & length:
            count = size - covered - length + 1
            part = _part(block, covered, count)
            joined = merge(_part(joined, 0, count), part, covered, length) if joined else part
            covered += length
        if covered == window:
            return tuple(_align(values, size) for values in joined)
        count = size - 2 * length + 1
        block = merge(_part(block, 0, count), _part(block, length, count), length, length)
        length *= 2


def _part(state: State, start: int, count: int) -> State:
    return tuple([values[start : start + count] for values in state])


def _align(values: Floats, size: int) -> Floats:
    aligned = np.empty(size)
    missing = size - len(values)
    aligned[:missing] = np.nan
    aligned[missing:] = values
    return aligned


def _add(older: State, newer: State, _older: int, _newer: int) -> State:
    return (older[0] + newer[0],)


def total(values: Floats, window: int) -> Floats:
    """Sum over the last `window` bars."""
    return fold((values,), window, _add)[0]


def mean(values: Floats, window: int) -> Floats:
    """Mean over the last `window` bars."""
    return total(values, window) / window


def memory(alpha: float) -> int:
    """Return how many bars an exponential average with weight `alpha` on the newest looks back on.

    The smallest power of two after which less than `FORGOTTEN` of the weight is left.

    Examples
    --------
    >>> memory(1 / 14)
    128
    """
    return 1 << math.ceil(math.log2(math.log(FORGOTTEN) / math.log1p(-alpha)))


def ema(values: Floats, alpha: float) -> Floats:
    """Exponential average with weights ``alpha (1 - alpha)^k`` over the last `memory(alpha)` bars, normalised.

    ``alpha = 2 / (span + 1)`` is the usual span, ``1 / n`` is Wilder's smoothing. Unlike the recursive form it has a
    finite window, hence the same value on a tail, whatever came before.
    """
    decay = 1 - alpha
    window = memory(alpha)

    def merge(older: State, newer: State, _older: int, length: int) -> State:
        return (newer[0] + decay**length * older[0],)

    return fold((values,), window, merge)[0] * (alpha / (1 - decay**window))


def _merge_moments(older: State, newer: State, a: int, b: int) -> State:
    delta = newer[0] - older[0]
    return older[0] + delta * (b / (a + b)), older[1] + newer[1] + delta * delta * (a * b / (a + b))


def moments(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Mean and sample variance (over ``window - 1``), without cancellation.

    Source: Chan, Golub, LeVeque (1983), Algorithms for computing the sample variance.
    """
    average, square = fold((values, np.zeros(len(values))), window, _merge_moments)
    return average, square / (window - 1)


def zscore(values: Floats, window: int) -> Floats:
    """Distance from the window's mean in its standard deviations; 0 where the window is flat."""
    average, variance = moments(values, window)
    deviation = np.sqrt(variance)
    return ratio(values - average, deviation, empty=0.0, floor=FLAT * np.abs(average))


def _merge_comoments(older: State, newer: State, a: int, b: int) -> State:
    x, y = newer[0] - older[0], newer[1] - older[1]
    share, weight = b / (a + b), a * b / (a + b)
    return (
        older[0] + x * share,
        older[1] + y * share,
        older[2] + newer[2] + x * x * weight,
        older[3] + newer[3] + y * y * weight,
        older[4] + newer[4] + x * y * weight,
    )


def _comoments(returns: Floats, other: Floats, window: int) -> State:
    """Return the window's sum of squares of returns, the mean and sum of squares of the other, and their products."""
    zero = np.zeros(len(returns))
    _, average, squares, other_squares, products = fold((returns, other, zero, zero, zero), window, _merge_comoments)
    return np.where(squares <= window * STILL**2, 0.0, squares), average, other_squares, products


def correlation(returns: Floats, other: Floats, window: int) -> Floats:
    """Pearson correlation of log returns with another series; 0 where either window is flat."""
    squares, average, other_squares, products = _comoments(returns, other, window)
    other_squares = np.where(other_squares <= window * (FLAT * average) ** 2, 0.0, other_squares)
    return np.clip(ratio(products, np.sqrt(squares) * np.sqrt(other_squares), empty=0.0), -1.0, 1.0)


def slope(values: Floats, returns: Floats, window: int) -> Floats:
    """Least-squares slope of values on log returns; 0 where the returns are flat."""
    squares, _, _, products = _comoments(returns, values, window)
    return ratio(products, squares, empty=0.0)


def _merge_trend(older: State, newer: State, a: int, b: int) -> State:
    # The centres of two adjacent runs lie (a + b) / 2 bars apart, so the covariance with time needs no time axis.
    average, square = _merge_moments(older[:2], newer[:2], a, b)
    return average, square, older[2] + newer[2] + (newer[0] - older[0]) * (a * b / 2)


def time_correlation(values: Floats, window: int) -> Floats:
    """Pearson correlation with the bar's number; 0 where the window is flat."""
    zero = np.zeros(len(values))
    average, square, product = fold((values, zero, zero), window, _merge_trend)
    square = np.where(square <= window * (FLAT * average) ** 2, 0.0, square)
    spread = math.sqrt(window * (window * window - 1) / 12)
    return np.clip(ratio(product, np.sqrt(square) * spread, empty=0.0), -1.0, 1.0)


def lag(values: Floats, bars: int) -> Floats:
    """Return the value `bars` bars ago (at least 1); NaN where there is none."""
    return _align(values[: max(len(values) - bars, 0)], len(values))


def ratio(numerator: Floats, denominator: Floats, *, empty: float, floor: Floats | float = 0.0) -> Floats:
    """Return the quotient, `empty` where the denominator is at or below `floor`, and NaN where either is NaN."""
    void = denominator <= floor
    quotient = numerator / np.where(void, 1.0, denominator)
    return np.where(void & ~np.isnan(numerator), empty, quotient)


def log_return(values: Floats, bars: int = 1) -> Floats:
    """Log change over `bars` bars: ln(x_t / x_{t-bars})."""
    return np.log(values / lag(values, bars))
