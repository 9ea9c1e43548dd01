"""Microstructure: the order book and the trades behind a bar, and what bars alone tell of them.

Sizes are compared with sizes and prices with prices, so that no unit is left. The book is as it was known at the bar's
close; order flow and trades are those that became known within the bar.
"""

from __future__ import annotations

import math

import numpy as np

from tradeloop.bars import Bars, Floats
from tradeloop.features.basics import change, log_high, log_low, spread
from tradeloop.features.compiled import compiled
from tradeloop.features.registry import feature
from tradeloop.features.rolling import correlation, deviation, lag, mean, ratio, total, zscore
from tradeloop.features.usual import against_mean, share

PRICES = ("book.bid_price", "book.ask_price")
SIZES = ("book.bid_size", "book.ask_size")
DEPTHS = ("book.bid_depth", "book.ask_depth")
TRADED = ("trades.buy_volume", "trades.sell_volume")

BUCKETS = 20
"""Buckets of equal volume that VPIN cuts a window into."""


def _relative_spread(bars: Bars) -> Floats:
    def make() -> Floats:
        bid, ask = (bars.inputs[name] for name in PRICES)
        return np.asarray(2 * (ask - bid) / (ask + bid))

    return bars.memo("relative spread", make)


def _balance(bars: Bars, names: tuple[str, str]) -> Floats:
    bid, ask = (bars.inputs[name] for name in names)
    return bars.memo(f"balance of {names[0]}", lambda: np.asarray((bid - ask) / (bid + ask)))


def _volume(bars: Bars) -> Floats:
    buy, sell = (bars.inputs[name] for name in TRADED)
    return bars.memo("traded volume", lambda: buy + sell)


def _signed(bars: Bars) -> Floats:
    buy, sell = (bars.inputs[name] for name in TRADED)
    return bars.memo("net volume bought", lambda: buy - sell)


@feature(lookback=1, needs=PRICES)
def log_quoted_spread(bars: Bars) -> Floats:
    """Log of the quoted spread: ln(2 (ask − bid) / (ask + bid))."""
    return bars.memo("log spread", lambda: np.log(_relative_spread(bars)))


@feature(lookback=lambda window: window, windows=(60,), needs=PRICES)
def quoted_spread_zscore(bars: Bars, window: int) -> Floats:
    """Log quoted spread's distance from its `window`-bar mean in standard deviations; 0 where it is constant."""
    return zscore(log_quoted_spread(bars), window)


@feature(lookback=1, needs=SIZES)
def quote_imbalance(bars: Bars) -> Floats:
    """Imbalance of the sizes at the best prices: (bid − ask) / (bid + ask), in (−1, 1)."""
    return _balance(bars, SIZES)


@feature(lookback=1, needs=DEPTHS)
def depth_imbalance(bars: Bars) -> Floats:
    """Imbalance of the depth, the sizes at the best levels of each side: (bid − ask) / (bid + ask), in (−1, 1)."""
    return _balance(bars, DEPTHS)


@feature(lookback=lambda window: window, windows=(20,), needs=DEPTHS)
def depth_imbalance_mean(bars: Bars, window: int) -> Floats:
    """Mean over `window` bars of the depth's imbalance at their closes."""
    return mean(_balance(bars, DEPTHS), window)


@feature(lookback=1, needs=PRICES + SIZES)
def microprice_distance(bars: Bars) -> Floats:
    """Relative distance of the microprice, the quotes' mean weighted by the sizes opposite, from their mid.

    (bid · ask size + ask · bid size) / (bid size + ask size) against (bid + ask) / 2, which is half the relative spread
    times the imbalance. Gatheral, Oomen (2010).
    """
    return 0.5 * _relative_spread(bars) * _balance(bars, SIZES)


@feature(lookback=lambda window: window, windows=(1, 5, 20), needs=("book.order_flow", *SIZES))
def order_flow_imbalance(bars: Bars, window: int) -> Floats:
    """Order flow imbalance: what was added at the bid less what was added at the ask, over `window` bars.

    In units of the mean size at the best prices at those bars' closes, as arsinh. Each quote adds
    [Pᵇ ≥ Pᵇ₋₁] qᵇ − [Pᵇ ≤ Pᵇ₋₁] qᵇ₋₁ − [Pᵃ ≤ Pᵃ₋₁] qᵃ + [Pᵃ ≥ Pᵃ₋₁] qᵃ₋₁. Cont, Kukanov, Stoikov (2014).
    """
    flow = bars.inputs["book.order_flow"]
    size = bars.memo("best size", lambda: 0.5 * (bars.inputs[SIZES[0]] + bars.inputs[SIZES[1]]))
    return np.arcsinh(total(flow, window) / mean(size, window))


@feature(lookback=lambda window: window + 1, windows=(60,), needs=("book.order_flow",))
def order_flow_correlation(bars: Bars, window: int) -> Floats:
    """Correlation over `window` bars of the log return with the bar's order flow; 0 where either is flat."""
    return correlation(change(bars), bars.inputs["book.order_flow"], window)


@feature(lookback=lambda window: window, windows=(20,), needs=("book.updates",))
def quote_intensity(bars: Bars, window: int) -> Floats:
    """Log of the number of quotes over its `window`-bar mean: ln((n / mean n + 0.01) / 1.01); 0 where none came."""
    return against_mean(bars.inputs["book.updates"], window)


@feature(lookback=lambda window: window, windows=(20,), needs=("trades.count",))
def trade_intensity(bars: Bars, window: int) -> Floats:
    """Log of the number of trades over its `window`-bar mean: ln((n / mean n + 0.01) / 1.01); 0 where none was made."""
    return against_mean(bars.inputs["trades.count"], window)


