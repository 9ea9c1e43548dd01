"""The model registry: an append-only list of lifecycle events per market; the champion is a fold over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select

from tradeloop.errors import RegistryError
from tradeloop.lifecycle import Kind, Lifecycle, ModelEvent, ModelRecord
from tradeloop.state.database import Database
from tradeloop.state.tables import ModelEventRow

VERSION_LENGTH = 12

_TABLE = ModelEventRow.__table__


@dataclass(frozen=True)
class Change:
    """The outcome of a promotion or a rollback.

    `changed` is false where the version was the champion already; then no event was written.
    """

    champion: ModelRecord
    previous: ModelRecord | None
    changed: bool


class Registry:
    """The lifecycle of one market's models. Changes of several processes run one after another.

    A version may be named by its version, its bundle's hash, or at least four leading digits of that.
    """

    def __init__(self, database: Database, market: str) -> None:
        self._database = database
        self._market = market
        self._newest = database.native(select(func.max(_TABLE.c.seq)).where(_TABLE.c.market == market))

    def register(
        self,
        bundle_hash: str,
        *,
        version: str | None = None,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any] | None = None,
        passed: bool,
    ) -> ModelRecord:
        """Add a version as ``registered`` (it may be promoted) or ``quarantined`` (it may not).

        Doing so again changes nothing; a quarantine is not lifted by registering again.

        Raises
        ------
        RegistryError
            The version's name is taken by another bundle, or the champion would be quarantined.
        """
        version = version or bundle_hash[:VERSION_LENGTH]
        with self._database.write(self._lock) as connection:
            state = Lifecycle.of(self._history(connection))
            known = state.records.get(bundle_hash)
            if known is not None and (passed or known.state == "quarantined"):
                return known
            if known is not None and known.state == "champion":
                raise RegistryError(f"{known.version} is the champion: roll back before it is quarantined")
            taken = next((record for record in state.records.values() if record.version == version), None)
            if known is None and taken is not None:
                raise RegistryError(f"version {version} names another bundle already ({taken.hash[:16]}…)")
            kind: Kind = "registered" if passed else "quarantined"
            why = {"actor": actor, "reason": reason, "evidence": evidence}
            state.apply(self._append(connection, kind, model=bundle_hash, version=version, **why))
            return state.records[bundle_hash]

    def promote(
        self,
        name: str,
        *,
        actor: str,
        reason: str,
        evidence: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> Change:
        """Make a registered version the champion; where it is that already, nothing happens.

        A version that was rolled back from is promoted again only with `force`; a quarantined one never.

        Raises
        ------
        RegistryError
            The version is unknown, ambiguous, quarantined, or was rolled back from.
        """
        with self._database.write(self._lock) as connection:
            state = Lifecycle.of(self._history(connection))
            record = state.find(name)
            if record.state == "champion":
                return Change(record, None, changed=False)
            if record.state == "quarantined":
                raise RegistryError(f"{record.version} is quarantined and cannot be promoted: {record.reason}")
            if record.state == "rolled_back" and not force:
                raise RegistryError(
                    f"{record.version} was rolled back ({record.reason}): promoting it again needs force"
                )
            why = {"actor": actor, "reason": reason, "evidence": evidence}
            return self._crown(connection, state, "promoted", record, **why)

    def rollback(
        self,
        *,
        actor: str,
        reason: str,
        to: str | None = None,
        evidence: Mapping[str, Any] | None = None,
    ) -> Change:
        """Put back the champion before this one, or the former champion that `to` names.

        Raises
        ------
        RegistryError
            There is nothing to roll back to, or `to` is unknown, ambiguous, the champion, or never served.
        """
        with self._database.write(self._lock) as connection:
            state = Lifecycle.of(self._history(connection))
            if state.champion is None:
                raise RegistryError(f"market {self._market} has no champion: there is nothing to roll back")
            target = state.before(state.champion, to)
            why = {"actor": actor, "reason": reason, "evidence": evidence}
            return self._crown(connection, state, "rolled_back", target, **why)

    def champion(self) -> ModelRecord | None:
        """Return the version that serves, or None before the first promotion."""
        return Lifecycle.of(self.events()).champion

    def champion_at(self, time: datetime) -> ModelRecord | None:
        """Return the version that served at a (wall) time, aware, as it was known then."""
        return Lifecycle.of(event for event in self.events() if event.time <= time).champion

    def champion_version(self) -> int:
        """Return a number that grows with every event of this market: poll it to notice a change cheaply."""
        with self._database.driver() as connection:
            cursor = connection.cursor()
            cursor.execute(self._newest.text, self._newest.row({}))
            (newest,) = cursor.fetchone() or (None,)
        return int(newest or 0)

    def models(self) -> list[ModelRecord]:
        """Return all versions in the order of their registration."""
        return list(Lifecycle.of(self.events()).records.values())

    def find(self, name: str) -> ModelRecord:
        """Return the version that `name` means; raise RegistryError where it means none or several."""
        return Lifecycle.of(self.events()).find(name)

    def events(self) -> list[ModelEvent]:
        """Return the whole history, oldest first."""
        with self._database.read() as connection:
            return self._history(connection)

    @property
    def _lock(self) -> str:
        return f"tradeloop.registry.{self._market}"

    def _history(self, connection: Connection) -> list[ModelEvent]:
        query = select(_TABLE).where(_TABLE.c.market == self._market).order_by(_TABLE.c.seq)
        return [ModelEvent(**row) for row in connection.execute(query).mappings()]

    def _append(self, connection: Connection, kind: Kind, **values: Any) -> ModelEvent:
        """Write the next event; the history's clock never runs backwards, even where the wall's does."""
        last = connection.execute(select(func.max(_TABLE.c.time)).where(_TABLE.c.market == self._market)).scalar()
        now = datetime.now(UTC)
        row: dict[str, Any] = {"market": self._market, "time": max(now, last or now), "kind": kind, "previous": None}
        row |= values
        row["evidence"] = dict(row["evidence"] or {})
        key = connection.execute(insert(ModelEventRow).values(row)).inserted_primary_key
        assert key is not None
        return ModelEvent(seq=int(key[0]), **row)

    def _crown(self, connection: Connection, state: Lifecycle, kind: Kind, target: ModelRecord, **why: Any) -> Change:
        """Write the event that makes `target` the champion."""
        previous = state.champion
        left = previous.hash if previous else None
        event = self._append(connection, kind, model=target.hash, version=target.version, previous=left, **why)
        state.apply(event)
        return Change(state.records[target.hash], state.records[left] if left else None, changed=True)
