"""The triggers: one module each, found by discovery, so that a new file here is a new trigger."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence

from tradeloop.config import Params
from tradeloop.loop.triggers.base import Firing, Trigger
from tradeloop.monitoring.evidence import Evidence

__all__ = ["Firing", "Trigger", "available", "check_all", "open_triggers"]


def available() -> dict[str, type[Trigger]]:
    """Return the class of every trigger by name, the most urgent first."""
    found: dict[str, type[Trigger]] = {}
    for module in pkgutil.iter_modules(__path__):
        members = inspect.getmembers(importlib.import_module(f"{__name__}.{module.name}"), inspect.isclass)
        for _, member in members:
            if issubclass(member, Trigger) and not inspect.isabstract(member):
                found[member.name] = member
    return dict(sorted(found.items(), key=lambda pair: (-pair[1].priority, pair[0])))


def open_triggers(params: Params) -> list[Trigger]:
    """Return the triggers that are enabled, the most urgent first."""
    found = [kind(params) for kind in available().values()]
    return [trigger for trigger in found if getattr(params.triggers, trigger.name).enabled]


def check_all(triggers: Sequence[Trigger], evidence: Evidence) -> list[Firing]:
    """Return what fires on this evidence, the most urgent first."""
    firings = [firing for trigger in triggers if (firing := trigger.check(evidence)) is not None]
    return sorted(firings, key=lambda firing: (-firing.priority, firing.dedupe))
