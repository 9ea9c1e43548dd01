"""The outcomes in the database: which predictions wait, how they ended, in the order in which that was learned.

A prediction has a row in ``pending`` from the commit that logged it; the transaction that writes its outcome takes the
row away. So a row that is not there any more tells a writer that another one was faster, and nothing has to be searched
for what it may have missed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import Row, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine.interfaces import DBAPICursor

from tradeloop.monitoring.ending import Ending
from tradeloop.monitoring.records import Logged, Outcome, Resolved
from tradeloop.state.database import Database
from tradeloop.state.tables import OutcomeRevisionRow, OutcomeRow, OutcomeTotalRow, PendingRow, PredictionRow

_LOCK = "tradeloop.outcomes"
_AT_ONCE = 500
_PAGE = 2_000
_LOGGED = [getattr(PredictionRow, field.name) for field in fields(Logged)]
_OUTCOME = [getattr(OutcomeRow, field.name) for field in fields(Outcome)]
_SPLIT = len(_LOGGED)
_REVISED = ("label_end", "direction", "ret", "range")

Ticket = tuple[int, str]
"""A row of ``pending``: its number and the prediction's id."""


class News(NamedTuple):
    """Predictions that became pending, how many are pending in all, and the number of the newest outcome."""

    tickets: list[Ticket]
    waiting: int
    newest: int


class Past(NamedTuple):
    """What an outcome said, as far as a restatement can change it."""

    seq: int
    feature_time: datetime
    label_end: datetime
    ret: float
    range: float


class Superseded(Exception):
    """Another process wrote outcomes of this market since this one last looked."""


