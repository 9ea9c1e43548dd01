"""The market's volatility regime as the loop sees it: that of most symbols, and since when it holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from tradeloop.monitoring.evidence import RegimeNow
from tradeloop.monitoring.records import Resolved


class MarketRegime:
    """Follows the regimes of resolved predictions: each counts for the bar that it was made at."""

    def __init__(self) -> None:
        self.now = RegimeNow()

    def update(self, batch: Sequence[Resolved]) -> None:
        """Take the outcomes of one feature time; a tie, or bars without a regime, change nothing."""
        counted = Counter(one.outcome.regime for one in batch if one.outcome.regime != "unknown").most_common(2)
        if not counted or (len(counted) == 2 and counted[0][1] == counted[1][1]):
            return
        present = counted[0][0]
        if present != self.now.present:
            previous = None if self.now.present == "unknown" else self.now.present
            self.now = RegimeNow(present, batch[0].prediction.feature_time, previous)

    def state(self) -> dict[str, Any]:
        """Return what `restore` needs."""
        since = self.now.since
        return {"present": self.now.present, "since": since and since.isoformat(), "previous": self.now.previous}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        since = datetime.fromisoformat(state["since"]) if state["since"] else None
        self.now = RegimeNow(str(state["present"]), since, state["previous"])
