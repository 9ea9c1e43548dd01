"""When each component was last seen, and how it was."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import insert, select, update

from tradeloop.state.database import Database
from tradeloop.state.tables import HeartbeatRow

_TABLE = HeartbeatRow.__table__
_DETAIL = 2000


@dataclass(frozen=True)
class Heartbeat:
    """The last sign of life of a component; `wall_time` is when it was given, aware, UTC."""

    component: str
    state: str
    detail: str
    market_time: datetime | None
    wall_time: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        market_time = self.market_time.isoformat() if self.market_time else None
        return {**vars(self), "market_time": market_time, "wall_time": self.wall_time.isoformat()}


class Heartbeats:
    """The signs of life of one market's components; raises StoreError if the database does not answer."""

    def __init__(self, database: Database, market: str) -> None:
        self._database = database
        self._market = market

    def beat(self, component: str, state: str, detail: str = "", market_time: datetime | None = None) -> None:
        """Note that a component is there, and how it is; `state` is one word of at most 16 letters."""
        row = {"state": state, "detail": detail.replace("\0", "")[:_DETAIL], "market_time": market_time}
        row["wall_time"] = datetime.now(UTC)
        mine = (_TABLE.c.market == self._market, _TABLE.c.component == component)
        with self._database.write(f"tradeloop.heartbeats.{self._market}.{component}") as connection:
            if not connection.execute(update(HeartbeatRow).where(*mine).values(row)).rowcount:
                connection.execute(insert(HeartbeatRow).values(market=self._market, component=component, **row))

    def read(self) -> list[Heartbeat]:
        """Return the last sign of life of each component, by name."""
        query = select(*_COLUMNS).where(_TABLE.c.market == self._market).order_by(_TABLE.c.component)
        with self._database.read() as connection:
            return [Heartbeat(*row) for row in connection.execute(query).all()]


_COLUMNS = tuple(_TABLE.c[name] for name in Heartbeat.__dataclass_fields__)
