"""Rolling kernels whose value is a function of the window's bars alone, to the last bit.

A running sum carries the rounding error, and any NaN, of every bar before the window, and a recursive average remembers
all of them; so what a server computes on a tail is never quite what the batch computed. Here the summary of a window
is merged from summaries of adjacent runs of bars, in a tree that the window's length alone fixes:

1. summarise each single bar;
2. double: the run of 2k bars from i is the merge of the runs of k bars from i and from i + k;
3. join the runs whose lengths add up to the window (its binary digits).

That is O(n log window), as accurate as pairwise summation, and the same on any slice that holds the window.

All arrays are float64 of length n; the first ``window - 1`` values are NaN; a NaN spoils only windows that hold it.
Order statistics are in `tradeloop.features.ordered`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from tradeloop.bars import Floats
from tradeloop.features.compiled import compiled

FORGOTTEN = 1e-4
"""An exponential average ends where the weight of all older bars together is below this share."""

FLAT = 1e-8
"""A window is flat, and its dispersion counted as zero, if its standard deviation is below this share of its mean."""

STILL = 1e-8
"""A window of log returns is flat below this standard deviation: rounding of prices alone makes about 1e-16."""

STEEPEST = 10.0
"""Bound of a slope of returns on returns."""

# What `merge` merges: 1, 1, 2, 3, 5 and 4 numbers a run of bars.
SUM, DECAYED, MOMENTS, TREND, COMOMENTS, SHAPE = range(6)


@compiled
def merge(
    kind: int, older: Floats, newer: Floats, shift: int, count: int, sizes: tuple[int, int], decay: float
) -> None:
    """Merge the run at each of `count` positions with the one `shift` further on, of `newer`, into `older`.

    The rows of both summarise runs of `sizes` bars, one each position: SUM a sum in each row; DECAYED the
    exponentially weighted sum; MOMENTS mean and squares about it; TREND those and the product with time; COMOMENTS
    both means, both squares and the product; SHAPE mean and second to fourth powers.
    """
    a, b = sizes
    share, weight = b / (a + b), a * b / (a + b)
    if kind == SUM:
        for row in range(len(older)):
            for i in range(count):
                older[row, i] = older[row, i] + newer[row, i + shift]
    elif kind == DECAYED:
        left = decay**b
        for i in range(count):
            older[0, i] = newer[0, i + shift] + left * older[0, i]
    elif kind == MOMENTS:
        for i in range(count):
            delta = newer[0, i + shift] - older[0, i]
            older[0, i] = older[0, i] + delta * share
            older[1, i] = older[1, i] + newer[1, i + shift] + delta * delta * weight
    elif kind == TREND:
        # The centres of two adjacent runs lie (a + b) / 2 bars apart, so the covariance with time needs no time axis.
        for i in range(count):
            delta = newer[0, i + shift] - older[0, i]
            older[0, i] = older[0, i] + delta * share
            older[1, i] = older[1, i] + newer[1, i + shift] + delta * delta * weight
            older[2, i] = older[2, i] + newer[2, i + shift] + delta * (a * b / 2)
    elif kind == COMOMENTS:
        for i in range(count):
            x, y = newer[0, i + shift] - older[0, i], newer[1, i + shift] - older[1, i]
            older[0, i] = older[0, i] + x * share
            older[1, i] = older[1, i] + y * share
            older[2, i] = older[2, i] + newer[2, i + shift] + x * x * weight
            older[3, i] = older[3, i] + newer[3, i + shift] + y * y * weight
            older[4, i] = older[4, i] + newer[4, i + shift] + x * y * weight
    else:
        n = a + b
        for i in range(count):
            x = newer[0, i + shift] - older[0, i]
            p2, q2, p3, q3 = older[1, i], newer[1, i + shift], older[2, i], newer[2, i + shift]
            older[0, i] = older[0, i] + x * share
            older[1, i] = p2 + q2 + x * x * weight
            older[2, i] = p3 + q3 + x * x * x * weight * (a - b) / n + 3 * x * (a * q2 - b * p2) / n
            older[3, i] = (
                older[3, i]
                + newer[3, i + shift]
                + x * x * x * x * weight * (a * a - a * b + b * b) / (n * n)
                + 6 * x * x * (a * a * q2 + b * b * p2) / (n * n)
                + 4 * x * (a * q3 - b * p3) / n
            )


@compiled
def _fold(kind: int, block: Floats, window: int, decay: float) -> Floats:
    """Return the summary of each window, shape (k, n), given those of single bars, which are overwritten."""
    size = block.shape[1]
    result = np.full(block.shape, np.nan)
    if size < window:
        return result
    joined = block[:, :0].copy()
    length, covered = 1, 0
    while True:
        if window & length:
            count = size - covered - length + 1
            if covered == 0:
                joined = block[:, :count].copy()
            else:
                # Positions from `count` on are left as they are, and never read again: each later join has fewer.
                merge(kind, joined, block, covered, count, (covered, length), decay)
            covered += length
        if covered == window:
            break
        merge(kind, block, block, length, size - 2 * length + 1, (length, length), decay)
        length *= 2
    result[:, window - 1 :] = joined[:, : size - window + 1]
    return result


# What `_rolled` makes of the summaries. One compiled function for all: each has the whole tree in it, and compiling it
# once for every statistic would take a minute.
_TOTAL, _MEAN, _EMA, _VARIANCE, _DEVIATION, _ZSCORE = range(6)
_SKEW, _CORRELATION, _PAIR, _REGRESSION, _TIME, _WEIGHTED = range(6, 12)
_KINDS = np.array([SUM, SUM, DECAYED, *3 * [MOMENTS], SHAPE, *2 * [COMOMENTS], *3 * [TREND]])
_SUMMARIES = np.array([1, 1, 1, 2, 2, 2, 4, 5, 5, 3, 3, 3])


@compiled
def _rolled(what: int, x: Floats, y: Floats, window: int, decay: float) -> Floats:
    """Return the statistics `what` of x (and y) over each window as rows."""
    size = len(x)
    block = np.zeros((_SUMMARIES[what], size))
    block[0] = x
    if what in (_CORRELATION, _PAIR):
        block[1] = y
    found = _fold(_KINDS[what], block, window, decay)
    if what == _MEAN:
        for i in range(size):
            found[0, i] /= window
    elif what == _EMA:
        norm = (1 - decay) / (1 - decay**window)
        for i in range(size):
            found[0, i] *= norm
    elif what == _VARIANCE:
        for i in range(size):
            found[1, i] /= window - 1
    elif what in (_DEVIATION, _ZSCORE):
        for i in range(size):
            spread = np.sqrt(found[1, i] / (window - 1))
            flat = spread <= FLAT * abs(found[0, i])
            if what == _DEVIATION:
                found[0, i] = 0.0 if flat else spread
            else:
                found[0, i] = 0.0 if flat else (x[i] - found[0, i]) / spread
    elif what == _SKEW:
        for i in range(size):
            variance = found[1, i] / window
            flat = variance == 0 or np.sqrt(variance) <= FLAT * abs(found[0, i])
            found[0, i] = 0.0 if flat else found[2, i] / window / variance**1.5
            found[1, i] = 0.0 if flat else found[3, i] / window / (variance * variance) - 3
    elif what == _CORRELATION:
        for i in range(size):
            squares, others = found[2, i], found[3, i]
            flat = squares <= window * STILL**2 or others <= window * (FLAT * found[1, i]) ** 2
            spread = np.sqrt(squares) * np.sqrt(others)
            # 0 times the product: NaN where either is not known
            found[0, i] = found[4, i] * 0 if flat or spread == 0 else min(max(found[4, i] / spread, -1.0), 1.0)
    elif what == _PAIR:
        still = window * STILL**2
        for i in range(size):
            here, there, product = found[2, i], found[3, i], found[4, i]
            slope = product * 0 if here <= still else min(max(product / here, -STEEPEST), STEEPEST)
            left = there - slope * (2 * product - slope * here)
            residual = y[i] - found[1, i] - slope * (x[i] - found[0, i])
            flat = here <= still or there <= still
            found[0, i] = slope
            found[1, i] = product * 0 if flat else min(max(product / np.sqrt(here * there), -1.0), 1.0)
            found[2, i] = product * 0 if left <= still else residual / np.sqrt(left / (window - 1))
    elif what >= _REGRESSION:
        spread = window * (window * window - 1) / 12
        for i in range(size):
            average, squares, product = found[0, i], found[1, i], found[2, i]
            flat = squares <= window * (FLAT * average) ** 2
            if what == _REGRESSION:
                found[0, i] = product / spread
                found[1, i] = product * 0 if flat else min(product * product / (spread * squares), 1.0)
                found[2, i] = x[i] - average - product / spread * (window - 1) / 2
            elif what == _TIME:
                found[0, i] = product * 0 if flat else min(max(product / np.sqrt(squares * spread), -1.0), 1.0)
            else:
                found[0, i] = average + 2 * product / (window * (window + 1))
    return found


def _row(found: Floats) -> Floats:
    row: Floats = found[0]
    return row


def total(values: Floats, window: int) -> Floats:
    """Sum over the last `window` bars."""
    return _row(_rolled(_TOTAL, values, values, window, 0.0))


@compiled
def _share(part: Floats, whole: Floats, window: int, empty: float, floor: float) -> Floats:
    block = np.empty((2, len(part)))
    for i in range(len(part)):
        block[0, i], block[1, i] = part[i], whole[i]
    found = _fold(SUM, block, window, 0.0)
    result: Floats = found[0]
    for i in range(len(part)):
        if found[1, i] <= floor:
            result[i] = np.nan if np.isnan(result[i]) else empty
        else:
            result[i] /= found[1, i]
    return result


def share(part: Floats, whole: Floats, window: int, *, empty: float, floor: float = 0.0) -> Floats:
    """Sum of one over the sum of the other, each over the last `window` bars; `empty` where that is at most `floor`."""
    return _share(part, whole, window, empty, floor)


def mean(values: Floats, window: int) -> Floats:
    """Mean over the last `window` bars."""
    return _row(_rolled(_MEAN, values, values, window, 0.0))


@lru_cache(maxsize=256)
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
    return _row(_rolled(_EMA, values, values, memory(alpha), 1 - alpha))


def moments(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Mean and sample variance (over ``window - 1``), without cancellation.

    Source: Chan, Golub, LeVeque (1983), Algorithms for computing the sample variance.
    """
    found = _rolled(_VARIANCE, values, values, window, 0.0)
    return found[0], found[1]


