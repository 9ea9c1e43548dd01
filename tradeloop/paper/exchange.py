"""The simulated exchange and the account on it: pure functions of bars, targets and rules.

An order placed after a bar's close is filled at the next bar's open, against which slippage is drawn; it gets no more
than a share of that bar's volume, and no more than the account may hold. A position belongs to the prediction that
opened it, until it is closed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal

from tradeloop.config import Paper

Side = Literal["buy", "sell"]

_WORST_BPS = 500.0
_DUST = 1e-12  # of equity


@dataclass(frozen=True, slots=True)
class Quote:
    """One bar as the exchange sees it; `opened_at` is when orders are filled."""

    opened_at: datetime
    closed_at: datetime
    open: float
    close: float
    volume: float


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted of a symbol: long 1, short -1 or nothing 0, and the prediction that says so."""

    side: int
    prediction_id: str


@dataclass(frozen=True, slots=True)
class Position:
    """Units held (short: below zero), the price paid, and the prediction that it was opened for."""

    quantity: float
    price: float
    prediction_id: str
    opened_at: datetime


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution; `pnl` is the profit that it books, before fees, None where it opens a position."""

    fill_id: str
    prediction_id: str
    symbol: str
    side: Side
    quantity: float
    price: float
    expected_price: float
    fee: float
    pnl: float | None
    filled_at: datetime


@dataclass(frozen=True)
class Account:
    """Cash, positions and the marks that they are valued at.

    Attributes
    ----------
    peak
        The highest equity so far.
    stopped
        Whether the drawdown reached its limit: from then on positions are only closed.
    """

    cash: float
    peak: float
    positions: Mapping[str, Position] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    stopped: bool = False

    @classmethod
    def open(cls, cash: float) -> Account:
        """Return an account with nothing but cash."""
        return cls(cash, cash)

    @property
    def equity(self) -> float:
        """Cash and positions at their marks."""
        return self.cash + sum(p.quantity * self.marks[symbol] for symbol, p in self.positions.items())

    @property
    def exposure(self) -> float:
        """Positions at their marks, long and short added up."""
        return sum(abs(p.quantity) * self.marks[symbol] for symbol, p in self.positions.items())


def settle(
    account: Account,
    targets: Mapping[str, Target],
    quotes: Mapping[str, Quote],
    *,
    rules: Paper,
    run: str,
    seed: int,
) -> tuple[Account, list[Fill]]:
    """Fill what the targets ask for at the bars' opens: first what closes, then what opens.

    Parameters
    ----------
    targets
        By symbol. One without a bar now has to wait; a position that has the wanted side already is left alone.
    quotes
        The bars that have closed, by symbol.
    run
        Name of this account's life; fills are called after it, so that the same fill has the same name again.
    seed
        Of the slippage, which follows from seed, symbol, time and leg.
    """
    account = _marked(account, {symbol: quote.open for symbol, quote in quotes.items()})
    fills: list[Fill] = []
    due = [(s, targets[s], quotes[s]) for s in sorted(targets) if s in quotes]
    for symbol, target, quote in due:
        held = account.positions.get(symbol)
        if held is not None and _side(held.quantity) != target.side:
            most = rules.participation * quote.volume
            quantity = min(abs(held.quantity), most)
            leg = _Leg(symbol, -_side(held.quantity), quantity, quote, f"{run}-{_stamp(quote)}-{symbol}-c")
            account, fill = _execute(account, leg, held.prediction_id, rules=rules, seed=seed)
            fills += fill
    for symbol, target, quote in due:
        if target.side and symbol not in account.positions and not account.stopped:
            quantity = _affordable(account, quote, rules)
            leg = _Leg(symbol, target.side, quantity, quote, f"{run}-{_stamp(quote)}-{symbol}-o")
            account, fill = _execute(account, leg, target.prediction_id, rules=rules, seed=seed)
            fills += fill
    return account, fills


def close_bar(account: Account, quotes: Mapping[str, Quote], *, rules: Paper) -> Account:
    """Value the account at the bars' closes; stop it where equity has fallen too far below its peak."""
    account = _marked(account, {symbol: quote.close for symbol, quote in quotes.items()})
    equity = account.equity
    peak = max(account.peak, equity)
    stopped = account.stopped or equity <= (1.0 - rules.stop_drawdown) * peak
    return replace(account, peak=peak, stopped=stopped)


