"""Volatility: natural logs of volatility per bar, by estimators that see more than closes, and how they compare.

A variance is never taken to be below `QUIET` squared, so that a bar without a range has a finite log: 1e-5 is a tenth
of a basis point, below one tick of any market here, and free of scale.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import (
    body,
    change,
    gap,
    log_close,
    move,
    parkinson_variance,
    rogers_satchell_variance,
    spread,
    squared_change,
    true_range,
)
from tradeloop.features.ordered import rank
from tradeloop.features.registry import feature
from tradeloop.features.rolling import (
    correlation,
    deviation,
    ema,
    lag,
    mean,
    memory,
    moments,
    ratio,
    share,
    skewness,
    total,
)

QUIET = 1e-5
RISKMETRICS = 1 - 0.94
WILDER = 1 / 14
KELTNER = 2 / 21
MASS = 2 / 10


def log_volatility_of(variance: Floats) -> Floats:
    """Return the log of the root of a variance per bar, floored at `QUIET`; NaN stays NaN."""
    return 0.5 * np.log(np.maximum(variance, QUIET**2))


def _log_parkinson(bars: Bars, window: int) -> Floats:
    return bars.memo(f"log parkinson {window}", lambda: log_volatility_of(mean(parkinson_variance(bars), window)))


def _log_volatility(bars: Bars, window: int) -> Floats:
    return bars.memo(f"log volatility {window}", lambda: log_volatility_of(mean(squared_change(bars), window)))


def _single_bars(bars: Bars) -> Floats:
    return bars.memo("log parkinson", lambda: log_volatility_of(parkinson_variance(bars)))


@feature(lookback=lambda window: window, windows=(1, 5, 22, 60))
def log_parkinson(bars: Bars, window: int) -> Floats:
    """Log Parkinson volatility, root of the mean of ln(H/L)² / (4 ln 2) over `window` bars. 1, 5, 22: HAR's terms."""
    return _single_bars(bars) if window == 1 else _log_parkinson(bars, window)


@feature(lookback=memory(RISKMETRICS))
def log_parkinson_ewma(bars: Bars) -> Floats:
    """Log volatility from the exponential mean (λ = 0.94, RiskMetrics 1996) of the Parkinson variances."""
    return log_volatility_of(ema(parkinson_variance(bars), RISKMETRICS))


@feature(lookback=lambda window: window, windows=(20,))
def log_garman_klass(bars: Bars, window: int) -> Floats:
    """Log Garman–Klass (1980) volatility over `window` bars: mean of ½ ln(H/L)² − (2 ln 2 − 1) ln(C/O)²."""
    return log_volatility_of(mean(0.5 * spread(bars) ** 2 - (2 * math.log(2) - 1) * body(bars) ** 2, window))


@feature(lookback=lambda window: window, windows=(20,))
def log_rogers_satchell(bars: Bars, window: int) -> Floats:
    """Log Rogers–Satchell (1991) volatility: mean over `window` bars of ln(H/O) ln(H/C) + ln(L/O) ln(L/C)."""
    return log_volatility_of(mean(rogers_satchell_variance(bars), window))


@feature(lookback=lambda window: window + 1, windows=(20, 60))
def log_yang_zhang(bars: Bars, window: int) -> Floats:
    """Log Yang–Zhang (2000) volatility over `window` bars, gaps included.

    Variance of ln(O_t / C_{t−1}) + k · variance of ln(C/O) + (1 − k) · Rogers–Satchell,
    k = 0.34 / (1.34 + (n + 1) / (n − 1)), n = `window`.
    """
    share = 0.34 / (1.34 + (window + 1) / (window - 1))
    outside, inside = moments(gap(bars), window)[1], moments(body(bars), window)[1]
    return log_volatility_of(outside + share * inside + (1 - share) * mean(rogers_satchell_variance(bars), window))


@feature(lookback=lambda window: window + 1, windows=(5, 20, 60, 250))
def log_volatility(bars: Bars, window: int) -> Floats:
    """Log root mean square of the close-to-close log returns over `window` bars (mean taken as zero)."""
    return _log_volatility(bars, window)


