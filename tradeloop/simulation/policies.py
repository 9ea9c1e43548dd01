"""The policies that the loop is compared with: never retrain, by the calendar, all the time.

They are what others do: the newest model that was trained serves, at once. With `gated`, only if it passed the gate.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np

from tradeloop.simulation.driver import ACTOR, Stage


class Static:
    """The first model serves for ever."""

    def turn(self, stage: Stage) -> None:
        """Do nothing."""


@dataclass
class Scheduled:
    """Retrain every so often on the newest `window` of time (None: on everything), and serve the result at once."""

    every: timedelta
    window: timedelta | None = None
    gated: bool = False
    _last: datetime | None = field(default=None, init=False)

    def turn(self, stage: Stage) -> None:
        """Retrain if it is time."""
        now = stage.clock.now()
        if self._last is None:
            self._last = now  # the first model has just been trained
        if now - self._last < self.every:
            return
        self._last = now
        since = None if self.window is None else np.datetime64((now - self.window).replace(tzinfo=None), "us")
        trained = stage.train("time_based", since=since)
        if trained is None or (self.gated and not trained.passed):
            return
        version = trained.bundle.version
        stage.registry.register(
            trained.bundle.hash, version=version, actor=ACTOR, reason="by the calendar", passed=True
        )
        if stage.registry.promote(trained.bundle.hash, actor=ACTOR, reason="the newest model", force=True).changed:
            stage.note("promoted", version, "the newest model")