class Ledger:
    """Reads and writes one market's outcomes.

    What a turn of the loop always does, looking for news and writing outcomes, speaks to the driver itself.
    """

    def __init__(self, database: Database, market: str) -> None:
        self._database = database
        self._market = market
        self._sqlite = database.engine.dialect.name == "sqlite"
        pending, outcomes = PendingRow.market == bindparam("market"), OutcomeRow.market == bindparam("market")
        tickets = select(PendingRow.seq, PendingRow.prediction_id).where(pending).order_by(PendingRow.seq)
        newest = select(func.max(OutcomeRow.seq))
        last = select(newest.where(outcomes).scalar_subquery(), newest.scalar_subquery())
        upsert = sqlite.insert(OutcomeTotalRow) if self._sqlite else postgresql.insert(OutcomeTotalRow)
        sums = {"count": OutcomeTotalRow.count + upsert.excluded.count}
        self._tickets = tickets.where(PendingRow.seq > bindparam("after"))
        self._news = database.native(self._tickets.limit(bindparam("most")))
        self._waiting = database.native(select(func.count()).select_from(PendingRow).where(pending))
        self._last = database.native(last)
        self._take = database.native(delete(PendingRow).where(PendingRow.seq == bindparam("ticket")))
        self._insert = database.native(insert(OutcomeRow))
        self._total = database.native(upsert.on_conflict_do_update(index_elements=["market", "status"], set_=sums))

    def news(self, after: int, most: int) -> News:
        """Return at most `most` pending predictions with numbers above `after`, and where the market stands."""
        mine = {"market": self._market}
        with self._transaction(writes=False) as cursor:
            cursor.execute(self._news.text, self._news.row(mine | {"after": after, "most": most}))
            found = [(row[0], row[1]) for row in cursor.fetchall()]
            cursor.execute(self._waiting.text, self._waiting.row(mine))
            return News(found, cursor.fetchall()[0][0], self._newest(cursor)[0])

    def pending(self) -> list[Ticket]:
        """Return all pending predictions."""
        with self._database.read() as connection:
            found = connection.execute(self._tickets, {"market": self._market, "after": 0})
            return [(row[0], row[1]) for row in found]

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
        with self._transaction(writes=False) as cursor:
            return self._newest(cursor)[0]

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
        with self._transaction(writes=True) as cursor:
            mine, last = self._newest(cursor)
            cursor.executemany(self._take.text, self._take.rows({"ticket": ending.ticket} for ending in endings))
            if mine != after or cursor.rowcount != len(endings):
                raise Superseded
            written = [ending.outcome(seq) for seq, ending in enumerate(endings, start=last + 1)]
            now = datetime.now(UTC)
            pairs = zip(endings, written, strict=True)
            cursor.executemany(self._insert.text, self._insert.rows(self._values(*pair, now) for pair in pairs))
            counts = Counter(outcome.status for outcome in written).items()
            totals = ({"market": self._market, "status": status, "count": count} for status, count in counts)
            cursor.executemany(self._total.text, self._total.rows(totals))
        return written

    def revise(self, changes: Sequence[tuple[Outcome, Outcome, Ending]], *, reason: str) -> None:
        """Put each second outcome in the place of the first, and keep the first among the revisions.

        Raises
        ------
        Superseded
            One of them was revised by another process. Nothing was written.
        """
        now = datetime.now(UTC)
        with self._database.write(lock=_LOCK) as connection:
            for old, new, ending in changes:
                same = (OutcomeRow.seq == old.seq) & (OutcomeRow.revision == old.revision)
                values = {name: getattr(new, name) for name in (*_REVISED, "revision")} | ending.prices
                if connection.execute(update(OutcomeRow).where(same).values(values)).rowcount != 1:
                    raise Superseded
                past = {name: getattr(old, name) for name in ("prediction_id", "revision", *_REVISED)}
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

    def resolved(self, *conditions: Any, limit: int | None = None) -> list[Resolved]:
        """Return resolved predictions that meet all conditions, in order."""
        found = self._joined(*_LOGGED, *_OUTCOME).where(*conditions).order_by(OutcomeRow.seq).limit(limit)
        with self._database.read() as connection:
            return [_resolved(row) for row in connection.execute(found)]

    def labels_since(self, symbol: str, since: datetime) -> list[Past]:
        """Return what a symbol's outcomes say whose labels ended since then."""
        wanted = (OutcomeRow.seq, PredictionRow.feature_time, OutcomeRow.label_end, OutcomeRow.ret, OutcomeRow.range)
        found = self._joined(*wanted).where(OutcomeRow.symbol == symbol, OutcomeRow.label_end >= since)
        with self._database.read() as connection:
            return [Past._make(row) for row in connection.execute(found)]

    def newest_end(self, symbol: str) -> datetime | None:
        """Return the newest end of a label that was resolved for a symbol."""
        mine = (OutcomeRow.market == self._market) & (OutcomeRow.symbol == symbol)
        with self._database.read() as connection:
            return connection.execute(select(func.max(OutcomeRow.label_end)).where(mine)).scalar_one()

    def answered(self, symbol: str, label_end: datetime, feature_time: datetime) -> set[tuple[str, str]]:
        """Return the (model, arm) that an outcome of this question belongs to."""
        same = (OutcomeRow.symbol == symbol) & (OutcomeRow.label_end == label_end)
        found = self.resolved(same, PredictionRow.feature_time == feature_time)
        return {(resolved.prediction.model, resolved.prediction.arm) for resolved in found}

    def _joined(self, *columns: Any) -> Select[Any]:
        mine = (OutcomeRow.market == self._market) & (OutcomeRow.status == "resolved")
        return (
            select(*columns)
            .join_from(OutcomeRow, PredictionRow, OutcomeRow.prediction_id == PredictionRow.id)
            .where(mine)
        )

    def _newest(self, cursor: DBAPICursor) -> tuple[int, int]:
        """Return the numbers of the market's newest outcome and of the newest of all."""
        cursor.execute(self._last.text, self._last.row({"market": self._market}))
        mine, last = cursor.fetchall()[0]
        return mine or 0, last or 0

    def _values(self, ending: Ending, outcome: Outcome, now: datetime) -> dict[str, Any]:
        values = {name: getattr(outcome, name) for name in Outcome.__slots__} | ending.prices
        return values | {"market": self._market, "symbol": ending.prediction.symbol, "recorded_at": now}

    @contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[DBAPICursor]:
        """Yield the driver's cursor in a transaction; writers of outcomes go one after the other."""
        with self._database.driver() as connection:
            cursor = connection.cursor()
            try:
                if self._sqlite:
                    cursor.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                elif writes:
                    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [_LOCK])
                yield cursor
                connection.commit()
            except BaseException:
                connection.rollback()
                raise


def _resolved(row: Row[Any]) -> Resolved:
    return Resolved(Logged(*row[:_SPLIT]), Outcome(*row[_SPLIT:]))