@feature(lookback=lambda window: window + 1, windows=(20, 60, 250))
def volatility_ratio(bars: Bars, window: int) -> Floats:
    """Term structure of volatility: log volatility of the last `window`/4 bars less that of `window`."""
    return _log_volatility(bars, window // 4) - _log_volatility(bars, window)


@feature(lookback=lambda window: window + 1, windows=(22,))
def range_to_close(bars: Bars, window: int) -> Floats:
    """Log Parkinson volatility less the close-to-close one over `window` bars: above 0 where bars turn back."""
    return _log_parkinson(bars, window) - _log_volatility(bars, window)


@feature(lookback=lambda window: window, windows=(20, 60))
def volatility_of_volatility(bars: Bars, window: int) -> Floats:
    """Volatility of volatility: standard deviation of the single bars' log Parkinson over `window` bars."""
    return np.sqrt(moments(_single_bars(bars), window)[1])


@feature(lookback=lambda window: window, windows=(60,))
def range_skew(bars: Bars, window: int) -> Floats:
    """Skewness of the single bars' log Parkinson over `window` bars; 0 where they are all alike."""
    return skewness(_single_bars(bars), window)[0]


@feature(lookback=lambda window: window + 4, windows=(120,))
def volatility_rank(bars: Bars, window: int) -> Floats:
    """Rank of the mean of ln(H / L) over 5 bars among those of the last `window` bars, in (0, 1]."""
    # Rounded: two windows of the same ranges in another order are equal, whatever their sums' last bits.
    return rank(np.log(np.maximum(mean(spread(bars), 5), QUIET)).round(9), window)


@feature(lookback=memory(WILDER) + 1)
def log_atr_14(bars: Bars) -> Floats:
    """Log of Wilder's (1978) mean true range of log prices, n = 14: in effect ln(ATR / C)."""
    return np.log(np.maximum(ema(true_range(bars), WILDER), QUIET))


@feature(lookback=memory(1 / 28) + 1)
def atr_ratio_7_28(bars: Bars) -> Floats:
    """Log ratio of Wilder's mean true range over 7 and over 28 bars, each at least 1e-5."""
    short, long = ema(true_range(bars), 1 / 7), ema(true_range(bars), 1 / 28)
    return np.log(np.maximum(short, QUIET) / np.maximum(long, QUIET))


@feature(lookback=lambda window: window + 1, windows=(20,))
def range_expansion(bars: Bars, window: int) -> Floats:
    """Log ratio of the bar's true range to the mean one of `window` bars, each at least 1e-5."""
    usual = mean(true_range(bars), window)
    return np.log(np.maximum(true_range(bars), QUIET) / np.maximum(usual, QUIET))


@feature(lookback=lambda window: window + 1, windows=(20,))
def log_gap_volatility(bars: Bars, window: int) -> Floats:
    """Log root mean square of the gaps ln(O_t / C_{t−1}) over `window` bars."""
    return log_volatility_of(mean(_squared_gap(bars), window))


def _squared_gap(bars: Bars) -> Floats:
    return bars.memo("squared gap", lambda: gap(bars) ** 2)


@feature(lookback=lambda window: window + 1, windows=(20,))
def gap_share(bars: Bars, window: int) -> Floats:
    """Share of the gaps in the variance: Σ gap² / Σ (gap² + ln(C / O)²) over `window` bars; 0.5 where flat."""
    outside = _squared_gap(bars)
    return share(outside, outside + body(bars) ** 2, window, empty=0.5)


@feature(lookback=lambda window: window + 1, windows=(20, 60))
def downside_share(bars: Bars, window: int) -> Floats:
    """Share of downside semivariance: Σ r² [r < 0] / Σ r² over `window` bars, in [0, 1]; 0.5 where flat."""
    falls = bars.memo("squared fall", lambda: np.minimum(change(bars), 0.0) ** 2)
    return share(falls, squared_change(bars), window, empty=0.5)


@feature(lookback=lambda window: window + 1, windows=(20, 60))
def jump_share(bars: Bars, window: int) -> Floats:
    """Share of jumps in the variance: 1 − (π/2) Σ|r_i||r_{i−1}| / Σ r_i² over the window, cut at 0; 0 where flat.

    Bipower variation over `window` − 1 products. Barndorff-Nielsen, Shephard (2004).
    """
    size = move(bars)
    smooth = total(bars.memo("bipower", lambda: size * lag(size, 1)), window - 1) * (window / (window - 1))
    return np.maximum(1 - ratio(0.5 * math.pi * smooth, total(squared_change(bars), window), empty=1.0), 0.0)


@feature(lookback=lambda window: window, windows=(20,))
def bollinger_width(bars: Bars, window: int) -> Floats:
    """Log width of the Bollinger band: ln of the standard deviation of ln C over `window` bars, at least 1e-5."""
    return np.log(np.maximum(deviation(log_close(bars), window), QUIET))


@feature(lookback=lambda window: window + 1, windows=(20,))
def squeeze(bars: Bars, window: int) -> Floats:
    """Bollinger band against Keltner channel: log ratio of the deviation of ln C to the mean true range, `window` bars.

    Each at least 1e-5. Low: the price coils within its usual bar. Carter (2005).
    """
    width = np.maximum(deviation(log_close(bars), window), QUIET)
    return np.log(width / np.maximum(mean(true_range(bars), window), QUIET))


@feature(lookback=memory(KELTNER) + 1)
def keltner_20(bars: Bars) -> Floats:
    """Place in the Keltner channel: ln(C / EMA20(C)) over the exponential mean true range of span 20, at least 1e-5."""
    unit = np.maximum(ema(true_range(bars), KELTNER), QUIET)
    return np.log(bars.close / ema(bars.close, KELTNER)) / unit


@feature(lookback=memory(MASS) + 10)
def chaikin_volatility_10(bars: Bars) -> Floats:
    """Log change over 10 bars of the exponential mean (span 9) of ln(H / L), at least 1e-5. Chaikin."""
    width = np.log(np.maximum(ema(spread(bars), MASS), QUIET))
    return width - lag(width, 10)


@feature(lookback=2 * memory(MASS) + 23)
def mass_index(bars: Bars) -> Floats:
    """Mass index less its neutral value: mean over 25 bars of EMA9(range) / EMA9(EMA9(range)), less 1; range ln(H / L).

    Above 0 where ranges widen. Dorsey (1992).
    """
    once = ema(spread(bars), MASS)
    return mean(ratio(once, ema(once, MASS), empty=1.0, floor=QUIET), 25) - 1


@feature(lookback=lambda window: window + 1, windows=(60,))
def volatility_clustering(bars: Bars, window: int) -> Floats:
    """Correlation of the single bars' log Parkinson with that of the bar before, over `window` bars; 0 where flat."""
    return correlation(_single_bars(bars), lag(_single_bars(bars), 1), window)


@feature(lookback=lambda window: window + 2, windows=(60,))
def leverage(bars: Bars, window: int) -> Floats:
    """Correlation of the bar's log Parkinson with the log return of the bar before, over `window` bars; 0 where flat.

    Below 0: falls make the next bar wider. Black (1976).
    """
    return correlation(lag(change(bars), 1), _single_bars(bars), window)
