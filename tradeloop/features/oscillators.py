"""Oscillators: where the price stands within its recent range, and which side moved it, between fixed bounds."""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import body, change, log_close, log_low, move, previous_close, true_range, typical
from tradeloop.features.compiled import compiled
from tradeloop.features.ordered import maximum, minimum
from tradeloop.features.registry import feature
from tradeloop.features.rolling import FLAT, ema, mean, memory, ratio, share, zscore

LAMBERT = 0.015
STEEPEST = 0.999
QUIET = 1e-5
ULTIMATE = (7, 14, 28)
UNMOVED = 1e-9
"""An RSI that moved less than this moved by rounding only."""


def _gain(bars: Bars) -> Floats:
    return bars.memo("gain", lambda: np.maximum(change(bars), 0.0))


def _strength(bars: Bars, window: int) -> Floats:
    return ratio(ema(_gain(bars), 1 / window), ema(move(bars), 1 / window), empty=0.5)


def _position(bars: Bars, window: int) -> Floats:
    def make() -> Floats:
        low = minimum(bars.low, window)
        return ratio(bars.close - low, maximum(bars.high, window) - low, empty=0.5)

    return bars.memo(f"position {window}", make)


@feature(lookback=lambda window: memory(1 / window) + 1, windows=(2, 7, 14, 28))
def rsi(bars: Bars, window: int) -> Floats:
    """Relative strength index of log prices: mean gain over mean absolute change, Wilder (1978), n = `window`.

    In [0, 1]; 0.5 where the price did not move. 2: Connors, Alvarez (2009).
    """
    return _strength(bars, window)


@feature(lookback=memory(1 / 14) + 14)
def stochastic_rsi_14(bars: Bars) -> Floats:
    """Stochastic of the RSI: place of RSI 14 between its lowest and highest of 14 bars, in [0, 1]; 0.5 where flat.

    Chande, Kroll (1994).
    """
    strength = _strength(bars, 14)
    low = minimum(strength, 14)
    return ratio(strength - low, maximum(strength, 14) - low, empty=0.5, floor=UNMOVED)


@feature(lookback=lambda window: window, windows=(14, 50))
def stochastic(bars: Bars, window: int) -> Floats:
    """Fast stochastic %K: (C − min L) / (max H − min L) over `window` bars, in [0, 1]; 0.5 where flat. Lane.

    Williams %R is this less one, so it has no column.
    """
    return _position(bars, window)


@feature(lookback=lambda window: window + 2, windows=(14,))
def stochastic_slow(bars: Bars, window: int) -> Floats:
    """Slow stochastic, fast %D: mean of the last three %K of `window` bars, in [0, 1]. Lane."""
    return mean(_position(bars, window), 3)


@feature(lookback=lambda window: window + 2, windows=(10,))
def fisher(bars: Bars, window: int) -> Floats:
    """Fisher transform ½ ln((1 + x) / (1 − x)) of x = 2 %D − 1, %D the slow stochastic of `window` bars, |x| ≤ 0.999.

    Ehlers (2002), who smooths x recursively.
    """
    return np.arctanh(np.clip(2 * mean(_position(bars, window), 3) - 1, -STEEPEST, STEEPEST))


@feature(lookback=lambda window: window, windows=(20, 60, 120))
def price_zscore(bars: Bars, window: int) -> Floats:
    """Place in the Bollinger band: (C − mean) / standard deviation of C over `window` bars; 0 where flat."""
    return zscore(bars.close, window)


@compiled
def _lambert(values: Floats, average: Floats, window: int) -> Floats:
    """Return the distance from the mean in `LAMBERT` mean absolute deviations from it."""
    result = np.full(len(values), np.nan)
    for i in range(window - 1, len(values)):
        deviation = 0.0
        for j in range(i - window + 1, i + 1):
            deviation += abs(values[j] - average[i])
        deviation /= window
        flat = deviation <= FLAT * average[i]
        result[i] = 0.0 if flat else (values[i] - average[i]) / (LAMBERT * deviation)
    return result


@feature(lookback=lambda window: window, windows=(20,))
def cci(bars: Bars, window: int) -> Floats:
    """Commodity channel index: (T − mean T) / (0.015 · mean |T − mean T|) over `window` bars, T = (H + L + C) / 3.

    0 where flat. Lambert (1980).
    """
    return _lambert(typical(bars), mean(typical(bars), window), window)


@feature(lookback=lambda window: window + 1, windows=(9, 20))
def cmo(bars: Bars, window: int) -> Floats:
    """Chande momentum oscillator of log prices: (Σ gains − Σ losses) / (Σ gains + Σ losses) over `window` bars.

    In [−1, 1]; 0 where nothing moved. Chande, Kroll (1994).
    """
    return share(change(bars), move(bars), window, empty=0.0)


@feature(lookback=29)
def ultimate(bars: Bars) -> Floats:
    """Ultimate oscillator of log prices, Williams (1985): (4 a₇ + 2 a₁₄ + a₂₈) / 7, in [0, 1].

    aₙ = Σ (C − min(L, C_{t−1})) / Σ TR over n bars; 0.5 where nothing moved.
    """
    pressure = log_close(bars) - np.minimum(log_low(bars), np.log(previous_close(bars)))
    spread = true_range(bars)
    short, middle, long = (share(pressure, spread, window, empty=0.5, floor=QUIET) for window in ULTIMATE)
    return (4 * short + 2 * middle + long) / 7


@feature(lookback=38, columns=("awesome", "accelerator"))
def awesome(bars: Bars) -> tuple[Floats, Floats]:
    """Awesome oscillator as a log ratio: ln(SMA5(M) / SMA34(M)), M = (H + L) / 2; accelerator: it less its SMA5.

    Williams (1998).
    """
    middle = bars.high + bars.low
    line = np.log(mean(middle, 5) / mean(middle, 34))
    return line, line - mean(line, 5)


@feature(lookback=lambda window: window, windows=(14,))
def intraday_momentum(bars: Bars, window: int) -> Floats:
    """Intraday momentum index: share of Σ|ln(C / O)| over `window` bars that rising bars made, in [0, 1].

    0.5 where no bar has a body. Chande, Kroll (1994).
    """
    inside = body(bars)
    return share(np.maximum(inside, 0.0), np.abs(inside), window, empty=0.5)


@feature(lookback=lambda window: window, windows=(10,))
def vigor(bars: Bars, window: int) -> Floats:
    """Relative vigor: Σ (C − O) / Σ (H − L) over `window` bars, in [−1, 1]; 0 where none has a range. Ehlers (2002)."""
    return share(bars.close - bars.open, bars.high - bars.low, window, empty=0.0)
