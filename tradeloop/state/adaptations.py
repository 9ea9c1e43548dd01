"""Snapshots of online adaptation: appended by the loop, read by the service, taken back by the loop or by a person.

Which one applies to a model is a fold over its rows: a ``snapshot`` takes the place of what was there, a ``rollback``
goes back to an earlier one or to the bundle as it was packaged. A ``hold`` keeps the bundle as it was packaged,
whatever the loop appends, until the ``release``: a person wins.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import Select, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Row

from tradeloop.errors import StoreError
from tradeloop.state.database import Database
from tradeloop.state.tables import AdaptationRow

Kind = Literal["snapshot", "rollback", "hold", "release"]

_TABLE = AdaptationRow.__table__
_NAMESPACE = uuid.UUID("6d0f0a52-7a3d-5b7e-9a0c-3f1f5b8f2f10")
_REASON = 500


class AdaptationStore:
    """One market's snapshots.

    Every method raises StoreError when the database cannot be used.
    """

    def __init__(self, database: Database, market: str) -> None:
        self._database = database
        self._market = market

    def newest(self, model: str) -> tuple[str, dict[str, Any]] | None:
        """Return id and content of the snapshot that applies to a bundle (its hash); None for it as packaged."""
        with self._database.read() as connection:
            if self._held(connection, model):
                return None
            row = connection.execute(self._last(model, "snapshot", "rollback")).one_or_none()
            if row is None:
                return None
            if row.kind == "snapshot":
                return row.id, row.content
            to = row.content["to"]
            return None if to is None else (to, self._snapshot(connection, to).content)

    def history(self, model: str, limit: int) -> list[dict[str, Any]]:
        """Return the newest rows of a bundle, the last first: id, kind, outcome_seq, both times, reason, content."""
        names = ("id", "kind", "outcome_seq", "market_time", "wall_time", "reason", "content")
        query = select(*(_TABLE.c[name] for name in names))
        query = query.where(_TABLE.c.market == self._market, _TABLE.c.model == model)
        query = query.order_by(_TABLE.c.seq.desc()).limit(limit)
        with self._database.read() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def held(self, model: str) -> bool:
        """Return whether a person keeps a bundle as it was packaged."""
        with self._database.read() as connection:
            return self._held(connection, model)

    def get(self, snapshot: str) -> dict[str, Any]:
        """Return a snapshot's content by its id; StoreError if there is none."""
        with self._database.read() as connection:
            content: dict[str, Any] = self._snapshot(connection, snapshot).content
            return content

    def version(self) -> int:
        """Return a number that grows whenever something is appended; cheap enough to ask ten times a second."""
        with self._database.read() as connection:
            statement = select(func.max(_TABLE.c.seq)).where(_TABLE.c.market == self._market)
            return int(connection.execute(statement).scalar() or 0)

    def append(
        self,
        model: str,
        kind: Kind,
        content: Mapping[str, Any],
        *,
        outcome_seq: int,
        market_time: datetime,
        reason: str,
        connection: Connection | None = None,
    ) -> str:
        """Append a row, and return its id, which follows from market, model, kind, content and `outcome_seq`.

        Appending the same again changes nothing, so a turn that is done again after a crash doubles nothing.

        Parameters
        ----------
        model
            Bundle hash.
        content
            A snapshot's, see `tradeloop.adaptation.Content`; of a rollback ``{"to": id or None}``.
        outcome_seq, market_time
            The last outcome that it knows, and the market's time of it.
        connection
            A transaction to take part in; by default one of its own.
        """
        text = json.dumps([self._market, model, kind, outcome_seq, content], sort_keys=True, allow_nan=False)
        identity = str(uuid.uuid5(_NAMESPACE, text))
        values = {
            "id": identity,
            "market": self._market,
            "model": model,
            "kind": kind,
            "outcome_seq": outcome_seq,
            "market_time": market_time,
            "wall_time": datetime.now(UTC),
            "reason": reason[:_REASON],
            "content": dict(content),
        }
        with self._writing(connection) as writer:
            dialect = postgresql if writer.dialect.name == "postgresql" else sqlite
            writer.execute(dialect.insert(AdaptationRow).values(values).on_conflict_do_nothing(index_elements=["id"]))
        return identity

    def rollback(self, model: str, to: str | None = None, *, reason: str) -> bool:
        """Go back to an earlier snapshot of a model, or to the bundle as packaged; False if that applies already.

        Raises
        ------
        StoreError
            `to` is no snapshot of that model.
        """
        with self._database.write(lock=f"adaptations.{self._market}") as connection:
            if to is not None and self._snapshot(connection, to).model != model:
                raise StoreError(f"adaptation {to} is of another model than {model[:12]}")
            last = connection.execute(self._last(model, "snapshot", "rollback")).one_or_none()
            applied = None if last is None else last.id if last.kind == "snapshot" else last.content["to"]
            if applied == to:
                return False
            self._append_by_hand(connection, model, "rollback", reason=reason, content={"to": to})
            return True

    def hold(self, model: str, *, reason: str) -> bool:
        """Keep a bundle as it was packaged until `release`; False if it is held already."""
        return self._switch(model, "hold", reason)

    def release(self, model: str, *, reason: str) -> bool:
        """Let the newest snapshot apply again; False if there is no hold."""
        return self._switch(model, "release", reason)

    def _switch(self, model: str, kind: Literal["hold", "release"], reason: str) -> bool:
        with self._database.write(lock=f"adaptations.{self._market}") as connection:
            if self._held(connection, model) == (kind == "hold"):
                return False
            self._append_by_hand(connection, model, kind, reason=reason, content={})
            return True

    def _append_by_hand(
        self, connection: Connection, model: str, kind: Kind, *, reason: str, content: Mapping[str, Any]
    ) -> None:
        """Append a row whose place is not that of an outcome: it gets the one of the newest row."""
        last = connection.execute(self._last(model, "snapshot", "rollback", "hold", "release")).one_or_none()
        now = datetime.now(UTC)
        values = {
            "id": str(uuid.uuid4()),
            "market": self._market,
            "model": model,
            "kind": kind,
            "outcome_seq": 0 if last is None else last.outcome_seq,
            "market_time": now if last is None else last.market_time,
            "wall_time": now,
            "reason": reason[:_REASON],
            "content": dict(content),
        }
        connection.execute(insert(AdaptationRow).values(values))

    @contextmanager
    def _writing(self, connection: Connection | None) -> Iterator[Connection]:
        if connection is not None:
            yield connection
            return
        with self._database.write() as own:
            yield own

    def _held(self, connection: Connection, model: str) -> bool:
        row = connection.execute(self._last(model, "hold", "release")).one_or_none()
        return row is not None and row.kind == "hold"

    def _last(self, model: str, *kinds: Kind) -> Select[Any]:
        here = (_TABLE.c.market == self._market) & (_TABLE.c.model == model) & _TABLE.c.kind.in_(kinds)
        return select(_TABLE).where(here).order_by(_TABLE.c.seq.desc()).limit(1)

    def _snapshot(self, connection: Connection, snapshot: str) -> Row[Any]:
        here = (_TABLE.c.market == self._market) & (_TABLE.c.id == snapshot) & (_TABLE.c.kind == "snapshot")
        row = connection.execute(select(_TABLE).where(here)).one_or_none()
        if row is None:
            raise StoreError(f"no adaptation of market {self._market} has the id {snapshot!r}")
        return row
