"""What came of a paper account: trades, equity, costs, drawdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from tradeloop.paper.exchange import Fill
from tradeloop.paper.ledger import Bar, State


@dataclass(frozen=True)
class Trade:
    """A position from its opening to its end; profit after the fees of its fills, in quote currency.

    `closed_at` is None while some of it is held; its profit is then what was booked so far.
    """

    symbol: str
    side: str
    prediction_id: str
    opened_at: datetime
    closed_at: datetime | None
    quantity: float
    entry: float
    exit: float | None
    net_pnl: float


def trades(fills: Sequence[Fill]) -> list[Trade]:
    """Return the trades that the fills make up, in order of their opening."""
    found: list[Trade] = []
    open_now: dict[str, list[Fill]] = {}
    for fill in fills:
        if fill.pnl is None:
            open_now[fill.symbol] = [fill]
            continue
        legs = open_now[fill.symbol]
        legs.append(fill)
        if np.isclose(sum(leg.quantity for leg in legs[1:]), legs[0].quantity, rtol=1e-9):
            found.append(_trade(legs, closed=True))
            del open_now[fill.symbol]
    found += [_trade(legs, closed=False) for legs in open_now.values()]
    return sorted(found, key=lambda trade: (trade.opened_at, trade.symbol))


def summary(state: State, fills: Sequence[Fill], bars: Sequence[Bar], statuses: dict[str, int]) -> dict[str, Any]:
    """Return the account's figures as JSON holds them; returns are simple, of the cash it began with.

    ``cost`` is the price of trading: fees, and the slippage against the opens at which orders arrived.
    """
    cash = float(state.settings["cash"])
    equity = state.account.equity
    fees = sum(fill.fee for fill in fills)
    slippage = sum(fill.quantity * abs(fill.price - fill.expected_price) for fill in fills)
    value = sum(fill.quantity * fill.price for fill in fills)
    closed = [trade for trade in trades(fills) if trade.closed_at is not None]
    won = sum(trade.net_pnl > 0 for trade in closed)
    return {
        "run": state.run,
        "first": bars[0].closed_at.isoformat() if bars else None,
        "last": bars[-1].closed_at.isoformat() if bars else None,
        "bars": len(bars),
        "asked": sum(bar.asked for bar in bars),
        "abstained": sum(bar.abstained for bar in bars),
        "cash": state.account.cash,
        "equity": equity,
        "net_return": equity / cash - 1.0,
        "gross_return": (equity + fees + slippage) / cash - 1.0,
        "max_drawdown": drawdown([cash, *(bar.equity for bar in bars)]),
        "stopped": state.account.stopped,
        "positions": {symbol: held.quantity for symbol, held in state.account.positions.items()},
        "fills": len(fills),
        "reports": statuses,
        "traded": value,
        "fees": fees,
        "slippage": slippage,
        "cost_bps": (fees + slippage) / value * 1e4 if value else None,
        "trades": len(closed),
        "win_rate": won / len(closed) if closed else None,
    }


def drawdown(equity: Sequence[float]) -> float:
    """Return the deepest fall below the peak before it, as a share of that peak."""
    values = np.asarray(equity, dtype=np.float64)
    peaks = np.maximum.accumulate(values)
    return float((1.0 - values / peaks).max())


def _trade(legs: Sequence[Fill], *, closed: bool) -> Trade:
    first, rest = legs[0], legs[1:]
    sold = sum(leg.quantity for leg in rest)
    return Trade(
        symbol=first.symbol,
        side="long" if first.side == "buy" else "short",
        prediction_id=first.prediction_id,
        opened_at=first.filled_at,
        closed_at=rest[-1].filled_at if closed else None,
        quantity=first.quantity,
        entry=first.price,
        exit=sum(leg.quantity * leg.price for leg in rest) / sold if rest else None,
        net_pnl=sum(leg.pnl or 0.0 for leg in rest) - sum(leg.fee for leg in legs),
    )
