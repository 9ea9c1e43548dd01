"""The rules that stand between a firing and a retraining, each with its name and a sentence for the record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tradeloop.config import Triggers, parse_interval
from tradeloop.loop.triggers.base import Firing
from tradeloop.monitoring.diagnosis import Diagnosis
from tradeloop.monitoring.evidence import Evidence
from tradeloop.state.job import Job

DAY = timedelta(days=1)
MAX_DOUBLINGS = 6
_INPUT_FIRST = ("refetch", "abstain", "roll_back")


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a firing is not granted.

    `verdict` is ``wait`` (it may be granted later as things are) or ``hold`` (not while the diagnosis stands).
    """

    verdict: str
    rule: str
    reason: str


def obstacle(
    firing: Firing, evidence: Evidence, diagnosis: Diagnosis, *, jobs: Sequence[Job], config: Triggers
) -> Obstacle | None:
    """Return the first rule that stands against a firing; None: grant it.

    1. Bad or stale input and a rollback come first.
    2. While skill is lost and too few rows were made since, a retraining would learn the old market.
    3. One flight: while a job waits or runs, only a firing of a higher priority is queued behind it.
    4. After failed jobs it waits ``patience``, doubled with every failure in a row, 64-fold at most.
    5. The trigger's own cooldown, then that between any two retrainings, unless this one is more urgent.
    6. The budget of any 24 hours.

    A person's request is held up by 3 alone. Spans count the distance of two times, so that a clock that was set back
    does not stop the loop for as long.
    """
    by_diagnosis = None if firing.unbounded else _by_diagnosis(evidence, diagnosis)
    return (
        by_diagnosis
        or _in_flight(firing, jobs)
        or (None if firing.unbounded else _limits(firing, evidence, jobs, config))
    )


def active_job(jobs: Sequence[Job]) -> Job | None:
    """Return the most urgent job that waits or runs."""
    return max((job for job in jobs if job.state in ("queued", "running")), key=lambda job: job.priority, default=None)


def _by_diagnosis(evidence: Evidence, diagnosis: Diagnosis) -> Obstacle | None:
    if diagnosis.remedy in _INPUT_FIRST:
        return Obstacle("hold", "diagnosis", f"{diagnosis.cause} comes first: {diagnosis.reasons[0]}")
    alarm = evidence.skill_alarm
    if diagnosis.cause == "concept_drift" and alarm and alarm.changed_at and not diagnosis.overrides:
        return Obstacle("hold", "too_few_rows", diagnosis.reasons[-1])
    return None


def _in_flight(firing: Firing, jobs: Sequence[Job]) -> Obstacle | None:
    active = active_job(jobs)
    if active is None or active.priority < firing.priority:
        return None
    return Obstacle("wait", "in_flight", f"job {active.id} ({active.trigger}) is {active.state}")


def _limits(firing: Firing, evidence: Evidence, jobs: Sequence[Job], config: Triggers) -> Obstacle | None:
    failures = _failures(jobs)
    doubled = 2 ** min(max(len(failures) - 1, 0), MAX_DOUBLINGS)
    counted = [job for job in jobs if job.trigger != "manual" and job.state != "cancelled"]
    own = [job for job in counted if job.trigger == firing.trigger]
    as_urgent = [job for job in counted if job.priority >= firing.priority]
    spans = (
        ("patience", f"{len(failures)} failed", failures, parse_interval(config.patience) * doubled),
        ("cooldown", f"the last {firing.trigger}", own, firing.cooldown or timedelta(0)),
        ("cooldown", "the last as urgent", as_urgent, parse_interval(config.cooldown)),
    )
    for rule, what, since, span in spans:
        newest = _newest(since)
        if newest is not None and (left := span - abs(evidence.now - newest)) > timedelta(0):
            return Obstacle("wait", rule, f"{what}, asked for at {newest.isoformat()}: {left} of {span} are left")
    recent = sum(abs(evidence.now - job.market_time) < DAY for job in counted)
    if recent >= config.daily_budget:
        text = f"{recent} retrainings were asked for within 24 hours; the budget is {config.daily_budget}"
        return Obstacle("wait", "budget", text)
    return None


def _failures(jobs: Sequence[Job]) -> list[Job]:
    """Return the failed jobs since the last success that no person has acknowledged."""
    ended = sorted((job for job in jobs if job.state in ("succeeded", "failed")), key=lambda job: job.market_time)
    found: list[Job] = []
    for job in reversed(ended):
        if job.state == "succeeded":
            break
        if job.acknowledged_at is None:
            found.append(job)
    return found


def _newest(jobs: Sequence[Job]) -> datetime | None:
    return max((job.market_time for job in jobs), default=None)
