"""A model's life as a fold over its events, and what may happen to it next; pure, no database.

``validation`` (it passed the gate) or ``quarantined`` (it did not, or was withdrawn) → ``staging`` (a challenger) →
``production`` (the champion), which may be flagged ``degraded`` → ``retired`` (another one was promoted, or it was
demoted) or ``rolled_back``. What takes no part may be ``archived``. A version that leaves ``staging`` or the archive
goes back to where it was before: a quarantine, or a rollback, is not forgotten on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Literal, Self

from tradeloop.errors import RegistryError
from tradeloop.routes import Mode, Route, pick

Kind = Literal[
    "registered",
    "quarantined",
    "staged",
    "unstaged",
    "promoted",
    "rolled_back",
    "demoted",
    "degraded",
    "recovered",
    "archived",
]
State = Literal["validation", "staging", "production", "degraded", "retired", "rolled_back", "archived", "quarantined"]
SERVING: tuple[State, ...] = ("production", "degraded")
"""States of a champion."""

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
        Hash of the champion that was left, if one was.
    mode, share
        Of ``staged``: how it takes part.
    time
        Wall time, aware, UTC; never decreases from event to event.
    market_time
        The market's time, None where whoever acted had no clock of the market.
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
    mode: Mode | None = None
    share: float | None = None
    market_time: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            **vars(self),
            "time": self.time.isoformat(),
            "market_time": _text(self.market_time),
            "evidence": dict(self.evidence),
        }


@dataclass(frozen=True)
class ModelRecord:
    """A version as its events left it.

    Attributes
    ----------
    since, actor, reason
        Of the last event that changed its state.
    before
        In ``staging`` and ``archived``: the state that it goes back to.
    promoted_at, promoted_in_market
        When it last became champion, by the wall's and by the market's clock; None if it never served.
    evidence
        What it was registered with.
    """

    hash: str
    version: str
    state: State
    since: datetime
    registered_at: datetime
    promoted_at: datetime | None
    actor: str
    reason: str
    evidence: Mapping[str, Any]
    before: State | None = None
    promoted_in_market: datetime | None = None

    @property
    def served(self) -> bool:
        """Whether it has ever been champion."""
        return self.promoted_at is not None

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            **vars(self),
            "since": self.since.isoformat(),
            "registered_at": self.registered_at.isoformat(),
            "promoted_at": _text(self.promoted_at),
            "promoted_in_market": _text(self.promoted_in_market),
            "evidence": dict(self.evidence),
        }


@dataclass
class Lifecycle:
    """The present of one market's models.

    Attributes
    ----------
    records
        Every version by hash, in the order of registration.
    line
        The champions in the order in which one could step back through them; its last is the champion.
    routes
        The challengers, in the order in which they were staged.
    """

    records: dict[str, ModelRecord] = field(default_factory=dict)
    line: list[str] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    market: str = ""

    @classmethod
    def of(cls, events: Iterable[ModelEvent]) -> Self:
        """Return the state after `events`, given oldest first."""
        state = cls()
        for event in events:
            state.apply(event)
        return state

    @property
    def champion(self) -> ModelRecord | None:
        """The version that serves, in production or degraded."""
        return self.records[self.line[-1]] if self.line else None

    def copy(self) -> Self:
        """Return the same state, free to go another way."""
        return replace(self, records=dict(self.records), line=list(self.line), routes=list(self.routes))

    def route(self, model: str) -> Route | None:
        """Return how a version takes part as a challenger, or None."""
        return next((route for route in self.routes if route.model == model), None)

    def answering(self, symbol: str, feature_time: datetime | None) -> ModelRecord | None:
        """Return the version whose answer a question gets: see `routes` for the draw; without champion none."""
        if not self.line:
            return None
        route = pick(self.routes, self.market, symbol, feature_time)
        return self.champion if route is None else self.records[route.model]

    def apply(self, event: ModelEvent) -> None:
        """Take the next event into account."""
        self.market = event.market
        match event.kind:
            case "registered":
                known = self.records.get(event.model)
                self._set(event, event.model, known.before or known.state if known else "validation")
            case "quarantined":
                self._leave(event.model)
                self._set(event, event.model, "quarantined")
            case "staged":
                self._stage(event)
            case "unstaged":
                self._return(event)
            case "promoted" | "rolled_back":
                self._crown(event)
            case "demoted":
                self._demote(event)
            case "degraded":
                self._set(event, event.model, "degraded")
            case "recovered":
                self._set(event, event.model, "production")
            case "archived":
                self._set(event, event.model, "archived", before=self.records[event.model].state)

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
        """Return the former champion to go back to: the one that `to` names, or the last that may serve."""
        if to is None:
            if (previous := self._predecessor()) is None:
                raise RegistryError(f"{champion.version} has no champion before it: there is nothing to roll back to")
            return self.records[previous]
        target = self.find(to)
        if target.hash == champion.hash:
            raise RegistryError(f"{target.version} is the champion already")
        if _withdrawn(target) or not target.served:
            raise RegistryError(f"cannot roll back to {target.version}, which is {target.state}: it must have served")
        return target

    def _predecessor(self) -> str | None:
        """Return the last champion before this one that may serve."""
        return next((model for model in reversed(self.line[:-1]) if not _withdrawn(self.records[model])), None)

    def _stage(self, event: ModelEvent) -> None:
        """Add a challenger, or change how it takes part; its place among the others stays."""
        assert event.mode is not None
        route = Route(event.model, event.version, event.mode, event.share or 0.0, event.time)
        record = self.records[event.model]
        if record.state == "staging":
            self.routes = [route if old.model == event.model else old for old in self.routes]
        else:
            self.routes = [*self.routes, route]
        self._set(event, event.model, "staging", before=record.before or record.state)

    def _return(self, event: ModelEvent) -> None:
        self._leave(event.model)
        self._set(event, event.model, self.records[event.model].before or "validation")

    def _crown(self, event: ModelEvent) -> None:
        back = event.kind == "rolled_back"
        if self.line:
            self._set(event, self.line[-1], "rolled_back" if back else "retired")
        if back:
            end = self.line.index(event.model) if event.model in self.line else len(self.line) - 1
            self.line = self.line[:end]
        self._leave(event.model)
        self.line = [*(model for model in self.line if model != event.model), event.model]
        self._serve(event, event.model)

    def _demote(self, event: ModelEvent) -> None:
        if event.previous is None:
            self._return(event)
            return
        previous = self._predecessor()
        assert previous is not None
        self._set(event, event.model, "retired")
        self._leave(previous)
        self.line = self.line[: self.line.index(previous) + 1]
        self._serve(event, previous)

    def _serve(self, event: ModelEvent, model: str) -> None:
        self._set(event, model, "production")
        self.records[model] = replace(self.records[model], promoted_at=event.time, promoted_in_market=event.market_time)

    def _leave(self, model: str) -> None:
        self.routes = [route for route in self.routes if route.model != model]

    def _set(self, event: ModelEvent, model: str, state: State, *, before: State | None = None) -> None:
        old = self.records.get(model)
        if old is None:
            old = ModelRecord(
                hash=model,
                version=event.version,
                state=state,
                since=event.time,
                registered_at=event.time,
                promoted_at=None,
                actor=event.actor,
                reason=event.reason,
                evidence=event.evidence,
            )
        self.records[model] = replace(
            old, state=state, since=event.time, actor=event.actor, reason=event.reason, before=before
        )


def _withdrawn(record: ModelRecord) -> bool:
    return record.state in ("quarantined", "archived")


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
