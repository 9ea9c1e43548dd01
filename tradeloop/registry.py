"""The model registry: an append-only list of lifecycle events per market; the champion is a fold over them.

Every change is one event in one transaction under the market's lock. A change that is made already changes nothing; one
that the present state does not allow is a RegistryError of one line (see `rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from tradeloop import rules
from tradeloop.clock import Clock
from tradeloop.errors import RegistryError
from tradeloop.history import History
from tradeloop.lifecycle import Kind, Lifecycle, ModelEvent, ModelRecord
from tradeloop.routes import Mode
from tradeloop.state.database import Database
from tradeloop.version_facts import VersionFacts, read_facts, write_facts

VERSION_LENGTH = 12

Evidence = Mapping[str, Any] | None


@dataclass(frozen=True)
class Change:
    """The outcome of a change.

    Attributes
    ----------
    record
        The version that was named, as it stands now; of a rollback the one that serves again.
    champion
        The version that serves now.
    previous
        The champion that was left, None where none was.
    changed
        False where it was so already; then no event was written.
    """

    record: ModelRecord
    champion: ModelRecord | None
    previous: ModelRecord | None
    changed: bool


class Registry:
    """The lifecycle of one market's models. Changes of several processes run one after another.

    A version may be named by its version, its bundle's hash, or at least four leading digits of that.

    Parameters
    ----------
    clock
        The market's; events then carry its time too.
    """

    def __init__(self, database: Database, market: str, *, clock: Clock | None = None) -> None:
        self._database = database
        self._market = market
        self._history = History(market, clock)
        self._newest = database.native(self._history.newest)

    def register(
        self,
        bundle_hash: str,
        *,
        version: str | None = None,
        actor: str,
        reason: str,
        evidence: Evidence = None,
        passed: bool,
        facts: VersionFacts | None = None,
    ) -> ModelRecord:
        """Add a version in ``validation`` (it may be promoted) or ``quarantined`` (it may not), with its facts.

        Doing so again changes nothing; neither a quarantine nor an archive is left by registering again.

        Raises
        ------
        RegistryError
            The version's name is taken by another bundle, or the champion would be quarantined.
        """
        version = version or bundle_hash[:VERSION_LENGTH]
        with self._database.write(self._history.lock) as connection:
            state = self._history.state(connection)
            known = state.records.get(bundle_hash)
            taken = next((record for record in state.records.values() if record.version == version), None)
            if known is None and taken is not None:
                raise RegistryError(f"version {version} names another bundle already ({taken.hash[:16]}…)")
            if facts is not None:
                write_facts(connection, self._market, bundle_hash, version=version, facts=facts)
            if known is not None and (passed or not rules.may_quarantine(known)):
                return known
            kind: Kind = "registered" if passed else "quarantined"
            why = {"actor": actor, "reason": reason, "evidence": evidence}
            state.apply(self._history.append(connection, kind, model=bundle_hash, version=version, **why))
            return state.records[bundle_hash]

    def quarantine(self, name: str, *, actor: str, reason: str, evidence: Evidence = None) -> Change:
        """Withdraw a version for good: it never serves or watches again. The champion must be rolled back first."""
        why = {"actor": actor, "reason": reason, "evidence": evidence}
        return self._step("quarantined", name, lambda _, record: rules.may_quarantine(record), **why)

    def stage(
        self, name: str, *, mode: Mode, share: float = 0.0, actor: str, reason: str, evidence: Evidence = None
    ) -> Change:
        """Make a version a challenger, or change how it takes part; see `routes` for what `share` means."""
        why = {"actor": actor, "reason": reason, "evidence": evidence, "mode": mode, "share": float(share)}
        return self._step("staged", name, lambda state, record: rules.may_stage(state, record, mode, share), **why)

    def unstage(self, name: str, *, actor: str, reason: str, evidence: Evidence = None) -> Change:
        """End a challenger's part; it is what it was before it was staged."""
        why = {"actor": actor, "reason": reason, "evidence": evidence}
        return self._step("unstaged", name, lambda _, record: rules.may_unstage(record), **why)

    def promote(
        self,
        name: str,
        *,
        actor: str,
        reason: str,
        evidence: Evidence = None,
        force: bool = False,
        expected_champion: str | None = None,
    ) -> Change:
        """Make a version the champion.

        A version that was rolled back from is promoted again only with `force`; a quarantined or archived one never.

        Parameters
        ----------
        expected_champion
            Hash of the champion that the decision was about: if another one serves by now, nothing is promoted.

        Raises
        ------
        RegistryError
            The version is unknown, ambiguous, quarantined, archived, or was rolled back from; the champion is another.
        """
        why = {"actor": actor, "reason": reason, "evidence": evidence}

        def may(state: Lifecycle, record: ModelRecord) -> bool:
            if allowed := rules.may_promote(record, force=force):
                rules.require_champion(state, expected_champion)
            return allowed

        return self._step("promoted", name, may, **why)

    def rollback(
        self,
        *,
        actor: str,
        reason: str,
        to: str | None = None,
        evidence: Evidence = None,
        expected_champion: str | None = None,
    ) -> Change:
        """Put back the champion before this one, or the former champion that `to` names.

        With `to` or `expected_champion` (as in `promote`) doing it again changes nothing; otherwise it is another step.

        Raises
        ------
        RegistryError
            There is nothing to roll back to; `to` is unknown, ambiguous or never served; the champion is another.
        """
        with self._database.write(self._history.lock) as connection:
            state = self._history.state(connection)
            champion = state.champion
            if champion is None:
                raise RegistryError(f"market {self._market} has no champion: there is nothing to roll back")
            if to is not None:
                done = state.find(to).hash == champion.hash
            else:
                done = expected_champion is not None and expected_champion == self._history.rolled_back(connection)
            if done:
                return Change(champion, champion, None, changed=False)
            rules.require_champion(state, expected_champion)
            target = state.before(champion, to)
            why = {"actor": actor, "reason": reason, "evidence": evidence}
            return self._write(connection, state, "rolled_back", target, **why)

    def demote(self, name: str, *, actor: str, reason: str, evidence: Evidence = None) -> Change:
        """Take a version out of its part: a challenger stops; of a champion, the one before it serves again.

        Unlike one that was rolled back from, a demoted champion may be promoted again without force.

        Raises
        ------
        RegistryError
            The version is unknown or ambiguous, or a champion without one before it.
        """
        why = {"actor": actor, "reason": reason, "evidence": evidence}
        return self._step("demoted", name, rules.may_demote, **why)

    def degrade(self, name: str, *, actor: str, reason: str, evidence: Evidence = None) -> Change:
        """Flag the champion: it serves on, and everybody sees that it is worse than it was."""
        why = {"actor": actor, "reason": reason, "evidence": evidence}
        return self._step("degraded", name, lambda _, record: rules.may_degrade(record), **why)

    def recover(self, name: str, *, actor: str, reason: str, evidence: Evidence = None) -> Change:
        """Take the flag from the champion."""
        why = {"actor": actor, "reason": reason, "evidence": evidence}
        return self._step("recovered", name, lambda _, record: rules.may_recover(record), **why)

    def archive(self, name: str, *, actor: str, reason: str, evidence: Evidence = None) -> Change:
        """Put a version away that takes no part; its bundle may be deleted then."""
        why = {"actor": actor, "reason": reason, "evidence": evidence}
        return self._step("archived", name, lambda _, record: rules.may_archive(record), **why)

    def unarchive(self, name: str, *, actor: str, reason: str, evidence: Evidence = None) -> Change:
        """Take a version out of the archive, to the state that it had before; its bundle must be there again."""
        why = {"actor": actor, "reason": reason, "evidence": evidence}
        return self._step("registered", name, lambda _, record: rules.may_unarchive(record), **why)

    def champion(self) -> ModelRecord | None:
        """Return the version that serves, or None before the first promotion."""
        return self.state().champion

    def served(
        self, symbol: str, at: datetime, *, market: bool = False, feature_time: datetime | None = None
    ) -> ModelRecord | None:
        """Return the version that answered for a symbol at a time, aware, with the state that it had then.

        Parameters
        ----------
        market
            Whether `at` is the market's time; by default it is the wall's.
        feature_time
            The bar that was asked about: A/B arms are drawn by it, without it the champion is meant.
        """
        return self.state(at, market=market).answering(symbol, feature_time)

    def champion_version(self) -> int:
        """Return a number that grows with every event of this market: poll it to notice a change cheaply."""
        with self._database.driver() as connection:
            cursor = connection.cursor()
            cursor.execute(self._newest.text, self._newest.row({}))
            (newest,) = cursor.fetchone() or (None,)
        return int(newest or 0)

    def state(self, at: datetime | None = None, *, market: bool = False) -> Lifecycle:
        """Return where every version stands: now, or `at` a time of the wall (or of the market).

        An event without market time counts as of the market's time of the event before it.
        """
        with self._database.read() as connection:
            if at is None:
                return self._history.state(connection)
            return Lifecycle.of(self._history.until(connection, at, market=market))

    def models(self) -> list[ModelRecord]:
        """Return all versions in the order of their registration."""
        return list(self.state().records.values())

    def find(self, name: str) -> ModelRecord:
        """Return the version that `name` means; raise RegistryError where it means none or several."""
        return self.state().find(name)

    def facts(self) -> dict[str, VersionFacts]:
        """Return what is known of each version's bundle, by its hash."""
        with self._database.read() as connection:
            return read_facts(connection, self._market)

    def events(self) -> list[ModelEvent]:
        """Return the whole history, oldest first."""
        with self._database.read() as connection:
            return self._history.read(connection)

    def _step(self, kind: Kind, name: str, may: Callable[[Lifecycle, ModelRecord], bool], **values: Any) -> Change:
        """Write an event about the version that `name` means, if `may` says that there is something to do."""
        with self._database.write(self._history.lock) as connection:
            state = self._history.state(connection)
            record = state.find(name)
            if not may(state, record):
                return Change(record, state.champion, None, changed=False)
            return self._write(connection, state, kind, record, **values)

    def _write(
        self, connection: Connection, state: Lifecycle, kind: Kind, target: ModelRecord, **values: Any
    ) -> Change:
        """Append the event, with the champion that it leaves."""
        old = state.champion.hash if state.champion else None
        leaves = kind in ("promoted", "rolled_back") or (kind == "demoted" and target.hash == old)
        left = old if leaves else None
        event = self._history.append(
            connection, kind, model=target.hash, version=target.version, previous=left, **values
        )
        state.apply(event)
        return Change(state.records[target.hash], state.champion, state.records[left] if left else None, changed=True)