def to_json(account: Account) -> dict[str, Any]:
    """Return an account as JSON holds it."""
    positions = {
        symbol: {
            "quantity": p.quantity,
            "price": p.price,
            "prediction_id": p.prediction_id,
            "opened_at": p.opened_at.isoformat(),
        }
        for symbol, p in account.positions.items()
    }
    plain = {"cash": account.cash, "peak": account.peak, "stopped": account.stopped}
    return {**plain, "positions": positions, "marks": dict(account.marks)}


def from_json(content: Mapping[str, Any]) -> Account:
    """Return the account that `to_json` was given."""
    positions = {
        symbol: Position(p["quantity"], p["price"], p["prediction_id"], datetime.fromisoformat(p["opened_at"]))
        for symbol, p in content["positions"].items()
    }
    return Account(content["cash"], content["peak"], positions, dict(content["marks"]), content["stopped"])


@dataclass(frozen=True, slots=True)
class _Leg:
    symbol: str
    side: int
    quantity: float
    quote: Quote
    name: str


def _marked(account: Account, prices: Mapping[str, float]) -> Account:
    return replace(account, marks={**account.marks, **prices})


def _affordable(account: Account, quote: Quote, rules: Paper) -> float:
    """Return how many units may be opened so that no limit is broken once the worst costs are paid."""
    cost = (1.0 + _worst(rules) / 1e4) * (1.0 + rules.fee_bps / 1e4) - 1.0
    room = min(
        rules.max_position * account.equity / (1.0 + rules.max_position * cost),
        (rules.max_exposure * account.equity - account.exposure) / (1.0 + rules.max_exposure * cost),
        account.cash / (1.0 + 2.0 * cost),
    )
    if room <= _DUST * account.equity:
        return 0.0
    return min(room / quote.open, rules.participation * quote.volume)


def _execute(account: Account, leg: _Leg, prediction_id: str, *, rules: Paper, seed: int) -> tuple[Account, list[Fill]]:
    """Fill one leg: it closes a position, in part or whole, or opens one."""
    if leg.quantity <= 0.0 or (leg.side < 0 and not rules.allow_short and leg.symbol not in account.positions):
        return account, []
    price = leg.quote.open * (1.0 + leg.side * _slippage_bps(leg, rules, seed) / 1e4)
    fee = leg.quantity * price * rules.fee_bps / 1e4
    signed = leg.side * leg.quantity
    held = account.positions.get(leg.symbol)
    positions, pnl = dict(account.positions), None
    if held is None:
        positions[leg.symbol] = Position(signed, price, prediction_id, leg.quote.opened_at)
    else:
        pnl = -signed * (price - held.price)
        if leg.quantity >= abs(held.quantity):
            del positions[leg.symbol]
        else:
            positions[leg.symbol] = replace(held, quantity=held.quantity + signed)
    fill = Fill(
        leg.name,
        prediction_id,
        leg.symbol,
        "buy" if leg.side > 0 else "sell",
        leg.quantity,
        price,
        leg.quote.open,
        fee,
        pnl,
        leg.quote.opened_at,
    )
    return replace(account, cash=account.cash - signed * price - fee, positions=positions), [fill]


def _slippage_bps(leg: _Leg, rules: Paper, seed: int) -> float:
    """Return an exponentially distributed slippage, cut off at ten times its mean: the same for the same leg."""
    digest = hashlib.sha256(f"{seed}/{leg.symbol}/{leg.quote.closed_at.isoformat()}/{leg.name[-1]}".encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 0.5) / 2.0**64
    return min(-math.log(uniform) * rules.slippage_bps, _worst(rules))


def _worst(rules: Paper) -> float:
    return min(10.0 * rules.slippage_bps, _WORST_BPS)


def _side(quantity: float) -> int:
    return 1 if quantity > 0 else -1


def _stamp(quote: Quote) -> str:
    return quote.closed_at.strftime("%Y%m%dT%H%M%S")
