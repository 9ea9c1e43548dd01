"""Context: the market around the symbol, one set of columns for each context series.

A context value is the series' latest close that was known at the bar's close. Where the series has not begun, or its
close is not positive, these features are NaN, for as long as the window holds such a bar. x is the series' log return
from bar to bar of the symbol, r the symbol's own.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change
from tradeloop.features.compiled import compiled
from tradeloop.features.registry import feature
from tradeloop.features.rolling import FLAT, STILL, log_return
from tradeloop.features.volatility import QUIET

STEEPEST = 10.0
LONGEST = 60


def known(bars: Bars, series: str) -> Floats:
    """Return the close of `series` as known at each bar's close, NaN where there is none that is positive."""

    def make() -> Floats:
        close = bars.context[series]
        return np.where(close > 0, close, np.nan)

    return bars.memo(f"known {series}", make)


def log_known(bars: Bars, series: str) -> Floats:
    """Return the log of `known`."""
    return bars.memo(f"log_known {series}", lambda: np.log(known(bars, series)))


def known_change(bars: Bars, series: str) -> Floats:
    """Return the log return of `series` from bar to bar of the symbol; 0 while no newer close of it is known."""
    return bars.memo(f"known_change {series}", lambda: log_return(known(bars, series)))


@compiled
def _mean_square(values: Floats, last: int, count: int) -> float:
    total = 0.0
    for i in range(last - count + 1, last + 1):
        total += values[i] * values[i]
    return total / count


@compiled
def _zscore(values: Floats, last: int, count: int) -> float:
    average, squares = 0.0, 0.0
    for i in range(last - count + 1, last + 1):
        average += values[i] / count
    for i in range(last - count + 1, last + 1):
        squares += (values[i] - average) ** 2
    deviation = math.sqrt(squares / (count - 1))
    return 0.0 if deviation <= FLAT * average else (values[last] - average) / deviation


@compiled
def _alone(close: Floats, series: Floats, x: Floats) -> Floats:
    """Return the columns as rows; each is NaN where its own window holds one."""
    result = np.full((8, len(close)), np.nan)
    for t in range(LONGEST, len(close)):
        result[0, t] = x[t]
        result[1, t] = math.log(series[t] / series[t - 5])
        for row, window in ((2, 20), (3, 5)):
            result[row, t] = 0.5 * math.log(np.maximum(_mean_square(x, t, window), QUIET**2))
        result[3, t] -= 0.5 * math.log(np.maximum(_mean_square(x, t, LONGEST), QUIET**2))
        result[4, t] = _zscore(series, t, LONGEST)
        for row, window in ((5, 5), (6, 20), (7, LONGEST)):
            result[row, t] = math.log(close[t] / close[t - window]) - math.log(series[t] / series[t - window])
    return result


@feature(
    lookback=LONGEST + 1,
    per_context=True,
    columns=(
        "return_1",
        "return_5",
        "log_volatility_20",
        "volatility_trend_5_60",
        "level_zscore_60",
        "relative_strength_5",
        "relative_strength_20",
        "relative_strength_60",
    ),
)
def series_alone(bars: Bars, series: str) -> tuple[Floats, ...]:
    """Look at `series` by itself, and at the symbol beside it, over as many bars as the name ends with.

    return: ln(X_t / X_{t−n}), 0 while no newer close is known; log_volatility: ln of the root mean square of x;
    volatility_trend: that of 5 bars less that of 60, whether its unrest is growing; level_zscore: (X − mean) / standard
    deviation, 0 where flat, for series that revert; relative_strength: the symbol's log return less that of the series.
    """
    return tuple(_alone(bars.close, known(bars, series), known_change(bars, series)))


@compiled
def _steepness(r: Floats, x: Floats, side: float) -> float:
    """Return the slope of r on x over bars whose x has the sign `side` (0: all), within ±10; 0 where x is flat."""
    count, mean_r, mean_x = 0, 0.0, 0.0
    for i in range(len(x)):
        if side * x[i] > STILL or side == 0:
            count += 1
            mean_r += r[i]
            mean_x += x[i]
    if count < 2:
        return 0.0
    mean_r, mean_x, squares, product = mean_r / count, mean_x / count, 0.0, 0.0
    for i in range(len(x)):
        if side * x[i] > STILL or side == 0:
            squares += (x[i] - mean_x) ** 2
            product += (x[i] - mean_x) * (r[i] - mean_r)
    return min(max(product / squares, -STEEPEST), STEEPEST) if squares > count * STILL**2 else 0.0


@compiled
def _correlation(r: Floats, x: Floats) -> float:
    """Return Pearson's correlation of two runs of log returns; 0 where either is flat."""
    count, mean_r, mean_x, rr, xx, rx = len(r), 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(count):
        mean_r += r[i] / count
        mean_x += x[i] / count
    for i in range(count):
        rr += (r[i] - mean_r) ** 2
        xx += (x[i] - mean_x) ** 2
        rx += (r[i] - mean_r) * (x[i] - mean_x)
    if rr <= count * STILL**2 or xx <= count * STILL**2:
        return 0.0
    return min(max(rx / math.sqrt(rr * xx), -1.0), 1.0)


@compiled
def _comovement(r: Floats, x: Floats, result: Floats, window: int) -> None:
    """Fill in the columns as rows; a window that holds a NaN keeps its own."""
    for t in range(LONGEST, len(r)):
        ours, theirs = r[t - window + 1 : t + 1], x[t - window + 1 : t + 1]
        average, squares = 0.0, 0.0
        beta = _steepness(ours, theirs, 0.0)
        for i in range(window):
            average += (ours[i] - beta * theirs[i]) / window
        if np.isnan(average):
            continue
        for i in range(window):
            squares += (ours[i] - beta * theirs[i] - average) ** 2
        flat = squares <= window * STILL**2
        result[0, t] = beta
        result[1, t] = _correlation(ours, theirs)
        result[2, t] = _correlation(ours[1:], theirs[:-1])
        result[3, t], result[4, t] = _steepness(ours, theirs, 1.0), _steepness(ours, theirs, -1.0)
        result[5, t] = 0.0 if flat else (ours[-1] - beta * theirs[-1] - average) / math.sqrt(squares / (window - 1))


@feature(
    lookback=LONGEST + 1,
    per_context=True,
    columns=tuple(
        f"{name}_{window}"
        for window in (20, LONGEST)
        for name in ("beta", "correlation", "lead", "beta_up", "beta_down", "residual")
    ),
)
def comovement(bars: Bars, series: str) -> tuple[Floats, ...]:
    """How the symbol's log returns r went with those of `series`, x, over as many bars as the name ends with.

    beta: slope of r on x, within ±10; correlation of r and x; lead: correlation of r_t with x_{t−1}, whether the series
    goes ahead; beta_up, beta_down: slope on the bars on which x rose, or fell; residual: r_t − beta x_t, less its mean,
    in its standard deviations. Each is 0 where its returns are flat.
    """
    result = np.full((12, len(bars)), np.nan)
    r, x = change(bars), known_change(bars, series)
    for half, window in ((result[:6], 20), (result[6:], LONGEST)):
        _comovement(r, x, half, window)
    return tuple(result)
