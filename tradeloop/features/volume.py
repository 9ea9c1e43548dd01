"""Volume: how much was traded against what is usual, on which side, and what it did to the price.

Each is a ratio of volumes, so no unit matters; where a window has no volume at all, the neutral value stands.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change, previous_close, spread, typical, typical_flow
from tradeloop.features.ordered import rank
from tradeloop.features.registry import feature
from tradeloop.features.rolling import (
    correlation,
    deviation,
    ema,
    lag,
    log_return,
    mean,
    memory,
    ratio,
    share,
    time_correlation,
    total,
    zscore,
)

DRY = 0.01
"""Added to a volume ratio before its log, so that a bar without volume has a finite one (ln 0.0099 = −4.6)."""

UNCHANGED = 1e-9
"""A smaller log change of the typical price is rounding, not a move."""

FORCE = 2 / 14
QUIET = 1e-5


def _log_relative(volume: Floats, usual: Floats) -> Floats:
    return np.log((ratio(volume, usual, empty=1.0) + DRY) / (1 + DRY))


def _mean_volume(bars: Bars, window: int) -> Floats:
    return bars.memo(f"mean volume {window}", lambda: mean(bars.volume, window))


def _location(bars: Bars) -> Floats:
    """Return the volume times the close's place in the bar's range, from −1 at the low to 1 at the high."""

    def make() -> Floats:
        inside = (bars.close - bars.low) - (bars.high - bars.close)
        return ratio(inside, bars.high - bars.low, empty=0.0) * bars.volume

    return bars.memo("location volume", make)


@feature(lookback=lambda window: window, windows=(20, 60))
def relative_volume(bars: Bars, window: int) -> Floats:
    """Log of volume over its `window`-bar mean: ln((V / mean V + 0.01) / 1.01); 0 where none was traded."""
    return _log_relative(bars.volume, _mean_volume(bars, window))


@feature(lookback=60)
def volume_trend_5_60(bars: Bars) -> Floats:
    """Log of mean volume over 5 bars against 60: ln((mean₅ V / mean₆₀ V + 0.01) / 1.01); 0 where none was traded."""
    return _log_relative(mean(bars.volume, 5), _mean_volume(bars, 60))


@feature(lookback=lambda window: window, windows=(20,))
def volume_zscore(bars: Bars, window: int) -> Floats:
    """Volume's distance from its `window`-bar mean in standard deviations; 0 where the volume is constant."""
    return zscore(bars.volume, window)


@feature(lookback=lambda window: window, windows=(60,))
def volume_rank(bars: Bars, window: int) -> Floats:
    """Rank of the volume among those of `window` bars, in (0, 1]; the average rank of equal ones."""
    return rank(bars.volume, window)


@feature(lookback=lambda window: window, windows=(20,))
def volume_variation(bars: Bars, window: int) -> Floats:
    """Variation of volume: standard deviation over mean of `window` bars; 0 where none was traded."""
    return ratio(deviation(bars.volume, window), _mean_volume(bars, window), empty=0.0)


@feature(lookback=lambda window: window, windows=(20,))
def volume_time_correlation(bars: Bars, window: int) -> Floats:
    """Correlation of volume with time over `window` bars: whether interest builds up; 0 where constant."""
    return time_correlation(bars.volume, window)


@feature(lookback=lambda window: window + 1, windows=(5, 20, 60))
def obv_slope(bars: Bars, window: int) -> Floats:
    """On-balance volume's change over `window` bars as a share of the volume traded: Σ sign(ΔC) V / Σ V, in [−1, 1].

    Granville (1963); 0 where none was traded.
    """
    signed = bars.memo("signed volume", lambda: np.sign(bars.close - previous_close(bars)) * bars.volume)
    return share(signed, bars.volume, window, empty=0.0)


@feature(lookback=lambda window: window + 1, windows=(14, 28))
def money_flow(bars: Bars, window: int) -> Floats:
    """Money flow index: share of Σ T V over `window` bars on bars whose typical price T = (H + L + C) / 3 rose.

    Bars whose T did not move count on neither side; in [0, 1]; 0.5 where nothing flowed. Quong, Soudack (1989).
    """

    def sided() -> Floats:
        move = log_return(typical(bars))
        return typical_flow(bars) * np.where(np.abs(move) > UNCHANGED, np.sign(move), 0.0 * move)

    side = bars.memo("sided flow", sided)
    return share(np.maximum(side, 0.0), np.abs(side), window, empty=0.5)


