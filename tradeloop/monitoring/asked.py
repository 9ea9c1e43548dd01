"""What a person asks of the retrainings, over HTTP or the command line: one more, one less, no more alarm about one."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select

from tradeloop.config import Params
from tradeloop.errors import JobError
from tradeloop.state.database import Database
from tradeloop.state.jobs import Job, JobQueue
from tradeloop.state.tables import JobRow

TRIGGER = "manual"
PRIORITY = 100


def ask_retraining(
    database: Database,
    params: Params,
    *,
    actor: str,
    reason: str,
    market_time: datetime,
    key: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Job, bool]:
    """Put a retraining into the queue; return the job, and whether it is new.

    Parameters
    ----------
    key
        What makes the same wish, sent twice, one job; by default every call is a new one.
    overrides
        Parameters that this retraining changes, by dotted name.
    """
    queue = JobQueue(database, params.market)
    dedupe = f"{TRIGGER}:{key or uuid.uuid4()}"
    job = queue.enqueue(
        TRIGGER,
        PRIORITY,
        f"{actor} asked: {reason}",
        {"overrides": dict(overrides or {}), "actor": actor},
        dedupe=dedupe,
        market_time=market_time,
        max_attempts=params.retrain.attempts,
    )
    if job is not None:
        return job, True
    known = select(JobRow.id).where(JobRow.market == params.market, JobRow.dedupe == dedupe)
    with database.read() as connection:
        return queue.get(connection.execute(known).scalar_one()), False


def cancel(database: Database, market: str, name: str, *, actor: str, reason: str) -> tuple[Job, bool]:
    """Withdraw a job that waits or runs; return it, and whether that is new.

    Raises
    ------
    JobError
        `name` is no job's id, nor the beginning of one only; or the job has ended.
    """
    queue = JobQueue(database, market)
    known = queue.find(name)
    if known.state == "cancelled":
        return known, False
    job = queue.cancel(known.id, actor=actor, reason=reason)
    if job.state != "cancelled":
        raise JobError(f"job {job.id} has {job.state}: only one that waits or runs can be cancelled")
    return job, True


def acknowledge(database: Database, market: str, name: str, *, actor: str) -> tuple[Job, bool]:
    """Note that a person knows of a failed job; return it, and whether that is new. Errors as `cancel`."""
    queue = JobQueue(database, market)
    known = queue.find(name)
    if known.state != "failed":
        raise JobError(f"job {known.id} is {known.state}: only a failed one can be acknowledged")
    return queue.acknowledge(known.id, actor=actor), known.acknowledged_at is None
