"""A model's life as a fold over its events; pure, no database.

``registered`` (it passed the gate) or ``quarantined`` (it did not, or was withdrawn) → ``promoted`` → replaced by
another promotion, or left by a ``rolled_back``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from tradeloop.errors import RegistryError

Kind = Literal["registered", "quarantined", "promoted", "rolled_back"]
State = Literal["registered", "quarantined", "champion", "replaced", "rolled_back"]

_SHORTEST_PREFIX = 4


@dataclass(frozen=True)
class ModelEvent:
    """One line of the history.

    Attributes
    ----------
    model, version
        Bundle hash and version of the model it is about; for ``promoted`` and ``rolled_back`` of the one that serves
        from now on.
    previous
        Hash of the champion that was left, if there was one.
    time
        Wall time, aware, UTC; never decreases from event to event.
    """

    seq: int
    market: str
    time: datetime
    kind: Kind
    model: str
    version: str
    previous: str | None
    actor: str
    reason: str
    evidence: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**vars(self), "time": self.time.isoformat(), "evidence": dict(self.evidence)}


@dataclass(frozen=True)
class ModelRecord:
    """A version as its events left it; `actor` and `reason` are those of the last event that changed its state."""

    hash: str
    version: str
    state: State
    since: datetime
    registered_at: datetime
    promoted_at: datetime | None
    actor: str
    reason: str
    evidence: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        promoted = self.promoted_at.isoformat() if self.promoted_at else None
        times = {"since": self.since.isoformat(), "registered_at": self.registered_at.isoformat()}
        return {**vars(self), **times, "promoted_at": promoted, "evidence": dict(self.evidence)}


@dataclass
class Lifecycle:
    """The present of one market's models.

    `line` holds the champions in the order in which one could step back through them; its last is the champion.
    """

    records: dict[str, ModelRecord] = field(default_factory=dict)
    line: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[ModelEvent]) -> Self:
        """Return the state after `events`, given oldest first."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    @property
    def champion(self) -> ModelRecord | None:
        """The version that serves."""
        return self.records[self.line[-1]] if self.line else None

    def apply(self, event: ModelEvent) -> None:
        """Take the next event into account."""
        if event.kind in ("registered", "quarantined"):
            self._set(event, event.model, event.kind)
            return
        back = event.kind == "rolled_back"
        if self.line:
            self._set(event, self.line[-1], "rolled_back" if back else "replaced")
        if back:
            end = self.line.index(event.model) if event.model in self.line else len(self.line) - 1
            self.line = self.line[:end]
        self.line = [*(model for model in self.line if model != event.model), event.model]
        self._set(event, event.model, "champion")

    def find(self, name: str) -> ModelRecord:
        """Return the version whose hash, version or hash prefix `name` is.

        Raises
        ------
        RegistryError
            None has that name, or several have.
        """
        exact = [record for record in self.records.values() if name in (record.hash, record.version)]
        prefix = [r for r in self.records.values() if len(name) >= _SHORTEST_PREFIX and r.hash.startswith(name)]
        found = exact or prefix
        if len(found) > 1:
            raise RegistryError(f"{name!r} is ambiguous: it begins {', '.join(r.hash[:16] for r in found)}")
        if not found:
            known = ", ".join(record.version for record in self.records.values()) or "none"
            raise RegistryError(f"no version {name!r} is registered (known: {known})")
        return found[0]

    def before(self, champion: ModelRecord, to: str | None) -> ModelRecord:
        """Return the former champion to go back to: the one that `to` names, or the last that is not quarantined."""
        if to is None:
            for model in reversed(self.line[:-1]):
                if self.records[model].state != "quarantined":
                    return self.records[model]
            raise RegistryError(f"{champion.version} has no champion before it: there is nothing to roll back to")
        target = self.find(to)
        if target.hash == champion.hash:
            raise RegistryError(f"{target.version} is the champion already")
        if target.state == "quarantined" or target.promoted_at is None:
            raise RegistryError(f"cannot roll back to {target.version}, which is {target.state}: it must have served")
        return target

    def _set(self, event: ModelEvent, model: str, state: State) -> None:
        old = self.records.get(model)
        self.records[model] = ModelRecord(
            hash=model,
            version=old.version if old else event.version,
            state=state,
            since=event.time,
            registered_at=old.registered_at if old else event.time,
            promoted_at=event.time if state == "champion" else old.promoted_at if old else None,
            actor=event.actor,
            reason=event.reason,
            evidence=old.evidence if old else event.evidence,
        )
