"""Skill is lost: learn what is new as soon as there is enough of it, and again when there is much more."""

from __future__ import annotations

import math
from typing import ClassVar

from tradeloop.loop.triggers.base import Firing, Trigger
from tradeloop.monitoring.diagnosis import parameter, rows_since, window_since
from tradeloop.monitoring.evidence import Evidence


class AccuracyDrop(Trigger):
    """Fires while the skill alarm stands, once a rung of a ladder of rows since the change.

    Rung k is reached at ``min_rows · growth^k`` rows that were made since the estimated change. Each trains on those
    rows alone: the old ones teach what is no longer true. A rung that proves no challenger is followed by one with more
    rows until ``attempts`` are used; the costs of all rungs add up to less than ``growth / (growth - 1)`` times the
    last one's. The ladder ends by itself when a new champion takes over, as the alarm was the old one's.

    Without an estimate of the change there is one retraining an alarm, on all rows.
    """

    name: ClassVar[str] = "accuracy_drop"
    priority: ClassVar[int] = 80

    def __post_init__(self) -> None:
        """Raise ConfigError if a leaf is no parameter; that must not wait for the first drift."""
        super().__post_init__()
        for name in self.params.triggers.accuracy_drop.leaves:
            parameter(self.params, name)

    def check(self, evidence: Evidence) -> Firing | None:
        """Return a firing if a rung is reached."""
        alarm = evidence.skill_alarm
        if alarm is None:
            return None
        if alarm.changed_at is None:
            return self.firing(f"{alarm.seq}:all", f"skill alarm at outcome {alarm.seq}: {alarm.text}")
        config = self.params.triggers.accuracy_drop
        rows = rows_since(alarm.changed_at, evidence.now, self.params)
        if rows < config.min_rows:
            return None
        # The epsilon keeps an exact power from falling to the rung below.
        rung = math.floor(math.log(rows / config.min_rows, config.growth) + 1e-9)
        if rung >= config.attempts:
            return None
        reason = (
            f"skill alarm at outcome {alarm.seq}: {alarm.text}; {rows} rows since the change at "
            f"{alarm.changed_at.isoformat()}, attempt {rung + 1} of {config.attempts}"
        )
        return self.firing(f"{alarm.seq}:{rung}", reason, window_since(alarm.changed_at, rows, self.params))
