"""Probabilities or intervals are off."""

from __future__ import annotations

from typing import ClassVar

from tradeloop.loop.triggers.base import Firing, Trigger
from tradeloop.monitoring.evidence import Evidence


class CalibrationDrift(Trigger):
    """Fires while the calibration alarm stands, unless online adaptation is there to mend it."""

    name: ClassVar[str] = "calibration_drift"
    priority: ClassVar[int] = 50

    def check(self, evidence: Evidence) -> Firing | None:
        """Return a firing if the alarm stands."""
        alarm = evidence.calibration_alarm
        if alarm is None or self.params.adapt.enabled:
            return None
        return self.firing(str(alarm.seq), f"calibration alarm at outcome {alarm.seq}: {alarm.text}")
