"""Volume: how much was traded against what is usual, and on which side.

Each is a ratio of volumes, so no unit matters; where a window has no volume at all, the neutral value stands.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.registry import feature
from tradeloop.features.rolling import correlation, lag, log_return, mean, ratio, total, zscore

DRY = 0.01
"""Added to a volume ratio before its log, so that a bar without volume has a finite one (ln 0.0099 = −4.6)."""

UNCHANGED = 1e-9
"""A smaller log change of the typical price is rounding, not a move."""


def _log_relative(volume: Floats, usual: Floats) -> Floats:
    return np.log((ratio(volume, usual, empty=1.0) + DRY) / (1 + DRY))


@feature(lookback=lambda window: window, windows=(20,))
def relative_volume(bars: Bars, window: int) -> Floats:
    """Log of volume over its `window`-bar mean: ln((V / mean V + 0.01) / 1.01); 0 where none was traded."""
    return _log_relative(bars.volume, mean(bars.volume, window))


@feature(lookback=60)
def volume_trend_5_60(bars: Bars) -> Floats:
    """Log of mean volume over 5 bars against 60: ln((mean₅ V / mean₆₀ V + 0.01) / 1.01); 0 where none was traded."""
    return _log_relative(mean(bars.volume, 5), mean(bars.volume, 60))


@feature(lookback=lambda window: window, windows=(20,))
def volume_zscore(bars: Bars, window: int) -> Floats:
    """Volume's distance from its `window`-bar mean in standard deviations; 0 where the volume is constant."""
    return zscore(bars.volume, window)


@feature(lookback=lambda window: window + 1, windows=(20,))
def obv_slope(bars: Bars, window: int) -> Floats:
    """On-balance volume's change over `window` bars as a share of the volume traded: Σ sign(ΔC) V / Σ V, in [−1, 1].

    Granville (1963); 0 where none was traded.
    """
    side = np.sign(bars.close - lag(bars.close, 1))
    return ratio(total(side * bars.volume, window), total(bars.volume, window), empty=0.0)


@feature(lookback=lambda window: window + 1, windows=(14,))
def money_flow(bars: Bars, window: int) -> Floats:
    """Money flow index: share of Σ T V over `window` bars on bars whose typical price T = (H + L + C) / 3 rose.

    Bars whose T did not move count on neither side; in [0, 1]; 0.5 where nothing flowed. Quong, Soudack (1989).
    """
    typical = (bars.high + bars.low + bars.close) / 3
    change = log_return(typical)
    rise = np.where(np.isnan(change), np.nan, (change > UNCHANGED) * typical * bars.volume)
    fall = np.where(np.isnan(change), np.nan, (change < -UNCHANGED) * typical * bars.volume)
    gain = total(rise, window)
    return ratio(gain, gain + total(fall, window), empty=0.5)


@feature(lookback=lambda window: window + 1, windows=(20,))
def return_volume_correlation(bars: Bars, window: int) -> Floats:
    """Correlation of log return and volume over `window` bars; 0 where either is constant."""
    return correlation(log_return(bars.close), bars.volume, window)
