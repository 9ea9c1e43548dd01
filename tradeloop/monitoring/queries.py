"""What the API, the command line and the report ask of live performance and outcomes; light to import.

Nothing here counts or scans millions of rows: the newest windows and the totals of outcomes are kept as they change,
and histories are read along an index, newest first, up to a limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, select

from tradeloop.state.database import Database
from tradeloop.state.tables import (
    OutcomeRow,
    OutcomeTotalRow,
    PendingRow,
    PerformanceNewestRow,
    PerformanceWindowRow,
    PredictionRow,
)

ALL = "*"
_HASH = 64
_KEY = ("model", "symbol", "regime", "arm", "window")
_SHOWN = (*_KEY, "as_of", "outcome_seq", "count", "metrics")
_OUTCOME = (
    *("seq", "prediction_id", "symbol", "status", "reason", "label_end", "direction", "ret", "range", "regime"),
    *("entry_price", "exit_price", "repeat", "revision", "resolved_at"),
)
_FORECAST = (
    *("model", "arm", "answered", "asked_at", "feature_time", "verdict", "side", "p_up", "latency"),
    *("ret_low", "ret_high", "range_low", "range_high"),
)

Json = dict[str, Any]


def performance(
    database: Database,
    market: str,
    *,
    model: str | None = None,
    symbol: str | None = None,
    arm: str | None = None,
    regime: str | None = None,
    window: str | None = None,
    since: datetime | None = None,
    limit: int = 500,
) -> list[Json]:
    """Return performance windows as columns by name, ordered by model, symbol, regime, arm and window.

    Parameters
    ----------
    model
        A hash, or the beginning of one (a version).
    symbol, arm, regime
        A value, or ``*`` for the windows over all of them. None: whatever there is; with `since`, ``*``.
    window
        ``n:200`` or ``t:30d``; None: whatever there is.
    since
        None: the newest row of each key. A market's time: every row from then on, newest first within a window.
    limit
        The most rows; with `since`, of each window.
    """
    asked = {"symbol": symbol, "arm": arm, "regime": regime, "window": window}
    with database.read() as connection:
        if since is None:
            rows = _newest(connection, market, model, asked, limit)
        else:
            rows = _history(connection, market, model, asked, since=since, limit=limit)
    return [dict(zip(_SHOWN, row, strict=True)) for row in rows]


def outcomes(
    database: Database,
    market: str,
    *,
    symbol: str | None = None,
    after_seq: int = 0,
    limit: int = 100,
) -> list[Json]:
    """Return how predictions ended, the last learned first, each with what was forecast (``forecast_ret``, …).

    Parameters
    ----------
    symbol
        Only its resolved ones, those of the newest bars first.
    after_seq
        Only those with a higher number.
    """
    columns = [getattr(OutcomeRow, name) for name in _OUTCOME] + [getattr(PredictionRow, name) for name in _FORECAST]
    columns += [PredictionRow.ret.label("forecast_ret"), PredictionRow.range.label("forecast_range")]
    query = select(*columns).outerjoin(PredictionRow, PredictionRow.id == OutcomeRow.prediction_id)
    query = query.where(OutcomeRow.market == market)
    newest: tuple[ColumnElement[Any], ...] = (OutcomeRow.seq.desc(),)
    if symbol is None:
        query = query.where(OutcomeRow.seq > after_seq)
    else:
        # The sum keeps a planner from walking along the numbers of all symbols.
        query = query.where(OutcomeRow.symbol == symbol, OutcomeRow.label_end.is_not(None))
        query = query.where(OutcomeRow.seq + 0 > after_seq)
        newest = (OutcomeRow.label_end.desc(), OutcomeRow.seq.desc())
    with database.read() as connection:
        return [dict(row._mapping) for row in connection.execute(query.order_by(*newest).limit(limit))]


def summary(database: Database, market: str) -> Json:
    """Return how many predictions were logged and what became of them, and when the newest outcome was learned.

    The totals are those that are kept with each outcome; `accounts.check` holds them against the rows.
    """
    totals = select(OutcomeTotalRow.status, OutcomeTotalRow.count).where(OutcomeTotalRow.market == market)
    waiting = select(func.count()).select_from(PendingRow).where(PendingRow.market == market)
    newest = (
        select(OutcomeRow.seq, OutcomeRow.label_end, OutcomeRow.resolved_at)
        .where(OutcomeRow.market == market)
        .order_by(OutcomeRow.seq.desc())
        .limit(1)
    )
    with database.read() as connection:
        kept = {status: count for status, count in connection.execute(totals)}
        pending = connection.execute(waiting).scalar_one()
        last = connection.execute(newest).one_or_none()
    ended = {status: kept.get(status, 0) for status in ("resolved", "expired", "void")}
    return {
        "logged": sum(ended.values()) + pending,
        **ended,
        "pending": pending,
        "newest": None if last is None else dict(last._mapping),
    }


def open_probabilities(database: Database, market: str, model: str, *, most: int = 2_000) -> list[float]:
    """Return the probabilities of up of a model's newest predictions without outcome; of a bar and symbol the last.

    Parameters
    ----------
    most
        Open predictions, of all models, that are looked at.
    """
    table = PendingRow
    newest = select(table.seq, table.prediction_id).where(table.market == market)
    newest_ones = newest.order_by(table.seq.desc()).limit(most).subquery()
    said = (PredictionRow.symbol, PredictionRow.feature_time, PredictionRow.p_up)
    query = select(*said).join(newest_ones, PredictionRow.id == newest_ones.c.prediction_id)
    query = query.where(PredictionRow.model == model, PredictionRow.p_up.is_not(None)).order_by(newest_ones.c.seq)
    with database.read() as connection:
        found = {(symbol, at): p_up for symbol, at, p_up in connection.execute(query) if p_up is not None}
    return list(found.values())


def _newest(connection: Connection, market: str, model: str | None, asked: Json, limit: int) -> Sequence[Any]:
    table = PerformanceNewestRow
    query = select(*(getattr(table, name) for name in _SHOWN)).where(table.market == market)
    query = query.where(*(getattr(table, name) == value for name, value in asked.items() if value is not None))
    if model is not None:
        query = query.where(*_named(table.model, model))
    return connection.execute(query.order_by(*(getattr(table, name) for name in _KEY)).limit(limit)).all()


def _history(
    connection: Connection, market: str, model: str | None, asked: Json, *, since: datetime, limit: int
) -> list[Any]:
    """Read each window of each model along an index of its own: their number is small, their rows are not."""
    table = PerformanceWindowRow
    whole = {name: value or ALL for name, value in asked.items()} | {"window": asked["window"]}
    rows: list[Any] = []
    for row in _newest(connection, market, model, whole, limit=10_000):
        key = dict(zip(_KEY, row, strict=False))
        query = select(*(getattr(table, name) for name in _SHOWN)).where(table.market == market, table.as_of >= since)
        query = query.where(*(getattr(table, name) == value for name, value in key.items()))
        rows += connection.execute(query.order_by(table.as_of.desc(), table.seq.desc()).limit(limit)).all()
    return rows


def _named(column: Any, model: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for a hash, or for those that begin so, which an index can answer."""
    if len(model) >= _HASH:
        return (column == model,)
    return column >= model, column < model + "\x7f"
