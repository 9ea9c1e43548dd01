"""Scores of a return series: one simple net return a timestamp, in order of time (see `tradeloop.backtest`).

Every function takes series of shape (B, T) and gives (B,). Compounding is stated function by function.
"""

from __future__ import annotations

import numpy as np

from tradeloop.metrics.base import Floats, metric


def equity_curve(net: Floats) -> Floats:
    """Return the compounded value of 1 invested before the first return, along the last axis."""
    return np.asarray(np.cumprod(1.0 + net, axis=-1))


def drawdown_curve(net: Floats) -> Floats:
    """Return the share lost since the highest value so far (0 or below), along the last axis; the start counts."""
    equity = equity_curve(net)
    peak = np.maximum(np.maximum.accumulate(equity, axis=-1), 1.0)
    return np.asarray(equity / peak - 1.0)


@metric("returns", "higher", reference=0.0)
def sharpe(net: Floats, *, bars_per_year: float) -> Floats:
    """Annualised Sharpe ratio of simple net returns per bar, risk-free rate 0; NaN if they don't vary.

    ``mean / std(ddof=1) · sqrt(bars_per_year)`` (Sharpe 1994); serial correlation is left to the interval.
    """
    spread = net.std(axis=-1, ddof=1) if net.shape[-1] > 1 else np.zeros(len(net))
    return np.asarray(net.mean(axis=-1) / np.where(spread > 1e-15, spread, np.nan) * np.sqrt(bars_per_year))


@metric("returns", "higher", reference=0.0)
def sortino(net: Floats, *, bars_per_year: float) -> Floats:
    """Annualised Sortino ratio of simple net returns per bar, target 0; NaN if no bar lost.

    ``mean / sqrt(mean(min(net, 0)²)) · sqrt(bars_per_year)`` (Sortino and van der Meer 1991).
    """
    downside = np.sqrt((np.minimum(net, 0.0) ** 2).mean(axis=-1))
    return np.asarray(net.mean(axis=-1) / np.where(downside > 1e-15, downside, np.nan) * np.sqrt(bars_per_year))


@metric("returns", "higher")
def max_drawdown(net: Floats) -> Floats:
    """Deepest loss from a peak of the compounded equity, as a share (0 or below: −0.2 is a fifth lost)."""
    return np.asarray(drawdown_curve(net).min(axis=-1))


@metric("returns", "higher", reference=1.0)
def profit_factor(net: Floats) -> Floats:
    """Sum of gains over sum of losses of simple net returns per bar, not compounded; NaN if no bar lost."""
    loss = -np.minimum(net, 0.0).sum(axis=-1)
    return np.asarray(np.maximum(net, 0.0).sum(axis=-1) / np.where(loss > 0, loss, np.nan))


@metric("returns", "higher")
def hit_rate(net: Floats) -> Floats:
    """Share of bars with a net gain among bars whose net return is not zero; NaN if all are zero."""
    active = (net != 0).sum(axis=-1)
    return np.asarray((net > 0).sum(axis=-1) / np.where(active > 0, active, np.nan))


@metric("returns", "higher", reference=0.0)
def total_return(net: Floats) -> Floats:
    """Compounded simple net return over the whole series."""
    return np.asarray(equity_curve(net)[..., -1] - 1.0)


@metric("returns", "lower")
def turnover(traded: Floats) -> Floats:
    """Mean traded value per bar as a share of equity, both ways counted (a round trip a bar is 2)."""
    return np.asarray(traded.mean(axis=-1))
