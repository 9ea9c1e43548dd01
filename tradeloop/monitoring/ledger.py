"""The outcomes in the database: which predictions wait, how they ended, in the order in which that was learned.

A prediction has a row in ``pending`` from the commit that logged it; the transaction that writes its outcome takes the
row away. So a row that is not there any more tells a writer that another one was faster, and nothing has to be searched
for what it may have missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from tradeloop.monitoring.label_span import Labelled
from tradeloop.monitoring.records import Logged, Outcome, Resolved, Status
from tradeloop.state.database import Database
from tradeloop.state.tables import OutcomeRevisionRow, OutcomeRow, OutcomeTotalRow, PendingRow, PredictionRow

_LOCK = "tradeloop.outcomes"
_AT_ONCE = 500
_PAGE = 2_000
_LOGGED = [getattr(PredictionRow, field.name) for field in fields(Logged)]
_OUTCOME = [getattr(OutcomeRow, field.name) for field in fields(Outcome)]
_SPLIT = len(_LOGGED)

Ticket = tuple[int, str]
"""A row of ``pending``: its number and the prediction's id."""


class Past(NamedTuple):
    """What an outcome said, as far as a restatement can change it."""

    seq: int
    feature_time: datetime
    label_end: datetime
    ret: float
    range: float


class Superseded(Exception):
    """Another process wrote outcomes of this market since this one last looked."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How a pending prediction ends; the outcome's `seq` is given when it is written.

    Attributes
    ----------
    ticket
        Number of its row in ``pending``.
    entry, exit
        The prices that the labels assume.
    """

    ticket: int
    prediction: Logged
    outcome: Outcome
    entry: float | None = None
    exit: float | None = None

    @classmethod
    def resolved(cls, ticket: int, prediction: Logged, label: Labelled, *, at: datetime, repeat: bool) -> Ending:
        """Return the ending of a prediction whose labels are known."""
        outcome = Outcome(
            seq=0,
            prediction_id=prediction.id,
            status="resolved",
            reason=None,
            label_end=label.label_end,
            direction=label.direction,
            ret=label.ret,
            range=label.range,
            regime=label.regime,
            revision=0,
            resolved_at=at,
            repeat=repeat,
        )
        return cls(ticket, prediction, outcome, label.entry, label.exit)

    @classmethod
    def unresolved(cls, ticket: int, prediction: Logged, status: Status, reason: str, *, at: datetime) -> Ending:
        """Return the ending of a prediction that never gets an outcome."""
        return cls(
            ticket,
            prediction,
            Outcome(0, prediction.id, status, reason, None, None, None, None, "unknown", 0, at),
        )

    @classmethod
    def revised(cls, before: Resolved, label: Labelled) -> Ending:
        """Return the ending that `before` would have had with other labels."""
        outcome = replace(
            before.outcome,
            label_end=label.label_end,
            direction=label.direction,
            ret=label.ret,
            range=label.range,
            regime=label.regime,
            revision=before.outcome.revision + 1,
        )
        return cls(0, before.prediction, outcome, label.entry, label.exit)


