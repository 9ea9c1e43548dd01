"""The last training is too long ago for a market as it is now."""

from __future__ import annotations

from typing import ClassVar

from tradeloop.config import parse_interval
from tradeloop.loop.triggers.base import Firing, Trigger
from tradeloop.monitoring.evidence import Evidence


class TimeBased(Trigger):
    """Fires when the last training is older than the present volatility regime allows.

    The key holds how many such periods have passed, so that a training that failed is asked for again after another
    period. An unknown regime counts as a normal one. Before any training the age is that of the champion.
    """

    name: ClassVar[str] = "time_based"
    priority: ClassVar[int] = 10

    def check(self, evidence: Evidence) -> Firing | None:
        """Return a firing if it is time."""
        last = evidence.last_training.at if evidence.last_training else None
        if last is None:
            if evidence.champion is None:
                return None
            last = evidence.champion.promoted_at
        regime = evidence.regime.present
        config = self.params.triggers.time_based
        text = {"low": config.low, "high": config.high}.get(regime, config.normal)
        periods = (evidence.now - last) // parse_interval(text)
        if periods < 1:
            return None
        days = (evidence.now - last).total_seconds() / 86_400
        reason = f"the last training was {days:.1f} days ago; {text} is the rule in {regime} volatility"
        return self.firing(f"{last:%Y%m%dT%H%M%S}:{periods}", reason)
