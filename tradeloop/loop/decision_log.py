"""The decision record: rows of ``retraining_log``, and the jobs that go with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from tradeloop.config import Params
from tradeloop.loop.triggers.base import Firing
from tradeloop.state.job import Job
from tradeloop.state.jobs import JobQueue
from tradeloop.state.tables import RetrainingLogRow


@dataclass(frozen=True, slots=True)
class Decision:
    """One row of the log, and the job that it asks for.

    Attributes
    ----------
    kind
        A trigger's name, ``diagnosis`` or ``turn``.
    decision
        ``train``, ``wait`` (the firing may still be granted), ``hold`` (not as long as the diagnosis stands),
        ``nothing``, or a remedy.
    firing
        What to train, if `decision` is ``train``.
    supersedes
        Id of a job that was asked for earlier and learns from rows that are known to mislead by now: cancel it.
    """

    kind: str
    decision: str
    reason: str
    dedupe: str
    market_time: datetime
    outcome_seq: int
    evidence: Mapping[str, Any]
    firing: Firing | None = None
    supersedes: str | None = None


def write(
    connection: Connection, decisions: Sequence[Decision], *, queue: JobQueue, params: Params
) -> list[tuple[Decision, Job]]:
    """Write decisions and enqueue their jobs in the caller's transaction; return those jobs that are new.

    What was written before, told by its key, is left as it is: doing it again after a crash changes nothing.
    """
    made: list[tuple[Decision, Job]] = []
    for decision in decisions:
        same = (RetrainingLogRow.market == params.market, RetrainingLogRow.dedupe == decision.dedupe)
        known = select(RetrainingLogRow.seq).where(*same)
        if connection.execute(known).first() is not None:
            continue
        job = None
        if decision.firing is not None:
            job = queue.enqueue(
                decision.firing.trigger,
                decision.firing.priority,
                decision.reason,
                decision.evidence,
                dedupe=decision.dedupe,
                market_time=decision.market_time,
                max_attempts=params.retrain.attempts,
                connection=connection,
            )
            if job is not None:
                made.append((decision, job))
        row = {
            "market": params.market,
            "market_time": decision.market_time,
            "wall_time": datetime.now(UTC),
            "outcome_seq": decision.outcome_seq,
            "dedupe": decision.dedupe,
            "kind": decision.kind,
            "decision": decision.decision,
            "reason": decision.reason[:2000],
            "evidence": dict(decision.evidence),
            "job_id": job.id if job is not None else None,
        }
        connection.execute(insert(RetrainingLogRow).values(row))
    return made
