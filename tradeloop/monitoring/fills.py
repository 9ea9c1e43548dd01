"""What the bot's orders really paid: fills, each joined to the prediction that it acted on.

A fill is an execution: it buys or sells. The one that opens the trade of a prediction goes the way of its side (long
buys), the one that closes it goes the other way; both name the prediction, and each may come in parts.

Cost is slippage plus fee, in basis points of the value traded, one way. Slippage is how much worse than a reference
the price was: the price that the bot expected, if it says so, else the price at which the labels' trade is entered or
left, once the outcome is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import Connection, Row, Select, insert, select

from tradeloop.errors import FillError
from tradeloop.state.database import Database
from tradeloop.state.tables import FillRow, OutcomeRow, PredictionRow

Side = Literal["buy", "sell"]
FillStatus = Literal[
    "accepted",
    "duplicate",
    "contradicts",
    "unknown_prediction",
    "not_answered",
    "before_prediction",
    "future",
]

_AT_ONCE = 500
_SKEW = timedelta(seconds=5)
"""By so much the bot's clock may be ahead of the market's here."""


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution, as the bot reports it.

    Attributes
    ----------
    fill_id
        The bot's own, unique within a market; 1 to 64 characters.
    quantity, price
        Above zero; in units of the asset, and in quote currency.
    filled_at
        The market's time, aware.
    expected_price
        The price at which the bot decided (the arrival price), above zero.
    fee
        In quote currency; below zero for a rebate.
    pnl
        Profit booked with this fill before fees, in quote currency; None where the bot does not say.

    Raises
    ------
    FillError
        A value breaks one of these rules.
    """

    fill_id: str
    prediction_id: str
    side: Side
    quantity: float
    price: float
    filled_at: datetime
    expected_price: float | None = None
    fee: float = 0.0
    pnl: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.fill_id) <= 64:
            raise FillError(f"a fill_id has 1 to 64 characters, got {len(self.fill_id)}")
        if self.side not in get_args(Side):
            raise FillError(f"fill {self.fill_id}: side must be buy or sell, got {self.side!r}")
        for name in ("quantity", "price", "expected_price"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise FillError(f"fill {self.fill_id}: {name} must be above zero, got {value}")
        for name in ("fee", "pnl"):
            value = getattr(self, name)
            if value is not None and not math.isfinite(value):
                raise FillError(f"fill {self.fill_id}: {name} must be finite, got {value}")
        if self.filled_at.tzinfo is None:
            raise FillError(f"fill {self.fill_id}: filled_at must have a time zone, got {self.filled_at}")


@dataclass(frozen=True, slots=True)
class FillResult:
    """What became of a reported fill.

    Attributes
    ----------
    status
        ``accepted``; ``duplicate``: the very same was reported before, nothing changed; ``contradicts``: another
        content was reported under this id, and that one stays; ``unknown_prediction``; ``not_answered``: the prediction
        only watched, the bot cannot have acted on it; ``before_prediction``; ``future``.
    reason
        One line for a person; None where the fill is recorded.
    slippage_bps
        Basis points by which the price was worse than the reference (below zero: better); None while there is none.
    """

    fill_id: str
    status: FillStatus
    reason: str | None = None
    slippage_bps: float | None = None


@dataclass(frozen=True, slots=True)
class Realised:
    """What the fills of one prediction came to.

    Attributes
    ----------
    notional
        Value bought and sold, quote currency.
    fees
        Quote currency.
    net_pnl
        After fees: of the profits that the bot booked, else of what was paid and received once all is closed; None
        while the trade is open and no profit was booked.
    cost_bps
        Slippage and fees per value traded, one way; None where no fill has a reference.
    closed
        Whether as much was sold as was bought.
    """

    prediction_id: str
    symbol: str
    model: str
    side: str | None
    notional: float
    fees: float
    net_pnl: float | None
    cost_bps: float | None
    closed: bool
    last_fill_at: datetime


class FillBook:
    """Takes up the fills of one market."""

    def __init__(self, database: Database, market: str) -> None:
        self._database = database
        self._market = market

    def report(self, fills: Sequence[Fill], *, now: datetime) -> list[FillResult]:
        """Record what is right, and say of each what became of it, in order.

        All that is accepted is committed together before this returns; reporting the same again changes nothing.

        Parameters
        ----------
        now
            The market's time.
        """
        with self._database.write(lock=f"tradeloop.fills.{self._market}") as connection:
            known = self._known(connection, [fill.fill_id for fill in fills])
            predictions = self._predictions(connection, [fill.prediction_id for fill in fills])
            results, fresh = [], []
            for fill in fills:
                row = predictions.get(fill.prediction_id)
                status, reason = _judge(fill, known.get(fill.fill_id), row, now)
                slippage = None
                if row is not None and status in ("accepted", "duplicate"):
                    slippage = slippage_bps(fill.side, fill.price, _reference(fill.expected_price, fill.side, row))
                if row is not None and status == "accepted":
                    known[fill.fill_id] = fill
                    fresh.append(asdict(fill) | {"market": self._market, "symbol": row.symbol})
                results.append(FillResult(fill.fill_id, status, reason, slippage))
            if fresh:
                connection.execute(insert(FillRow), [row | {"recorded_at": datetime.now(UTC)} for row in fresh])
        return results

    def _known(self, connection: Connection, ids: Sequence[str]) -> dict[str, Fill]:
        columns = [getattr(FillRow, name) for name in Fill.__slots__]
        found = (
            select(*columns).where(FillRow.market == self._market, FillRow.fill_id.in_(some)) for some in _pages(ids)
        )
        return {row.fill_id: Fill(*row) for query in found for row in connection.execute(query)}

    def _predictions(self, connection: Connection, ids: Sequence[str]) -> dict[str, Any]:
        columns: list[Any] = [PredictionRow.id, PredictionRow.symbol, PredictionRow.asked_at, PredictionRow.answered]
        mine = select(*columns, *_REFERENCE).outerjoin(OutcomeRow, OutcomeRow.prediction_id == PredictionRow.id)
        found = (mine.where(PredictionRow.market == self._market, PredictionRow.id.in_(some)) for some in _pages(ids))
        return {row.id: row for query in found for row in connection.execute(query)}


_REFERENCE = (PredictionRow.side.label("told"), OutcomeRow.entry_price, OutcomeRow.exit_price)


def costs(database: Database, market: str, n: int) -> list[float]:
    """Return the cost of the newest fills that have a reference, at most `n`, newest first; basis points, one way."""
    query = _joined(market).where(FillRow.expected_price.is_not(None) | OutcomeRow.entry_price.is_not(None))
    with database.read() as connection:
        rows = connection.execute(query.order_by(FillRow.filled_at.desc(), FillRow.seq.desc()).limit(n)).all()
    return [cost for row in rows if (cost := _cost_bps(row)) is not None]


def realised(database: Database, market: str, since: datetime) -> list[Realised]:
    """Return what each prediction came to that has had a fill since a time (the market's), oldest last fill first."""
    recent = select(FillRow.prediction_id).where(FillRow.market == market, FillRow.filled_at >= since)
    query = _joined(market).where(FillRow.prediction_id.in_(recent)).order_by(FillRow.filled_at, FillRow.seq)
    groups: dict[str, list[Row[Any]]] = {}
    with database.read() as connection:
        for row in connection.execute(query):
            groups.setdefault(row.prediction_id, []).append(row)
    return sorted((_realised(rows) for rows in groups.values()), key=lambda it: (it.last_fill_at, it.prediction_id))


def slippage_bps(side: Side, price: float, reference: float | None) -> float | None:
    """Return by how many basis points a price is worse than a reference; below zero where it is better."""
    if reference is None:
        return None
    return (price / reference - 1.0) * 1e4 * (1.0 if side == "buy" else -1.0)


def _judge(fill: Fill, known: Fill | None, prediction: Any, now: datetime) -> tuple[FillStatus, str | None]:
    if known is not None:
        if known == fill:
            return "duplicate", None
        other = next(name for name in Fill.__slots__ if getattr(known, name) != getattr(fill, name))
        was, now_said = getattr(known, other), getattr(fill, other)
        return (
            "contradicts",
            f"fill {fill.fill_id} was reported with {other} {was}, now with {now_said}; the first stays",
        )
    if prediction is None:
        return "unknown_prediction", f"no prediction has the id {fill.prediction_id!r}"
    if not prediction.answered:
        return "not_answered", f"prediction {fill.prediction_id} only watched: nobody was told of it"
    if fill.filled_at < prediction.asked_at:
        return "before_prediction", f"filled at {fill.filled_at}, the prediction was asked for at {prediction.asked_at}"
    if fill.filled_at > now + _SKEW:
        return "future", f"filled at {fill.filled_at}, the market's clock says {now}"
    return "accepted", None


def _pages(ids: Sequence[str]) -> Iterable[list[str]]:
    unique = sorted(set(ids))
    return (unique[first : first + _AT_ONCE] for first in range(0, len(unique), _AT_ONCE))


def _joined(market: str) -> Select[Any]:
    columns = (PredictionRow.model, *_REFERENCE)
    return (
        select(*FillRow.__table__.columns, *columns)
        .join(PredictionRow, PredictionRow.id == FillRow.prediction_id)
        .outerjoin(OutcomeRow, OutcomeRow.prediction_id == FillRow.prediction_id)
        .where(FillRow.market == market)
    )


def _reference(expected: float | None, side: str, row: Row[Any]) -> float | None:
    """Return what a fill's price is held against."""
    if expected is not None:
        return expected
    opens = (side == "buy") == (row.told != "short")
    price: float | None = row.entry_price if opens else row.exit_price
    return price


def _cost_bps(row: Row[Any]) -> float | None:
    slippage = slippage_bps(row.side, row.price, _reference(row.expected_price, row.side, row))
    return None if slippage is None else slippage + row.fee / (row.quantity * row.price) * 1e4


def _realised(rows: Sequence[Row[Any]]) -> Realised:
    """Add up the fills of one prediction."""
    bought = sum(row.quantity for row in rows if row.side == "buy")
    sold = sum(row.quantity for row in rows if row.side == "sell")
    values = [row.quantity * row.price for row in rows]
    fees = sum(row.fee for row in rows)
    closed = math.isclose(bought, sold, rel_tol=1e-9)
    booked = [row.pnl for row in rows if row.pnl is not None]
    gross = sum(booked) if booked else None
    if gross is None and closed:
        gross = sum(value if row.side == "sell" else -value for row, value in zip(rows, values, strict=True))
    costed = [(cost, value) for row, value in zip(rows, values, strict=True) if (cost := _cost_bps(row)) is not None]
    return Realised(
        prediction_id=rows[0].prediction_id,
        symbol=rows[0].symbol,
        model=rows[0].model,
        side=rows[0].told,
        notional=sum(values),
        fees=fees,
        net_pnl=None if gross is None else gross - fees,
        cost_bps=sum(cost * value for cost, value in costed) / sum(value for _, value in costed) if costed else None,
        closed=closed,
        last_fill_at=max(row.filled_at for row in rows),
    )
