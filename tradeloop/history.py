"""The events of one market in the database: read, and appended to; nothing is ever changed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select

from tradeloop.clock import Clock
from tradeloop.lifecycle import Kind, Lifecycle, ModelEvent
from tradeloop.state.tables import ModelEventRow

_TABLE = ModelEventRow.__table__
_LIMITS = {"actor": 64, "reason": 2000}


class History:
    """The lifecycle events of one market; its clocks never run backwards, even where the wall's or the market's do.

    Parameters
    ----------
    clock
        The market's; without one, an event carries the market's time of the event before it.
    """

    def __init__(self, market: str, clock: Clock | None = None) -> None:
        self._market = market
        self._clock = clock
        self._folded = (0, Lifecycle())  # replaced as a whole, never changed: threads may share it

    @property
    def lock(self) -> str:
        """Name of the lock to hold while reading what an append depends on."""
        return f"tradeloop.registry.{self._market}"

    @property
    def newest(self) -> Select[Any]:
        """A query for the number of the newest event."""
        return select(func.max(_TABLE.c.seq)).where(_TABLE.c.market == self._market)

    def read(self, connection: Connection, *, after: int = 0) -> list[ModelEvent]:
        """Return all events, or those after the one with a number, oldest first."""
        query = select(_TABLE).where(_TABLE.c.market == self._market, _TABLE.c.seq > after).order_by(_TABLE.c.seq)
        return [ModelEvent(**row) for row in connection.execute(query).mappings()]

    def state(self, connection: Connection) -> Lifecycle:
        """Return where every version stands; only what happened since the last call is read.

        Nothing is missed: who writes holds the lock until its event can be read, so events appear in their order.
        """
        seen, known = self._folded
        events = self.read(connection, after=seen)
        if events:
            known = known.copy()
            for event in events:
                known.apply(event)
            self._folded = (events[-1].seq, known)
        return known.copy()

    def until(self, connection: Connection, at: datetime, *, market: bool) -> list[ModelEvent]:
        """Return the events up to a time of the wall, or of the market."""
        return [event for event in self.read(connection) if _when(event, market=market) <= at]

    def rolled_back(self, connection: Connection) -> str | None:
        """Return the champion that was left last, if that was by a rollback."""
        left = select(_TABLE.c.kind, _TABLE.c.previous).where(_TABLE.c.market == self._market)
        last = left.where(_TABLE.c.previous.is_not(None)).order_by(_TABLE.c.seq.desc()).limit(1)
        kind, previous = connection.execute(last).one_or_none() or ("", None)
        return previous if kind == "rolled_back" else None

    def append(self, connection: Connection, kind: Kind, **values: Any) -> ModelEvent:
        """Write the next event; an actor or reason that is too long for the table is cut."""
        newest = select(func.max(_TABLE.c.time), func.max(_TABLE.c.market_time)).where(_TABLE.c.market == self._market)
        last, last_in_market = connection.execute(newest).one()
        now = datetime.now(UTC)
        in_market = self._clock.now() if self._clock else last_in_market
        row: dict[str, Any] = {"market": self._market, "kind": kind, "previous": None, "mode": None, "share": None}
        row |= {"time": max(now, last or now)}
        row |= {"market_time": max(in_market, last_in_market or in_market) if in_market else None}
        row |= values
        row |= {name: str(row[name])[:limit] for name, limit in _LIMITS.items()}
        row["evidence"] = dict(row["evidence"] or {})
        key = connection.execute(insert(ModelEventRow).values(row)).inserted_primary_key
        assert key is not None
        return ModelEvent(seq=int(key[0]), **row)


_BEGINNING = datetime.min.replace(tzinfo=UTC)


def _when(event: ModelEvent, *, market: bool) -> datetime:
    return event.market_time or _BEGINNING if market else event.time
