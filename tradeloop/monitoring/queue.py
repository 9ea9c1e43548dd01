"""Predictions of one symbol that wait for their label to end."""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass, field
from datetime import datetime

from tradeloop.monitoring.feed import Version
from tradeloop.monitoring.records import Logged

Waiting = list[tuple[int, Logged]]
"""Predictions with the numbers of their rows in ``pending``."""


@dataclass
class Queue:
    """Predictions by the time of their features.

    Attributes
    ----------
    times
        Feature times, increasing.
    seen
        The bars that they were last held against; None after one was added.
    """

    times: list[datetime] = field(default_factory=list)
    at: dict[datetime, Waiting] = field(default_factory=dict)
    seen: Version | None = None

    def put(self, ticket: int, prediction: Logged, time: datetime) -> None:
        """Add one; its bars are looked at again."""
        if time not in self.at:
            insort(self.times, time)
            self.at[time] = []
        self.at[time].append((ticket, prediction))
        self.seen = None

    def take(self, until: datetime) -> list[tuple[datetime, Waiting]]:
        """Remove and return those of feature times up to and including `until`, oldest first."""
        count = bisect_right(self.times, until)
        taken = [(time, self.at.pop(time)) for time in self.times[:count]]
        del self.times[:count]
        return taken
