"""All that is watched about one champion, from the outcome at which it took over: skill, calibration, drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tradeloop.bundle import Bundle
from tradeloop.config import Params
from tradeloop.monitoring.calibration import CalibrationMonitor
from tradeloop.monitoring.degradation import SkillMonitor
from tradeloop.monitoring.drift import DriftMonitor, ServedRow
from tradeloop.monitoring.records import Resolved

Part = dict[str, Any]

DETAILS_EVERY = 25
"""Outcomes after which details that take a walk over a window are computed again; alarms are always of the moment."""


class ChampionWatch:
    """The monitors of one champion; they begin empty and are measured against its own reference."""

    def __init__(self, bundle: Bundle, params: Params) -> None:
        self.bundle = bundle
        self._skill = SkillMonitor(bundle.reference, params.degradation)
        self._calibration = CalibrationMonitor(bundle.reference, params.degradation)
        self._drift = DriftMonitor(bundle.reference, params.drift)
        self._seen = 0
        self._calibrated: tuple[int, bool, Part] | None = None

    def update(self, batch: Sequence[Resolved], features: NDArray[np.float32]) -> None:
        """Take the champion's resolved predictions of one feature time, with their feature rows (n, d)."""
        self._seen += len(batch)
        self._skill.update(batch)
        self._calibration.update(batch)
        self._drift.update(_served(batch, features))

    def skill(self) -> Part:
        """Return the evidence on skill as `monitoring.evidence.Evidence` reads it."""
        alarm = self._skill.alarm
        found = self._skill.evidence()
        if alarm is None:
            return found | {"alarm": False}
        details = alarm.as_dict()
        text = f"{alarm.alternative} since {alarm.change.isoformat()}, {alarm.outcomes} outcomes"
        told = {"alarm": True, "alarm_seq": alarm.seq, "changed_at": details["change"], "text": text}
        return found | told | {"details": details}

    def calibration(self) -> Part:
        """Return the evidence on calibration, likewise."""
        alarm = self._calibration.alarm
        known = (self._seen // DETAILS_EVERY, alarm is not None)
        if self._calibrated is None or self._calibrated[:2] != known:
            self._calibrated = (*known, self._calibration.evidence())
        found = self._calibrated[2]
        if alarm is None:
            return found | {"alarm": False}
        text = f"{alarm['alternative']} since {alarm['change']}, {alarm['outcomes']} outcomes"
        told = {"alarm": True, "alarm_seq": alarm["seq"], "changed_at": alarm["change"], "text": text}
        return found | told | {"details": alarm}

    @property
    def monitor(self) -> DriftMonitor:
        """The drift watch, for reports."""
        return self._drift

    def drift(self) -> Part:
        """Return the evidence on drift of the features."""
        return self._drift.evidence()

    def state(self) -> Part:
        """Return what `restore` needs."""
        return {
            "model": self.bundle.hash,
            "seen": self._seen,
            "skill": self._skill.state(),
            "calibration": self._calibration.state(),
            "drift": self._drift.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`; raise ValueError if it is that of another model or other parameters."""
        if state["model"] != self.bundle.hash:
            raise ValueError(f"this is the memory of model {state['model'][:12]}, not of {self.bundle.version}")
        self._seen, self._calibrated = int(state["seen"]), None
        self._skill.restore(state["skill"])
        self._calibration.restore(state["calibration"])
        self._drift.restore(state["drift"])


def _served(batch: Sequence[Resolved], features: NDArray[np.float32]) -> list[ServedRow]:
    rows = []
    for resolved, row in zip(batch, features, strict=True):
        said = resolved.prediction
        if said.feature_time is not None and said.p_up is not None and said.range is not None:
            rows.append(ServedRow(said.symbol, said.feature_time, row, said.p_up, said.range))
    return rows
