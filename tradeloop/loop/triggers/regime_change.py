"""The market has entered another volatility regime."""

from __future__ import annotations

from typing import ClassVar

from tradeloop.config import parse_interval
from tradeloop.loop.triggers.base import Firing, Trigger
from tradeloop.monitoring.evidence import Evidence


class RegimeChange(Trigger):
    """Fires when one of the named regimes followed another and has lasted for `settled`; once a change."""

    name: ClassVar[str] = "regime_change"
    priority: ClassVar[int] = 30

    def check(self, evidence: Evidence) -> Firing | None:
        """Return a firing if the change is one that counts."""
        regime, config = evidence.regime, self.params.triggers.regime_change
        if regime.since is None or regime.present not in config.regimes:
            return None
        if regime.previous in (None, "unknown", regime.present):
            return None
        if evidence.now - regime.since < parse_interval(config.settled):
            return None
        if evidence.last_training is not None and evidence.last_training.at >= regime.since:
            return None
        reason = f"volatility went from {regime.previous} to {regime.present} at {regime.since.isoformat()}"
        return self.firing(f"{regime.since:%Y%m%dT%H%M%S}:{regime.present}", reason)