class Ledger:
    """Reads and writes one market's outcomes."""

    def __init__(self, database: Database, market: str) -> None:
        self._database = database
        self._market = market
        mine = PendingRow.market == market
        self._news = select(PendingRow.seq, PendingRow.prediction_id).where(mine).order_by(PendingRow.seq)
        self._waiting = select(func.count()).select_from(PendingRow).where(mine)
        self._insert = database.native(insert(OutcomeRow))
        upsert = postgresql.insert if database.engine.dialect.name == "postgresql" else sqlite.insert
        total = upsert(OutcomeTotalRow)
        self._count = total.on_conflict_do_update(
            index_elements=["market", "status"], set_={"count": OutcomeTotalRow.count + total.excluded.count}
        )

    def news(self, after: int, limit: int) -> tuple[list[Ticket], int]:
        """Return at most `limit` pending predictions with numbers above `after`, and how many are pending in all."""
        with self._database.read() as connection:
            found = connection.execute(self._news.where(PendingRow.seq > after).limit(limit)).all()
            waiting = connection.execute(self._waiting).scalar_one()
        return [(row[0], row[1]) for row in found], waiting

    def pending(self) -> list[Ticket]:
        """Return all pending predictions."""
        with self._database.read() as connection:
            return [(row[0], row[1]) for row in connection.execute(self._news)]

    def read(self, ids: Sequence[str]) -> dict[str, Logged]:
        """Return logged predictions by id."""
        found: dict[str, Logged] = {}
        with self._database.read() as connection:
            for first in range(0, len(ids), _AT_ONCE):
                some = select(*_LOGGED).where(PredictionRow.id.in_(ids[first : first + _AT_ONCE]))
                found |= {row[0]: Logged(*row) for row in connection.execute(some)}
        return found

    def last_seq(self) -> int:
        """Return the number of the market's newest outcome, 0 before the first."""
        with self._database.read() as connection:
            return self._last_seq(connection)

    def write(self, endings: Sequence[Ending], *, after: int) -> list[Outcome]:
        """Write outcomes in the order given, in one transaction, and return them with their numbers.

        Parameters
        ----------
        after
            Number of the newest outcome that the caller knows of.

        Raises
        ------
        Superseded
            There are newer outcomes, or one of the predictions is not pending any more. Nothing was written.
        """
        taken = delete(PendingRow).where(PendingRow.seq.in_([ending.ticket for ending in endings]))
        with self._database.write(lock=_LOCK) as connection:
            if self._last_seq(connection) != after or connection.execute(taken).rowcount != len(endings):
                raise Superseded
            first = (connection.execute(select(func.max(OutcomeRow.seq))).scalar_one() or 0) + 1
            written = [replace(ending.outcome, seq=first + i) for i, ending in enumerate(endings)]
            now = datetime.now(UTC)
            rows = [self._row(e, outcome, now) for e, outcome in zip(endings, written, strict=True)]
            connection.exec_driver_sql(self._insert.text, rows)
            counts = Counter(outcome.status for outcome in written)
            totals = [{"market": self._market, "status": status, "count": n} for status, n in counts.items()]
            connection.execute(self._count, totals)
        return written

    def revise(self, changes: Sequence[tuple[Resolved, Ending]], *, reason: str) -> None:
        """Put each second's outcome in the place of the first's, and keep the first's among the revisions.

        Raises
        ------
        Superseded
            One of them was revised by another process. Nothing was written.
        """
        kept = ("label_end", "direction", "ret", "range")
        now = datetime.now(UTC)
        with self._database.write(lock=_LOCK) as connection:
            for before, after in changes:
                old, new = before.outcome, after.outcome
                same = (OutcomeRow.seq == old.seq) & (OutcomeRow.revision == old.revision)
                values = {name: getattr(new, name) for name in (*kept, "regime", "revision")}
                prices = {"entry_price": after.entry, "exit_price": after.exit}
                if connection.execute(update(OutcomeRow).where(same).values(values | prices)).rowcount != 1:
                    raise Superseded
                past = {name: getattr(old, name) for name in ("prediction_id", "revision", *kept)}
                connection.execute(insert(OutcomeRevisionRow).values(**past, reason=reason, recorded_at=now))

    def replay(self, after: int, until: int) -> Iterator[Resolved]:
        """Yield the resolved predictions with numbers in (after, until], in order, a page at a time."""
        while page := self.resolved(OutcomeRow.seq > after, OutcomeRow.seq <= until, limit=_PAGE):
            yield from page
            after = page[-1].seq

    def by_seq(self, seqs: Sequence[int]) -> list[Resolved]:
        """Return resolved predictions by their numbers, in order."""
        ordered = sorted(seqs)
        pages = (ordered[first : first + _AT_ONCE] for first in range(0, len(ordered), _AT_ONCE))
        return [resolved for page in pages for resolved in self.resolved(OutcomeRow.seq.in_(page))]

    def labels_since(self, symbol: str, since: datetime) -> list[Past]:
        """Return what a symbol's outcomes say whose labels ended since then."""
        wanted = (OutcomeRow.seq, PredictionRow.feature_time, OutcomeRow.label_end, OutcomeRow.ret, OutcomeRow.range)
        found = (
            select(*wanted)
            .join(PredictionRow, PredictionRow.id == OutcomeRow.prediction_id)
            .where(OutcomeRow.market == self._market, OutcomeRow.symbol == symbol, OutcomeRow.label_end >= since)
            .where(OutcomeRow.status == "resolved")
        )
        with self._database.read() as connection:
            return [Past._make(row) for row in connection.execute(found)]

    def resolved(self, *conditions: Any, limit: int | None = None) -> list[Resolved]:
        """Return resolved predictions that meet all conditions, in order."""
        mine = (OutcomeRow.market == self._market) & (OutcomeRow.status == "resolved")
        joined = select(*_LOGGED, *_OUTCOME).join(OutcomeRow, OutcomeRow.prediction_id == PredictionRow.id)
        with self._database.read() as connection:
            found = connection.execute(joined.where(mine, *conditions).order_by(OutcomeRow.seq).limit(limit))
            return [_resolved(row) for row in found]

    def newest_end(self, symbol: str) -> datetime | None:
        """Return the newest end of a label that was resolved for a symbol."""
        newest = select(func.max(OutcomeRow.label_end)).where(
            OutcomeRow.market == self._market, OutcomeRow.symbol == symbol
        )
        with self._database.read() as connection:
            return connection.execute(newest).scalar_one()

    def answered(self, symbol: str, label_end: datetime, feature_time: datetime) -> set[tuple[str, str]]:
        """Return the (model, arm) that an outcome of this question belongs to."""
        same = (OutcomeRow.symbol == symbol) & (OutcomeRow.label_end == label_end)
        found = self.resolved(same, PredictionRow.feature_time == feature_time)
        return {(resolved.prediction.model, resolved.prediction.arm) for resolved in found}

    def _last_seq(self, connection: Connection) -> int:
        newest = select(func.max(OutcomeRow.seq)).where(OutcomeRow.market == self._market)
        return connection.execute(newest).scalar_one() or 0

    def _row(self, ending: Ending, outcome: Outcome, now: datetime) -> Any:
        values = {field.name: getattr(outcome, field.name) for field in fields(Outcome)}
        own = {"market": self._market, "symbol": ending.prediction.symbol, "recorded_at": now}
        row = self._insert.row(values | own | {"entry_price": ending.entry, "exit_price": ending.exit})
        return tuple(row) if isinstance(row, list) else row


def _resolved(row: Row[Any]) -> Resolved:
    return Resolved(Logged(*row[:_SPLIT]), Outcome(*row[_SPLIT:]))
