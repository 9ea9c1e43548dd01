"""Volatility: natural logs of volatility per bar, by estimators that see more than closes.

A variance is never taken to be below `QUIET` squared, so that a bar without a range has a finite log: 1e-5 is a tenth
of a basis point, below one tick of any market here, and free of scale.
"""

from __future__ import annotations

import math

import numpy as np
import talib

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import feature
from tradeloop.features.rolling import ema, lag, log_return, mean, memory, moments, ratio

QUIET = 1e-5
RISKMETRICS = 1 - 0.94
WILDER = 1 / 14


def log_volatility_of(variance: Floats) -> Floats:
    """Return the log of the root of a variance per bar, floored at `QUIET`; NaN stays NaN."""
    return 0.5 * np.log(np.maximum(variance, QUIET**2))


def parkinson_variance(bars: Bars) -> Floats:
    """Return each bar's variance from its range: ln(H/L)² / (4 ln 2). Parkinson (1980)."""
    return np.log(bars.high / bars.low) ** 2 / (4 * math.log(2))


def rogers_satchell_variance(bars: Bars) -> Floats:
    """Return each bar's variance, free of drift: ln(H/O) ln(H/C) + ln(L/O) ln(L/C). Rogers, Satchell (1991)."""
    up: Floats = np.log(bars.high / bars.open) * np.log(bars.high / bars.close)
    down: Floats = np.log(bars.low / bars.open) * np.log(bars.low / bars.close)
    return up + down


@feature(lookback=lambda window: window, windows=(1, 5, 22, 60))
def log_parkinson(bars: Bars, window: int) -> Floats:
    """Log Parkinson volatility, root of the mean of ln(H/L)² / (4 ln 2) over `window` bars. 1, 5, 22: HAR's terms."""
    return log_volatility_of(mean(parkinson_variance(bars), window))


@feature(lookback=memory(RISKMETRICS))
def log_parkinson_ewma(bars: Bars) -> Floats:
    """Log volatility from the exponential mean (λ = 0.94, RiskMetrics 1996) of the Parkinson variances."""
    return log_volatility_of(ema(parkinson_variance(bars), RISKMETRICS))


@feature(lookback=lambda window: window, windows=(20,))
def log_garman_klass(bars: Bars, window: int) -> Floats:
    """Log Garman–Klass (1980) volatility over `window` bars: mean of ½ ln(H/L)² − (2 ln 2 − 1) ln(C/O)²."""
    spread, body = np.log(bars.high / bars.low), np.log(bars.close / bars.open)
    return log_volatility_of(mean(0.5 * spread**2 - (2 * math.log(2) - 1) * body**2, window))


@feature(lookback=lambda window: window, windows=(20,))
def log_rogers_satchell(bars: Bars, window: int) -> Floats:
    """Log Rogers–Satchell (1991) volatility: mean over `window` bars of ln(H/O) ln(H/C) + ln(L/O) ln(L/C)."""
    return log_volatility_of(mean(rogers_satchell_variance(bars), window))


@feature(lookback=lambda window: window + 1, windows=(20,))
def log_yang_zhang(bars: Bars, window: int) -> Floats:
    """Log Yang–Zhang (2000) volatility over `window` bars, gaps included.

    Variance of ln(O_t / C_{t−1}) + k · variance of ln(C/O) + (1 − k) · Rogers–Satchell,
    k = 0.34 / (1.34 + (n + 1) / (n − 1)), n = `window`.
    """
    share = 0.34 / (1.34 + (window + 1) / (window - 1))
    gap = moments(np.log(bars.open / lag(bars.close, 1)), window)[1]
    body = moments(np.log(bars.close / bars.open), window)[1]
    return log_volatility_of(gap + share * body + (1 - share) * mean(rogers_satchell_variance(bars), window))


@feature(lookback=lambda window: window + 1, windows=(5, 20, 60))
def log_volatility(bars: Bars, window: int) -> Floats:
    """Log root mean square of the close-to-close log returns over `window` bars (mean taken as zero)."""
    return log_volatility_of(mean(log_return(bars.close) ** 2, window))


@feature(lookback=lambda window: window, windows=(20,))
def volatility_of_volatility(bars: Bars, window: int) -> Floats:
    """Volatility of volatility: standard deviation of the single bars' log Parkinson over `window` bars."""
    return np.sqrt(moments(log_volatility_of(parkinson_variance(bars)), window)[1])


@feature(lookback=memory(WILDER) + 1)
def log_atr_14(bars: Bars) -> Floats:
    """Log of Wilder's (1978) mean true range of log prices, n = 14: in effect ln(ATR / C)."""
    spread = ema(talib.TRANGE(np.log(bars.high), np.log(bars.low), np.log(bars.close)), WILDER)
    return np.log(np.maximum(spread, QUIET))


@feature(lookback=lambda window: window + 1, windows=(20,))
def log_gap_volatility(bars: Bars, window: int) -> Floats:
    """Log root mean square of the gaps ln(O_t / C_{t−1}) over `window` bars."""
    return log_volatility_of(mean(np.log(bars.open / lag(bars.close, 1)) ** 2, window))


@feature(lookback=lambda window: window + 1, windows=(20,))
def downside_share(bars: Bars, window: int) -> Floats:
    """Share of downside semivariance: Σ r² [r < 0] / Σ r² over `window` bars, in [0, 1]; 0.5 where flat."""
    change = log_return(bars.close)
    return ratio(mean(np.minimum(change, 0.0) ** 2, window), mean(change**2, window), empty=0.5)
