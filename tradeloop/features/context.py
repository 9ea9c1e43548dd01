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
from tradeloop.features.rolling import STILL, log_return, mean, zscore
from tradeloop.features.volatility import log_volatility_of

STEEPEST = 10.0


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


@feature(lookback=lambda window: window + 1, windows=(1, 5), per_context=True, columns=("return",))
def context_return(bars: Bars, series: str, window: int) -> Floats:
    """Log return of `series` over `window` bars of the symbol; 0 while no newer close of it is known."""
    return known_change(bars, series) if window == 1 else log_return(known(bars, series), window)


@feature(lookback=lambda window: window + 1, windows=(20,), per_context=True, columns=("log_volatility",))
def context_log_volatility(bars: Bars, series: str, window: int) -> Floats:
    """Log root mean square of the log returns of `series` over `window` bars of the symbol."""
    return log_volatility_of(mean(known_change(bars, series) ** 2, window))


@feature(lookback=61, per_context=True)
def volatility_trend_5_60(bars: Bars, series: str) -> Floats:
    """Log root mean square of the returns of `series` over 5 bars less that over 60: whether its unrest is growing."""
    squares = known_change(bars, series) ** 2
    return log_volatility_of(mean(squares, 5)) - log_volatility_of(mean(squares, 60))


@feature(lookback=lambda window: window, windows=(60,), per_context=True)
def level_zscore(bars: Bars, series: str, window: int) -> Floats:
    """Distance of `series` from its mean over `window` bars in standard deviations; 0 where flat. For what reverts."""
    return zscore(known(bars, series), window)


@feature(lookback=lambda window: window + 1, windows=(5, 20, 60), per_context=True)
def relative_strength(bars: Bars, series: str, window: int) -> Floats:
    """Log return of the symbol less that of `series`, over `window` bars."""
    return log_return(bars.close, window) - log_return(known(bars, series), window)


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
def _comovement(r: Floats, x: Floats, window: int) -> Floats:
    """Return the columns as rows, NaN where the window holds one."""
    result = np.full((6, len(r)), np.nan)
    for t in range(window, len(r)):
        ours, theirs = r[t - window + 1 : t + 1], x[t - window + 1 : t + 1]
        if np.isnan((ours + theirs).sum()):
            continue
        beta = _steepness(ours, theirs, 0.0)
        result[0, t] = beta
        result[1, t] = _correlation(ours, theirs)
        result[2, t] = _correlation(ours[1:], theirs[:-1])
        result[3, t], result[4, t] = _steepness(ours, theirs, 1.0), _steepness(ours, theirs, -1.0)
        average, squares = 0.0, 0.0
        for i in range(window):
            average += (ours[i] - beta * theirs[i]) / window
        for i in range(window):
            squares += (ours[i] - beta * theirs[i] - average) ** 2
        flat = squares <= window * STILL**2
        result[5, t] = 0.0 if flat else (ours[-1] - beta * theirs[-1] - average) / math.sqrt(squares / (window - 1))
    return result


@feature(
    lookback=lambda window: window + 1,
    windows=(20, 60),
    per_context=True,
    columns=("beta", "correlation", "lead", "beta_up", "beta_down", "residual"),
)
def comovement(bars: Bars, series: str, window: int) -> tuple[Floats, ...]:
    """How the symbol's log returns r went with those of `series`, x, over `window` bars.

    beta: slope of r on x, within ±10; correlation of r and x; lead: correlation of r_t with x_{t−1}, whether the series
    goes ahead; beta_up, beta_down: slope on the bars on which x rose, or fell; residual: r_t − beta x_t, less its mean,
    in its standard deviations. Each is 0 where its returns are flat.
    """
    return tuple(_comovement(change(bars), known_change(bars, series), window))
