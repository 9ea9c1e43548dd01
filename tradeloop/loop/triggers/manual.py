"""A person asks."""

from __future__ import annotations

from typing import ClassVar

from tradeloop.loop.triggers.base import Firing, Trigger
from tradeloop.monitoring.evidence import Evidence


class Manual(Trigger):
    """Fires for the first request that waits; neither cooldown nor budget hold it up."""

    name: ClassVar[str] = "manual"
    priority: ClassVar[int] = 100

    def check(self, evidence: Evidence) -> Firing | None:
        """Return the first request as a firing."""
        if not evidence.requests:
            return None
        request = evidence.requests[0]
        reason = f"{request.actor} asked: {request.reason}"
        dedupe = f"{self.name}:{request.id}"
        return Firing(self.name, self.priority, reason, dedupe, request.overrides, unbounded=True)
