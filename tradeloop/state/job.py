"""A retraining that was asked for, and an attempt at it, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

State = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class Job:
    """A retraining that was asked for; the columns of the table ``jobs``."""

    id: str
    market: str
    dedupe: str
    trigger: str
    priority: int
    reason: str
    evidence: Mapping[str, Any]
    state: State
    attempts: int
    max_attempts: int
    not_before: datetime | None
    market_time: datetime
    created_at: datetime
    started_at: datetime | None = None
    seen_at: datetime | None = None
    ended_at: datetime | None = None
    owner: str | None = None
    result: Mapping[str, Any] | None = None
    error: str | None = None
    acknowledged_at: datetime | None = None
    acknowledged_by: str | None = None

    @property
    def overrides(self) -> dict[str, Any]:
        """Parameters that this retraining changes, by dotted name."""
        return dict(self.evidence.get("overrides") or {})

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return jsonable(vars(self))


@dataclass(frozen=True)
class Attempt:
    """What is known of one attempt at training: code, data, parameters, cost and what came of it.

    `params` are those that differ from the project's, by dotted name; `model` is a bundle hash; `verdict` is ``pass``
    or ``fail``, the gate's; `cpu_seconds` and `peak_mib` are of all its processes together.
    """

    name: str | None = None
    git_revision: str | None = None
    data_hash: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    verdict: str | None = None
    cpu_seconds: float | None = None
    peak_mib: float | None = None


def jsonable(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return `row` with its times as ISO 8601."""
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
