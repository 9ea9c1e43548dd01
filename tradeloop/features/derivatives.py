"""Derivatives: liquidations of perpetual futures, and the funding that their holders pay each other.

Liquidations are money (quote currency) that became known within the bar; a funding rate is that which was known at its
close, positive where the long side pays.
"""

from __future__ import annotations

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import typical_flow
from tradeloop.features.registry import feature
from tradeloop.features.rolling import lag, mean, total, zscore
from tradeloop.features.usual import against_mean, burst, log_relative, share

LIQUIDATED = ("liquidations.long", "liquidations.short")
RATE = ("funding.rate", "funding.hours")


def _liquidated(bars: Bars) -> Floats:
    long, short = (bars.inputs[name] for name in LIQUIDATED)
    return bars.memo("liquidated", lambda: long + short)


def _daily_rate(bars: Bars) -> Floats:
    rate, hours = (bars.inputs[name] for name in RATE)
    return bars.memo("daily funding", lambda: np.asarray(rate * 24 / hours))


@feature(lookback=lambda window: window, windows=(20, 100), needs=LIQUIDATED)
def liquidation_intensity(bars: Bars, window: int) -> Floats:
    """Log of the bar's liquidations over their `window`-bar mean: ln((L / mean L + 0.01) / 1.01); 0 where none were."""
    return against_mean(_liquidated(bars), window)


@feature(lookback=60, needs=LIQUIDATED)
def liquidation_momentum_5_60(bars: Bars) -> Floats:
    """Log of mean liquidations over 5 bars against 60: ln((mean₅ L / mean₆₀ L + 0.01) / 1.01); 0 where none were."""
    liquidated = _liquidated(bars)
    return log_relative(mean(liquidated, 5), mean(liquidated, 60))


@feature(lookback=lambda window: window, windows=(5, 20), needs=LIQUIDATED)
def liquidation_imbalance(bars: Bars, window: int) -> Floats:
    """Liquidated longs less shorts over `window` bars, as a share of both, in [−1, 1]; 0 where none were."""
    long, short = (bars.inputs[name] for name in LIQUIDATED)
    net = bars.memo("liquidated net", lambda: long - short)
    return share(total(net, window), total(_liquidated(bars), window), empty=0.0)


@feature(lookback=lambda window: window, windows=(20,), needs=LIQUIDATED)
def liquidation_share(bars: Bars, window: int) -> Floats:
    """Liquidations over `window` bars as a share of themselves and the money traded, in [0, 1]; 0 without either."""
    liquidated = total(_liquidated(bars), window)
    return share(liquidated, liquidated + total(typical_flow(bars), window), empty=0.0)


@feature(lookback=lambda window: window + 1, windows=(60,), needs=LIQUIDATED)
def liquidation_cascade(bars: Bars, window: int) -> Floats:
    """1 where the bar's liquidations lie 3 standard deviations above the mean of the `window` bars before, else 0."""
    return burst(_liquidated(bars), window)


@feature(lookback=1, needs=RATE)
def funding_daily(bars: Bars) -> Floats:
    """Funding rate a day, in per cent: 100 · rate · 24 / hours between payments."""
    return 100 * _daily_rate(bars)


@feature(lookback=lambda window: window, windows=(48, 168), needs=RATE)
def funding_zscore(bars: Bars, window: int) -> Floats:
    """Funding rate's distance from its `window`-bar mean in standard deviations; 0 where it did not change."""
    return zscore(_daily_rate(bars), window)


@feature(lookback=lambda window: window + 1, windows=(24, 72), needs=RATE)
def funding_momentum(bars: Bars, window: int) -> Floats:
    """Change of the daily funding rate over `window` bars, in per cent."""
    rate = _daily_rate(bars)
    return 100 * (rate - lag(rate, window))


@feature(lookback=lambda window: window, windows=(72,), needs=RATE)
def funding_mean(bars: Bars, window: int) -> Floats:
    """Mean over `window` bars of the daily funding rate, in per cent: what holding has cost."""
    return 100 * mean(_daily_rate(bars), window)


@feature(lookback=1, needs=("funding.hours_to_next", "funding.hours"))
def funding_due(bars: Bars) -> Floats:
    """Time to the next funding payment as a share of the time between two, in [0, 1); 0 at the payment."""
    return np.asarray(bars.inputs["funding.hours_to_next"] / bars.inputs["funding.hours"])
