"""What the rollout does about models: decided in one step, done in another, and never twice.

The decision and its key are stored before anything is done. The key travels into the registry's event, so whoever
starts again after a crash sees there whether it was done, also if somebody undid it since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from tradeloop.errors import RegistryError
from tradeloop.lifecycle import ModelEvent
from tradeloop.loop.decision_log import Decision
from tradeloop.registry import Registry

ACTOR = "loop"
KEY = "action"
"""Under which name the registry's evidence holds an action's key."""

Kind = Literal[
    "stage",  # a challenger that passed the gate begins to shadow
    "canary",  # it is proven, and answers a share of the symbols
    "promote",
    "watch",  # the predecessor of a promoted one shadows it
    "end_watch",
    "rollback",
    "reject",  # a challenger is proven worse
    "give_up",  # nothing was proven in time
    "supersede",  # it makes room for a new challenger
    "refuse",  # from here on only said, not done: a version may not be a challenger
    "adopt",  # a person's challenger is compared too
    "restart",  # another champion: comparisons begin anew
    "left",  # a person took a challenger out
    "overridden",  # a decision that could not be carried out any more
]
CROWNING = ("promote", "rollback")
JUDGING = (*CROWNING, "canary", "reject", "give_up", "watch")
"""What was decided about one champion, and is void against another."""
LEAVING = ("reject", "give_up", "supersede")
_TAKING_PART = ("stage", "canary", "promote", "watch", "rollback")
SAID = ("refuse", "adopt", "restart", "left", "overridden")


@dataclass(frozen=True)
class Action:
    """One decision about one version.

    Attributes
    ----------
    champion
        Hash of the champion that it was decided about; None if there was none.
    share
        Of a canary.
    key
        What makes it one, also when it is decided again after a crash.
    news
        Number of the registry's newest event when it was decided.
    """

    kind: Kind
    model: str
    version: str
    champion: str | None
    reason: str
    evidence: Mapping[str, Any]
    key: str
    market_time: datetime
    outcome_seq: int
    news: int
    share: float = 0.0

    def decision(self) -> Decision:
        """Return the row for the decision record."""
        evidence = {"model": self.model, "version": self.version, "champion": self.champion, **self.evidence}
        return Decision("rollout", self.kind, self.reason, self.key, self.market_time, self.outcome_seq, evidence)

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {**vars(self), "evidence": dict(self.evidence), "market_time": self.market_time.isoformat()}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Self:
        """Return the action that `state` was taken of."""
        return cls(**{**state, "market_time": datetime.fromisoformat(state["market_time"])})


@dataclass(frozen=True)
class Done:
    """What became of an action: `changed` the registry, or `overridden`, one line that says by what."""

    action: Action
    changed: bool
    overridden: str | None = None


Check = Callable[[str], Mapping[str, Any]]
"""Returns what a registry event shall say of a bundle; raises BundleError or SchemaMismatch if it may not serve."""


def carry_out(registry: Registry, action: Action, check: Check) -> bool:
    """Do what was decided, unless that is done; return whether the registry changed.

    Raises
    ------
    RegistryError
        A person has changed things since: the person wins.
    BundleError, SchemaMismatch
        The bundle that is to take part is broken, or the online store does not hold its features.
    """
    since = [event for event in registry.events() if event.seq > action.news]
    if any(event.evidence.get(KEY) == action.key for event in since):
        return False
    _require_undisturbed(action, since)
    found = check(action.model) if action.kind in _TAKING_PART else {}
    evidence = {**found, **action.evidence, KEY: action.key}
    why: dict[str, Any] = {"actor": ACTOR, "reason": action.reason, "evidence": evidence}
    match action.kind:
        case "stage" | "watch":
            return registry.stage(action.model, mode="shadow", **why).changed
        case "canary":
            return registry.stage(action.model, mode="canary", share=action.share, **why).changed
        case "promote":
            return registry.promote(action.model, expected_champion=action.champion, **why).changed
        case "rollback":
            return registry.rollback(to=action.model, expected_champion=action.champion, **why).changed
        case "reject" | "give_up" | "supersede" | "end_watch":
            return registry.unstage(action.model, **why).changed
    return False


def crowning(events: Iterable[ModelEvent]) -> ModelEvent | None:
    """Return the newest event that changed the champion."""
    found = None
    for event in events:
        if event.kind in ("promoted", "rolled_back") or (event.kind == "demoted" and event.previous):
            found = event
    return found


def _require_undisturbed(action: Action, since: Iterable[ModelEvent]) -> None:
    for event in since:
        if event.model == action.model and event.actor != ACTOR:
            raise RegistryError(f"{event.actor} {event.kind.replace('_', ' ')} {event.version} since: {event.reason}")
