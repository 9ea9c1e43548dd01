"""What a trigger is: a name, a priority, and a check of the evidence."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

from tradeloop.config import Params, parse_interval
from tradeloop.errors import ConfigError
from tradeloop.monitoring.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Firing:
    """A trigger's wish to retrain.

    Attributes
    ----------
    priority
        The greater, the sooner.
    dedupe
        Made from the evidence alone: the same cause gives the same key, however often it is looked at.
    overrides
        Parameters by dotted name that the retraining changes.
    cooldown
        Least time since the same trigger's last retraining; None for none.
    unbounded
        Whether cooldowns, budget and patience do not count: a person asked.
    """

    trigger: str
    priority: int
    reason: str
    dedupe: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    cooldown: timedelta | None = None
    unbounded: bool = False


@dataclass(frozen=True)
class Trigger(ABC):
    """Asks for a retraining when the evidence says so.

    A trigger remembers nothing: it fires at every turn at which its cause holds, under the same key. What becomes of
    that is for `tradeloop.loop.decisions` to say. Its parameters are ``triggers.<name>``.
    """

    params: Params

    name: ClassVar[str]
    priority: ClassVar[int]

    def __post_init__(self) -> None:
        """Refuse parameters that cannot be used, before anything depends on them (ConfigError)."""
        if not hasattr(self.params.triggers, self.name):
            raise ConfigError(f"trigger {self.name!r} needs a block of parameters, triggers.{self.name}")

    @abstractmethod
    def check(self, evidence: Evidence) -> Firing | None:
        """Return the wish, or None."""

    def firing(self, dedupe: str, reason: str, overrides: Mapping[str, Any] | None = None) -> Firing:
        """Return a firing of this trigger; its name is put before the key."""
        cooldown: str | None = getattr(self.params.triggers, self.name).cooldown
        span = None if cooldown is None else parse_interval(cooldown)
        return Firing(self.name, self.priority, reason, f"{self.name}:{dedupe}", overrides or {}, span)
