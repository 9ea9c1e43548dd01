"""The features are no longer what the model was trained on."""

from __future__ import annotations

from typing import ClassVar

from tradeloop.loop.triggers.base import Firing, Trigger
from tradeloop.monitoring.diagnosis import newest_window
from tradeloop.monitoring.evidence import Evidence


class DataDrift(Trigger):
    """Fires while at least `share` of the features have drifted; trains on the newest rows.

    Once an episode, and again when it has come to be twice, three times that share.
    """

    name: ClassVar[str] = "data_drift"
    priority: ClassVar[int] = 40

    def check(self, evidence: Evidence) -> Firing | None:
        """Return a firing if enough features have drifted."""
        config = self.params.triggers.data_drift
        if evidence.drifted_share < config.share:
            return None
        since = evidence.drift.get("since")
        reason = f"{evidence.drifted_share:.0%} of the features have drifted ({config.share:.0%} count), since {since}"
        dedupe = f"{since}:{int(evidence.drifted_share / config.share)}"
        return self.firing(dedupe, reason, newest_window(config.recent_rows, evidence.now, self.params))