def deviation(values: Floats, window: int) -> Floats:
    """Sample standard deviation over the last `window` bars; 0 where the window is flat."""
    return _row(_rolled(_DEVIATION, values, values, window, 0.0))


def zscore(values: Floats, window: int) -> Floats:
    """Distance from the window's mean in its standard deviations; 0 where the window is flat."""
    return _row(_rolled(_ZSCORE, values, values, window, 0.0))


def skewness(values: Floats, window: int) -> tuple[Floats, Floats]:
    """Skewness and excess kurtosis of the window as a population (g₁, g₂); 0 where it is flat.

    Source: Pébay (2008), Formulas for robust, one-pass parallel computation of arbitrary-order moments.
    """
    found = _rolled(_SKEW, values, values, window, 0.0)
    return found[0], found[1]


def correlation(returns: Floats, other: Floats, window: int) -> Floats:
    """Pearson correlation of log returns with another series; 0 where either window is flat."""
    return _row(_rolled(_CORRELATION, returns, other, window, 0.0))


def pair(returns: Floats, other: Floats, window: int) -> tuple[Floats, Floats, Floats]:
    """Log returns beside other ones: slope on these within ±`STEEPEST`, Pearson's correlation, standardised residual.

    The residual is that of the newest bar in the window's standard deviations of it. Each is 0 where its returns, or
    the residuals, are flat.
    """
    found = _rolled(_PAIR, other, returns, window, 0.0)
    return found[0], found[1], found[2]


