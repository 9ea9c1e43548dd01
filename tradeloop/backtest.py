"""Forecasts → positions → costs → net returns, marked to market bar by bar on the bars that the labels were made from.

1. A forecast made at the close of bar t wants a position of +1, −1 or 0, times the symbol's equal share of capital.
2. Capital is cut in `horizon` parts. Each bar one part takes the new position, at the close of bar t or the open of
   bar t+1 as the label has it, and keeps it until the close of bar t+horizon: the trade whose outcome the label is.
3. A part's profit on each bar follows the price; over its life it adds up to position · (exp(label) − 1) / horizon.
4. Costs are charged one way on the value traded, on the bar in which the trade takes place. Entering at the close, the
   leaving part meets the entering one and only the difference trades; entering at the next open, both ways are paid.

Returns are simple, per bar, as a share of equity; the caller compounds or annualises.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tradeloop.bars import Bars, Floats, Times
from tradeloop.errors import DataError


@dataclass(frozen=True)
class Trades:
    """What the strategy did, one entry a bar: arrays (T,) in order of time.

    Attributes
    ----------
    timestamp
        Close of each bar, UTC, from the first bar in which a trade is possible to the last exit.
    net, gross
        Simple return per bar on equity, after and before costs.
    traded
        Value traded as a share of equity, both ways counted.
    buy_and_hold
        Simple return per bar of equal amounts of all symbols bought at the start and left alone, before costs.
    """

    timestamp: Times
    net: Floats
    gross: Floats
    traded: Floats
    buy_and_hold: Floats


def positions(p_up: ArrayLike, threshold: float) -> Floats:
    """Return +1 where ``p_up − 0.5`` is above `threshold`, −1 where it is below ``−threshold``, else 0 (NaN too)."""
    lean = np.asarray(p_up, dtype=np.float64) - 0.5
    return np.where(lean > threshold, 1.0, 0.0) - np.where(lean < -threshold, 1.0, 0.0)


def trade(
    bars: Mapping[str, Bars],
    symbol: NDArray[Any],
    timestamp: Times,
    *,
    position: Floats,
    entry: Literal["close", "next_open"],
    horizon: int,
    cost_bps: float,
) -> Trades:
    """Return what holding `position` would have earned.

    Parameters
    ----------
    bars
        By symbol; must hold the bar of every forecast and the `horizon` bars after it.
    symbol, timestamp, position
        One forecast a row (n,): its symbol, the close of the bar it was made on, and −1…1.
        At each time capital is shared equally among the symbols that have a row then.
    entry
        Whether the position is taken at that close or at the next bar's open.
    cost_bps
        Basis points of traded value, one way.

    Raises
    ------
    DataError
        If a forecast's bar, or one of the bars it is held over, is missing.
    """
    if len(timestamp) == 0:
        raise DataError("a backtest needs at least one forecast, got none")
    _, at = np.unique(timestamp, return_inverse=True)
    weight = position / np.bincount(at)[at]
    ledgers = [
        _ledger(bars, name, timestamp[rows], weight=weight[rows], entry=entry, horizon=horizon)
        for name in sorted(set(symbol))
        for rows in [symbol == name]
    ]
    grid = np.unique(np.concatenate([ledger.timestamp for ledger in ledgers]))
    gross, traded = np.zeros(len(grid)), np.zeros(len(grid))
    for ledger in ledgers:
        at = np.searchsorted(grid, ledger.timestamp)
        gross[at] += ledger.profit
        traded[at] += ledger.traded
    if entry == "next_open":  # nothing can happen on the first forecast's own bar
        gross, traded, grid = gross[1:], traded[1:], grid[1:]
    net = np.maximum(gross - traded * cost_bps / 1e4, -1.0)  # who has lost everything stops there
    return Trades(
        grid, net, gross, traded, _buy_and_hold([bars[name] for name in sorted(set(symbol))], grid, timestamp.min())
    )


@dataclass(frozen=True)
class _Ledger:
    """One symbol's profit and traded value as shares of equity, a bar each."""

    timestamp: Times
    profit: Floats
    traded: Floats


def _ledger(bars: Mapping[str, Bars], name: str, times: Times, *, weight: Floats, entry: str, horizon: int) -> _Ledger:
    series = bars.get(name)
    if series is None:
        raise DataError(f"{name}: a backtest needs the bars of every symbol forecast")
    at = np.searchsorted(series.timestamp, times)
    known = at < len(series)
    known[known] = series.timestamp[at[known]] == times[known]
    if not known.all():
        raise DataError(f"{name} at {times[~known][0]}Z: forecast without a bar")
    first, last = int(at.min()), int(at.max()) + horizon
    if last >= len(series):
        raise DataError(f"{name} at {times.max()}Z: fewer than {horizon} bars follow the forecast")
    held = series[first : last + 1]
    opened = len(held) - horizon
    part = np.zeros(opened)
    part[at - first] = weight / horizon
    paid = held.open[1 : opened + 1] if entry == "next_open" else held.close[:opened]
    profit, traded = np.zeros(len(held)), np.zeros(len(held))
    before = np.ones(opened)
    for age in range(1, horizon + 1):
        worth = held.close[age : age + opened] / paid
        profit[age : age + opened] += part * (worth - before)
        before = worth
    if entry == "next_open":
        traded[1 : opened + 1] += np.abs(part)
        traded[horizon:] += np.abs(part) * before
    else:
        change = np.zeros(len(held))
        change[:opened] += part
        change[horizon:] -= part * before
        traded += np.abs(change)
    return _Ledger(held.timestamp, profit, traded)


def _buy_and_hold(bars: list[Bars], grid: Times, bought: np.datetime64) -> Floats:
    """Return simple returns (T,) of equal amounts of all symbols listed by then, bought at the last close known."""
    worth = np.zeros(len(grid) + 1)
    for series in bars:
        start = int(np.searchsorted(series.timestamp, bought, side="right")) - 1
        if start >= 0:
            at = np.searchsorted(series.timestamp, grid, side="right") - 1
            worth += np.concatenate([[1.0], series.close[at] / series.close[start]])
    return np.asarray(worth[1:] / worth[:-1] - 1.0)
