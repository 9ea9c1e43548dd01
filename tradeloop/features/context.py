"""Context: the market around the symbol, one set of columns for each context series.

A context value is the series' latest close that was known at the bar's close. Where the series has not begun, or its
close is not positive, these features are NaN, for as long as the window holds such a bar. x is the series' log return
from bar to bar of the symbol, r the symbol's own.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change
from tradeloop.features.compiled import compiled
from tradeloop.features.registry import feature
from tradeloop.features.rolling import STEEPEST, STILL, lag, log_return, mean, pair, zscore
from tradeloop.features.volatility import log_volatility_of

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


@feature(lookback=lambda window: window + 1, windows=(1, 5), per_context=True)
def return_(bars: Bars, series: str, window: int) -> Floats:
    """Log return of `series` over `window` bars: ln(X_t / X_{t−n}); 0 while no newer close of it is known."""
    return known_change(bars, series) if window == 1 else log_return(known(bars, series), window)


def _log_volatility(bars: Bars, series: str, window: int) -> Floats:
    x = known_change(bars, series)
    return log_volatility_of(mean(bars.memo(f"known_square {series}", lambda: x**2), window))


@feature(lookback=21, per_context=True)
def log_volatility_20(bars: Bars, series: str) -> Floats:
    """Log of the root mean square of the log returns of `series` over 20 bars."""
    return _log_volatility(bars, series, 20)


@feature(lookback=LONGEST + 1, per_context=True)
def volatility_trend_5_60(bars: Bars, series: str) -> Floats:
    """Log volatility of `series` over 5 bars less that over 60: whether its unrest is growing."""
    return _log_volatility(bars, series, 5) - _log_volatility(bars, series, LONGEST)


@feature(lookback=LONGEST, per_context=True)
def level_zscore_60(bars: Bars, series: str) -> Floats:
    """Level of `series` in standard deviations from its mean over 60 bars, for series that revert; 0 where flat."""
    return zscore(known(bars, series), LONGEST)


@feature(lookback=lambda window: window + 1, windows=(5, 20, LONGEST), per_context=True)
def relative_strength(bars: Bars, series: str, window: int) -> Floats:
    """Log return over `window` bars less that of `series`."""
    return log_return(bars.close, window) - log_return(known(bars, series), window)


@feature(
    lookback=lambda window: window + 1,
    windows=(20, LONGEST),
    per_context=True,
    columns=("beta", "correlation", "residual"),
)
def comovement(bars: Bars, series: str, window: int) -> tuple[Floats, ...]:
    """How the symbol's log returns r went with those of `series`, x, over `window` bars.

    beta: slope of r on x, within ±10; correlation of r and x; residual: r_t − beta x_t, less its mean, in its standard
    deviations. Each is 0 where its returns are flat.
    """
    return pair(change(bars), known_change(bars, series), window)


@feature(lookback=lambda window: window + 1, windows=(20, LONGEST), per_context=True)
def lead(bars: Bars, series: str, window: int) -> Floats:
    """Correlation of r_t with x_{t−1} over `window` bars, whether `series` goes ahead; 0 where either is flat."""
    return pair(change(bars), lag(known_change(bars, series), 1), window - 1)[1]


@compiled
def _steepness(r: Floats, x: Floats, side: float) -> float:
    """Return the slope of r on x over bars whose x has the sign `side`, within ±10; 0 where x is flat; NaN of a NaN."""
    count, mean_r, mean_x, known = 0, 0.0, 0.0, 0.0
    for i in range(len(x)):
        known += r[i] + x[i]
        if side * x[i] > STILL:
            count += 1
            mean_r += r[i]
            mean_x += x[i]
    if np.isnan(known):
        return np.nan
    if count < 2:
        return 0.0
    mean_r, mean_x, squares, product = mean_r / count, mean_x / count, 0.0, 0.0
    for i in range(len(x)):
        if side * x[i] > STILL:
            squares += (x[i] - mean_x) ** 2
            product += (x[i] - mean_x) * (r[i] - mean_r)
    return min(max(product / squares, -STEEPEST), STEEPEST) if squares > count * STILL**2 else 0.0


@compiled
def _sided(r: Floats, x: Floats, window: int) -> Floats:
    result = np.full((2, len(r)), np.nan)
    for t in range(window, len(r)):
        ours, theirs = r[t - window + 1 : t + 1], x[t - window + 1 : t + 1]
        result[0, t], result[1, t] = _steepness(ours, theirs, 1.0), _steepness(ours, theirs, -1.0)
    return result


@feature(
    lookback=lambda window: window + 1,
    windows=(20, LONGEST),
    per_context=True,
    columns=("beta_up", "beta_down"),
)
def sided_beta(bars: Bars, series: str, window: int) -> tuple[Floats, ...]:
    """Slope of r on x, within ±10, over those of `window` bars on which `series` rose, or fell; 0 where x is flat."""
    return tuple(_sided(change(bars), known_change(bars, series), window))
