"""Actions that were decided and are not known to be done; part of the rollout's state, so that none is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from tradeloop.lifecycle import ModelEvent
from tradeloop.loop.actions import CROWNING, JUDGING, KEY, LEAVING, Action, Kind


class Outbox:
    """What is to be done, what is to be said, and the keys that make each of them one.

    Attributes
    ----------
    champion, seq, news
        What decisions are about: the champion's hash, the newest outcome, the registry's newest event.
    """

    def __init__(self) -> None:
        self.champion: str | None = None
        self.seq = 0
        self.news = 0
        self._waiting: list[Action] = []
        self._said: list[Action] = []

    @property
    def crowning(self) -> bool:
        """Whether a change of the champion waits to be done."""
        return any(action.kind in CROWNING for action in self._waiting)

    def plan(
        self,
        kind: Kind,
        model: str,
        version: str,
        reason: str,
        *,
        now: datetime,
        evidence: Mapping[str, Any] | None = None,
        share: float = 0.0,
    ) -> None:
        """Decide to do something."""
        self._waiting.append(self._action(kind, model, version, reason, now, evidence or {}, share))

    def say(self, kind: Kind, model: str, version: str, reason: str, *, now: datetime) -> None:
        """Put something on the record."""
        self._said.append(self._action(kind, model, version, reason, now, {}, 0.0))

    def about(self, model: str) -> bool:
        """Return whether something about a version waits to be done."""
        return any(action.model == model for action in self._waiting)

    def leaving(self, model: str) -> bool:
        """Return whether a challenger is about to be let go."""
        return any(action.model == model and action.kind in LEAVING for action in self._waiting)

    def remove(self, action: Action) -> None:
        """Take note that an action needs nothing more."""
        self._waiting = [other for other in self._waiting if other.key != action.key]

    def recrown(self, champion: str | None, events: Iterable[ModelEvent], now: datetime) -> None:
        """Drop what was judged against another champion; of what was not done before, say so."""
        done = {event.evidence.get(KEY) for event in events}
        stale = [action for action in self._waiting if action.kind in JUDGING and action.champion != champion]
        self._waiting = [replace(action, champion=champion) for action in self._waiting if action not in stale]
        self.champion = champion
        for action in stale:
            if action.key not in done:
                reason = f"{action.kind} of {action.version} was not carried out: the champion is another by now"
                self.say("overridden", action.model, action.version, reason, now=now)

    def take(self) -> list[Action]:
        """Return what is to be said, once, and what is to be done, each time until it is."""
        said, self._said = self._said, []
        return [*said, *self._waiting]

    def state(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "seq": self.seq,
            "waiting": [action.state() for action in self._waiting],
            "said": [action.state() for action in self._said],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self.seq = int(state["seq"])
        self._waiting = [Action.restore(each) for each in state["waiting"]]
        self._said = [Action.restore(each) for each in state["said"]]

    def _action(
        self,
        kind: Kind,
        model: str,
        version: str,
        reason: str,
        now: datetime,
        evidence: Mapping[str, Any],
        share: float,
    ) -> Action:
        key = f"rollout:{kind}:{model[:16]}:{self.news}:{self.seq}"
        about = (self.champion, reason, dict(evidence), key, now, self.seq, self.news)
        return Action(kind, model, version, *about, share=share)