def regression(values: Floats, window: int) -> tuple[Floats, Floats, Floats]:
    """Least squares on the bar's number: slope a bar, share of variance explained, residual of the newest bar.

    The share is 0 where the window is flat.
    """
    found = _rolled(_REGRESSION, values, values, window, 0.0)
    return found[0], found[1], found[2]


def time_correlation(values: Floats, window: int) -> Floats:
    """Pearson correlation with the bar's number; 0 where the window is flat."""
    return _row(_rolled(_TIME, values, values, window, 0.0))


def weighted(values: Floats, window: int) -> Floats:
    """Mean with weights 1, 2, …, `window`, the newest bar's the largest."""
    return _row(_rolled(_WEIGHTED, values, values, window, 0.0))


@compiled
def lag(values: Floats, bars: int) -> Floats:
    """Return the value `bars` bars ago (at least 1); NaN where there is none."""
    result = np.full(len(values), np.nan)
    for i in range(bars, len(values)):
        result[i] = values[i - bars]
    return result


@compiled
def _ratio(numerator: Floats, denominator: Floats, empty: float, floor: Floats) -> Floats:
    result = np.empty(len(numerator))
    for i in range(len(numerator)):
        bottom = denominator[i]
        if bottom <= floor[i if len(floor) > 1 else 0]:
            result[i] = np.nan if np.isnan(numerator[i]) else empty
        else:
            result[i] = numerator[i] / bottom
    return result


_ZERO = np.zeros(1)


def ratio(numerator: Floats, denominator: Floats, *, empty: float, floor: Floats | float = 0.0) -> Floats:
    """Return the quotient, `empty` where the denominator is at or below `floor`, and NaN where either is NaN."""
    if isinstance(floor, np.ndarray):
        return _ratio(numerator, denominator, empty, floor)
    return _ratio(numerator, denominator, empty, np.full(1, floor) if floor else _ZERO)


@compiled
def _log_return(values: Floats, bars: int) -> Floats:
    result = np.full(len(values), np.nan)
    for i in range(bars, len(values)):
        result[i] = np.log(values[i] / values[i - bars])
    return result


def log_return(values: Floats, bars: int = 1) -> Floats:
    """Log change over `bars` bars: ln(x_t / x_{t-bars})."""
    return _log_return(values, bars)