@feature(lookback=lambda window: window, windows=(20,))
def chaikin_flow(bars: Bars, window: int) -> Floats:
    """Chaikin money flow: Σ v V / Σ V over `window` bars, v = (2C − H − L) / (H − L), in [−1, 1].

    v is 0 for a bar without a range, the flow 0 where none was traded.
    """
    return share(_location(bars), bars.volume, window, empty=0.0)


@feature(lookback=memory(2 / 11))
def accumulation_3_10(bars: Bars) -> Floats:
    """Accumulation's change of pace: (EMA3(v V) − EMA10(v V)) / EMA10(V), v as in Chaikin's money flow.

    In effect the slope of Chaikin's oscillator; 0 where none was traded.
    """
    flow = _location(bars)
    return ratio(ema(flow, 2 / 4) - ema(flow, 2 / 11), ema(bars.volume, 2 / 11), empty=0.0)


@feature(lookback=memory(FORCE) + 1)
def force_13(bars: Bars) -> Floats:
    """Force index free of units: EMA13(r V) / EMA13(V), the mean log return of a unit traded; 0 where none was.

    Elder (1993).
    """
    return ratio(ema(change(bars) * bars.volume, FORCE), ema(bars.volume, FORCE), empty=0.0)


@feature(lookback=lambda window: window, windows=(5, 20, 60))
def vwap_distance(bars: Bars, window: int) -> Floats:
    """Log distance of the close from the volume-weighted typical price of `window` bars: ln(C Σ V / Σ T V).

    0 where none was traded.
    """
    average = share(typical_flow(bars), bars.volume, window, empty=0.0)
    return np.log(bars.close / np.where(average == 0.0, bars.close, average))


@feature(lookback=lambda window: window, windows=(20,))
def volume_confirmation(bars: Bars, window: int) -> Floats:
    """Log ratio of the volume-weighted mean close of `window` bars to the plain one: above 0 where rises drew volume.

    Dormeier (2007); 0 where none was traded.
    """
    weighed = share(bars.close * bars.volume, bars.volume, window, empty=0.0)
    plain = mean(bars.close, window)
    return np.log(np.where(weighed == 0.0, plain, weighed) / plain)


@feature(lookback=121)
def illiquidity_20_120(bars: Bars) -> Floats:
    """Log of Amihud's (2002) illiquidity over 20 bars against that over 120: ln((a₂₀ / a₁₂₀ + 0.01) / 1.01).

    aₙ = Σ |r| / Σ T V over n bars; 0 where either has no trade or no move.
    """
    size = np.abs(change(bars))
    short, long = (share(size, typical_flow(bars), n, empty=0.0) for n in (20, 120))
    return np.log((np.where(short == 0.0, 1.0, ratio(short, long, empty=1.0)) + DRY) / (1 + DRY))


@feature(lookback=lambda window: 2 * window, windows=(14,))
def ease_of_movement(bars: Bars, window: int) -> Floats:
    """Ease of movement free of units: mean over `window` bars of m s / (V / mean V + 0.01), over the mean of s².

    m = log change of (H + L), s = ln(H / L); 0 where no bar has a range. Arms (1983).
    """
    drift = log_return(bars.high + bars.low) * spread(bars)
    relative = ratio(bars.volume, _mean_volume(bars, window), empty=1.0) + DRY
    return share(drift / relative, spread(bars) ** 2, window, empty=0.0, floor=QUIET**2)


@feature(lookback=lambda window: window + 1, windows=(60,), columns=("quiet_return", "busy_return"))
def volume_index(bars: Bars, window: int) -> tuple[Floats, Floats]:
    """Log returns of the negative and positive volume index over `window` bars: of bars with less, with more volume.

    Fosback (1976).
    """
    side = np.sign(bars.volume - lag(bars.volume, 1))
    quiet, busy = np.minimum(side, 0.0) * -change(bars), np.maximum(side, 0.0) * change(bars)
    return total(quiet, window), total(busy, window)


@feature(lookback=lambda window: window + 1, windows=(20,))
def return_volume_correlation(bars: Bars, window: int) -> Floats:
    """Correlation of log return and volume over `window` bars; 0 where either is constant."""
    return correlation(change(bars), bars.volume, window)


@feature(lookback=lambda window: window + 1, windows=(20,))
def move_volume_correlation(bars: Bars, window: int) -> Floats:
    """Correlation of the size of the log return and volume over `window` bars; 0 where either is constant.

    Karpoff (1987).
    """
    return correlation(np.abs(change(bars)), bars.volume, window)
