"""What went wrong and was nobody's request: kept in the database, so that an operator need not read logs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select, update

from tradeloop.state.database import Database
from tradeloop.state.tables import ErrorRow

_TABLE = ErrorRow.__table__
_LIMITS = {"component": 64, "kind": 64, "message": 2000, "detail": 20_000}


@dataclass(frozen=True)
class Fault:
    """A failure and how often it was met; times are the wall's, aware, UTC."""

    component: str
    kind: str
    message: str
    detail: str | None
    count: int
    first_at: datetime
    last_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**vars(self), "first_at": self.first_at.isoformat(), "last_at": self.last_at.isoformat()}


class Faults:
    """The failures of one market. Every method raises StoreError if the database does not answer."""

    def __init__(self, database: Database, market: str) -> None:
        self._database = database
        self._market = market

    def record(self, component: str, kind: str, message: str, detail: str | None = None) -> Fault:
        """Note a failure; one with the same component, kind and message is counted, with the newest detail.

        What is too long for the table is cut.
        """
        texts = {"component": component, "kind": kind, "message": message, "detail": detail}
        row = {name: text and text.replace("\0", "")[: _LIMITS[name]] for name, text in texts.items()}
        same = [_TABLE.c.market == self._market, *(_TABLE.c[name] == row[name] for name in texts if name != "detail")]
        with self._database.write(f"tradeloop.errors.{self._market}") as connection:
            now = datetime.now(UTC)
            known = connection.execute(select(_TABLE.c.seq).where(*same)).scalar()
            if known is None:
                values = {**row, "market": self._market, "count": 1, "first_at": now, "last_at": now}
                known = connection.execute(insert(ErrorRow).values(values).returning(_TABLE.c.seq)).scalar_one()
            else:
                again = {"count": _TABLE.c.count + 1, "last_at": now, "detail": row["detail"]}
                connection.execute(update(ErrorRow).where(_TABLE.c.seq == known).values(again))
            found = connection.execute(select(*_COLUMNS).where(_TABLE.c.seq == known)).one()
        return Fault(*found)

    def recent(self, limit: int = 50) -> list[Fault]:
        """Return the failures that were met last, newest first."""
        query = select(*_COLUMNS).where(_TABLE.c.market == self._market)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_TABLE.c.last_at.desc(), _TABLE.c.seq.desc()).limit(limit)).all()
        return [Fault(*row) for row in rows]


_COLUMNS = tuple(_TABLE.c[name] for name in Fault.__dataclass_fields__)
