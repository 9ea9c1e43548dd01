"""Whether the accounts of predictions and outcomes balance.

Every prediction is pending, resolved, expired or void: exactly one of them. `check` looks at the rows themselves, at
every one; `queries.summary` believes the totals that are kept beside them, which is why they are checked too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from tradeloop.state.database import Database
from tradeloop.state.tables import OutcomeRow, OutcomeTotalRow, PendingRow, PredictionRow

_SHOWN = 3


@dataclass(frozen=True)
class Counts:
    """How many predictions of a market were logged, and what has become of them."""

    logged: int
    resolved: int
    expired: int
    void: int
    pending: int


def count(database: Database, market: str) -> Counts:
    """Count the rows, all of them at the same moment."""
    with database.read() as connection:
        return _count(connection, market)


def check(database: Database, market: str) -> list[str]:
    """Return what does not add up, one line each; nothing where all is well."""
    with database.read() as connection:
        counts = _count(connection, market)
        kept = {row.status: row.count for row in connection.execute(_totals(market))}
        found = [_some(connection, text, query) for text, query in _discrepancies(market).items()]
    ended = counts.resolved + counts.expired + counts.void
    problems = [line for line in found if line is not None]
    if counts.logged != ended + counts.pending:
        problems.append(
            f"{counts.logged} predictions were logged, but {counts.resolved} resolved + {counts.expired} expired + "
            f"{counts.void} void + {counts.pending} pending are {ended + counts.pending}"
        )
    for status in ("resolved", "expired", "void"):
        if kept.get(status, 0) != getattr(counts, status):
            problems.append(f"outcome_totals says {kept.get(status, 0)} {status}, there are {getattr(counts, status)}")
    return problems


def _count(connection: Connection, market: str) -> Counts:
    ended = [
        select(func.count()).where(OutcomeRow.market == market, OutcomeRow.status == status).scalar_subquery()
        for status in ("resolved", "expired", "void")
    ]
    logged = select(func.count()).where(PredictionRow.market == market).scalar_subquery()
    pending = select(func.count()).where(PendingRow.market == market).scalar_subquery()
    # One statement sees one state of the database.
    everything: Any = connection.execute(select(logged, *ended, pending)).one()
    return Counts(*everything)


def _totals(market: str) -> Select[Any]:
    return select(OutcomeTotalRow).where(OutcomeTotalRow.market == market)


def _discrepancies(market: str) -> dict[str, Select[Any]]:
    """Return what must not be there, each as the ids of the predictions concerned."""
    outcome = select(OutcomeRow.seq).where(OutcomeRow.prediction_id == PredictionRow.id).exists()
    waits = select(PendingRow.seq).where(PendingRow.prediction_id == PredictionRow.id).exists()
    mine = select(PredictionRow.id).where(PredictionRow.market == market)
    logged_outcome = select(PredictionRow.id).where(PredictionRow.id == OutcomeRow.prediction_id).exists()
    logged_pending = select(PredictionRow.id).where(PredictionRow.id == PendingRow.prediction_id).exists()
    return {
        "have neither an outcome nor are pending": mine.where(~outcome, ~waits),
        "have an outcome and are pending too": mine.where(outcome, waits),
        "have an outcome but were never logged": select(OutcomeRow.prediction_id).where(
            OutcomeRow.market == market, ~logged_outcome
        ),
        "are pending but were never logged": select(PendingRow.prediction_id).where(
            PendingRow.market == market, ~logged_pending
        ),
    }


def _some(connection: Connection, text: str, query: Select[Any]) -> str | None:
    ids = connection.execute(query.limit(_SHOWN + 1)).scalars().all()
    if not ids:
        return None
    more = " and more" if len(ids) > _SHOWN else ""
    return f"predictions that {text}: {', '.join(ids[:_SHOWN])}{more}"
