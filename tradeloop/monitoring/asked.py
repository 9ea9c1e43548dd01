"""A person's wish to retrain, over HTTP or the command line: one job in the queue, however often it is sent."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select

from tradeloop.config import Params
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
