"""Much has happened that the champion was not trained on."""

from __future__ import annotations

from typing import ClassVar

from tradeloop.loop.triggers.base import Firing, Trigger
from tradeloop.monitoring.evidence import Evidence


class NewData(Trigger):
    """Fires once for every `bars` bars beyond the champion's newest training row."""

    name: ClassVar[str] = "new_data"
    priority: ClassVar[int] = 20

    def check(self, evidence: Evidence) -> Firing | None:
        """Return a firing if there are enough."""
        bars, champion = self.params.triggers.new_data.bars, evidence.champion
        if champion is None or evidence.new_bars < bars:
            return None
        reason = f"{evidence.new_bars} bars since {champion.version} was trained ({bars} count)"
        return self.firing(f"{champion.hash[:16]}:{evidence.new_bars // bars}", reason)