@feature(lookback=lambda window: window, windows=(1, 5, 20), needs=TRADED)
def trade_imbalance(bars: Bars, window: int) -> Floats:
    """Bought less sold over `window` bars, as a share of what was traded, in [−1, 1]; 0 where nothing was.

    The side is the taker's; where it is not known, that of the tick test: Lee, Ready (1991).
    """
    return share(total(_signed(bars), window), total(_volume(bars), window), empty=0.0)


@feature(lookback=lambda window: window + 1, windows=(60,), needs=TRADED)
def kyle_lambda(bars: Bars, window: int) -> Floats:
    """Price impact: least-squares slope over `window` bars of the log return on the net volume bought.

    Kyle (1985). In log return for a net purchase of the mean volume of those bars; 0 where returns or net volume are
    flat.
    """
    signed = _signed(bars)
    steep = correlation(change(bars), signed, window) * deviation(change(bars), window)
    return ratio(steep * mean(_volume(bars), window), deviation(signed, window), empty=0.0)


@compiled
def _vpin(buy: Floats, sell: Floats, window: int, buckets: int) -> Floats:
    """Return Σ |bought − sold| over buckets of equal volume, filled from the newest bar back, over the volume."""
    result = np.full(len(buy), np.nan)
    for i in range(window - 1, len(buy)):
        volume = 0.0
        for j in range(i, i - window, -1):
            volume += buy[j] + sell[j]
        size = volume / buckets
        if not size > 0:
            result[i] = 0.0 * volume  # NaN if not known, 0 if nothing was traded
            continue
        room, net, toxic = size, 0.0, 0.0
        for j in range(i, i - window, -1):
            left = buy[j] + sell[j]
            side = (buy[j] - sell[j]) / left if left > 0 else 0.0
            while left > room:
                toxic += abs(net + side * room)
                left -= room
                room, net = size, 0.0
            net += side * left
            room -= left
        result[i] = (toxic + abs(net)) / volume
    return result


@feature(lookback=lambda window: window, windows=(60,), needs=TRADED)
def vpin(bars: Bars, window: int) -> Floats:
    """Volume-synchronised probability of informed trading over `window` bars, in [0, 1].

    The window's volume is cut into 20 buckets of the same size, a bar's being split where a bucket is full, with its
    bought and sold shares: Σ |bought − sold| over the buckets / Σ volume. Easley, López de Prado, O'Hara (2012), with
    sides of trades in place of bulk classification; 0 where nothing was traded.
    """
    buy, sell = (bars.inputs[name] for name in TRADED)
    return np.clip(_vpin(buy, sell, window, BUCKETS), 0.0, 1.0)


@compiled
def _bulk_bought(moves: Floats, spreads: Floats, volume: Floats) -> Floats:
    """Return the part of each bar's volume that its standardised return says was bought."""
    bought = np.empty(len(moves))
    for i in range(len(moves)):
        score = moves[i] / spreads[i] if spreads[i] > 0 else 0.0 * (moves[i] + spreads[i])
        bought[i] = volume[i] * 0.5 * (1.0 + math.erf(score / math.sqrt(2.0)))
    return bought


@feature(lookback=lambda window: 2 * window, windows=(60,))
def bulk_vpin(bars: Bars, window: int) -> Floats:
    """VPIN over `window` bars from bars alone, in [0, 1]; 0 where nothing was traded.

    As `vpin`, with a bar's volume bought to the share Φ(return / σ), σ the standard deviation of the `window` returns
    to that bar: the bulk volume classification of Easley, López de Prado, O'Hara (2012); half where σ is 0.
    """
    moves = change(bars)
    bought = _bulk_bought(moves, deviation(moves, window), bars.volume)
    return np.clip(_vpin(bought, bars.volume - bought, window, BUCKETS), 0.0, 1.0)


@feature(lookback=lambda window: window + 2, windows=(20, 60))
def roll_spread(bars: Bars, window: int) -> Floats:
    """Effective spread that the bounce of closes implies: 2 √(−cov(r_t, r_{t−1})) over `window` bars, relative.

    Roll (1984); 0 where the covariance is not negative.
    """
    moves = change(bars)
    before = bars.memo("change before", lambda: lag(moves, 1))
    bounce = correlation(moves, before, window) * deviation(moves, window) * deviation(before, window)
    return 2 * np.sqrt(np.maximum(-bounce, 0.0))


_STEEPNESS = 3 - 2 * math.sqrt(2)


@feature(lookback=lambda window: window + 1, windows=(20,))
def corwin_schultz_spread(bars: Bars, window: int) -> Floats:
    """Mean over `window` bars of the spread that highs and lows of two bars imply, each not below 0, relative.

    β = Σ of both ln(H/L)², γ = ln(H/L)² of both together; α = (√(2β) − √β) / (3 − 2√2) − √(γ / (3 − 2√2));
    spread = 2 (e^α − 1) / (1 + e^α). Corwin, Schultz (2012), without their correction for gaps.
    """
    ranges = spread(bars) ** 2
    both = ranges + lag(ranges, 1)
    high, low = log_high(bars), log_low(bars)
    wide = np.maximum(high, lag(high, 1)) - np.minimum(low, lag(low, 1))
    alpha = (math.sqrt(2) - 1) * np.sqrt(both) / _STEEPNESS - wide / math.sqrt(_STEEPNESS)
    return mean(2 * np.tanh(np.maximum(alpha, 0.0) / 2), window)
