"""All that is known at one turn of the loop, in one frozen record: what diagnosis, triggers and decisions read.

The parts are filled by their owners and kept as these report them, so that the record of a decision shows what it was
made on. The few keys that decisions rest on are read through properties here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import datetime
from typing import Any

import numpy as np

Part = Mapping[str, Any]
_NOTHING: Part = {}


@dataclass(frozen=True, slots=True)
class Champion:
    """Who serves: `promoted_at` and `train_end` (time of the newest training row) are the market's time."""

    hash: str
    version: str
    promoted_at: datetime
    train_end: datetime | None = None


@dataclass(frozen=True, slots=True)
class RegimeNow:
    """The market's volatility regime, since when it holds, and the one before."""

    present: str = "unknown"
    since: datetime | None = None
    previous: str | None = None


@dataclass(frozen=True, slots=True)
class LastTraining:
    """When a training was last asked for (the market's time), and what came of it."""

    at: datetime
    outcome: str


@dataclass(frozen=True, slots=True)
class Request:
    """A person's wish to retrain; `id` makes the same wish twice one."""

    id: str
    actor: str
    reason: str
    overrides: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Alarm:
    """That skill, or calibration, has been lost.

    Attributes
    ----------
    seq
        The outcome at which it was raised; the same for as long as the alarm stands.
    changed_at
        Estimated feature time of the first prediction after the change; None if there is no estimate.
    """

    seq: int
    changed_at: datetime | None
    text: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence of one turn.

    Attributes
    ----------
    now
        The market's time.
    outcome_seq
        The newest outcome that entered.
    predecessor
        Hash of the champion before this one, if it may be rolled back to.
    skill, calibration
        What the watches report; an alarm stands while ``alarm`` is true, with ``alarm_seq``, ``changed_at`` (ISO time
        or null) and ``text``.
    drift
        `tradeloop.monitoring.drift.DriftMonitor.evidence`.
    staleness
        `tradeloop.monitoring.staleness.Staleness.evidence`; under ``late_components`` which heartbeats are missing.
    new_bars
        Bars that have closed since the champion's newest training row: the most of any symbol.
    watch
        The champion compared with its predecessor since its promotion: ``worse``, and the figures behind it.
    costs
        What fills cost in bps of traded value: ``realised``, ``low``, ``high`` and the ``assumed`` that the service
        uses; empty as long as there are too few.
    integrity
        Reliability score of the newest bars by symbol under ``scores``, and ``findings``.
    requests
        A person's, not yet granted.
    """

    now: datetime
    outcome_seq: int
    champion: Champion | None
    predecessor: str | None = None
    skill: Part = field(default_factory=dict)
    calibration: Part = field(default_factory=dict)
    drift: Part = field(default_factory=dict)
    staleness: Part = field(default_factory=dict)
    regime: RegimeNow = RegimeNow()
    new_bars: int = 0
    last_training: LastTraining | None = None
    watch: Part = field(default_factory=dict)
    costs: Part = field(default_factory=dict)
    integrity: Part = field(default_factory=dict)
    requests: tuple[Request, ...] = ()

    @property
    def skill_alarm(self) -> Alarm | None:
        """The champion's skill is lost."""
        return _alarm(self.skill)

    @property
    def calibration_alarm(self) -> Alarm | None:
        """The champion's probabilities or intervals are off."""
        return _alarm(self.calibration)

    @property
    def worse_than_predecessor(self) -> bool:
        """Whether the champion lost against a predecessor that can take over."""
        return self.predecessor is not None and bool(self.watch.get("worse"))

    @property
    def drifted_share(self) -> float:
        """Share of the features that have drifted."""
        return float(self.drift.get("share", 0.0))

    def as_dict(self) -> dict[str, Any]:
        """Return what JSON can hold, without the parts that say nothing; a number that is not finite is null."""
        content: dict[str, Any] = plain(self)
        return {name: part for name, part in content.items() if part not in (None, {}, [], 0, "")}


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: dataclasses as objects, times as ISO text, no number that is not finite."""
    if isinstance(value, str | int | None):  # bool is an int
        return value
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if is_dataclass(value):
        return {one.name: plain(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    raise TypeError(f"evidence may hold numbers, text, times, lists and mappings, got {type(value).__name__}")


def _alarm(part: Part) -> Alarm | None:
    if not part.get("alarm"):
        return None
    changed_at = part.get("changed_at")
    if isinstance(changed_at, str):
        changed_at = datetime.fromisoformat(changed_at)
    return Alarm(int(part.get("alarm_seq", 0)), changed_at, str(part.get("text", "")))
