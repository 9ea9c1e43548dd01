"""The queue of retrainings, and the record of every attempt at one.

A job is ``queued`` → ``running`` → ``succeeded``, ``failed`` or ``cancelled``. Each step is one transaction that names
the state, owner and attempt it starts from, so that of two processes that try the same step one does it and the other
is told. A job whose owner is gone goes back to the queue; its attempts stay counted.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, func, insert, or_, select, update
from sqlalchemy.sql.elements import ColumnElement

from tradeloop.errors import JobError, StoreError
from tradeloop.state.database import Database
from tradeloop.state.job import Attempt, Job, State, jsonable
from tradeloop.state.tables import ExperimentRow, JobRow

__all__ = ["Attempt", "Job", "JobQueue", "State"]

_JOBS = JobRow.__table__
_ATTEMPTS = ExperimentRow.__table__


class JobQueue:
    """The jobs of one market.

    Parameters
    ----------
    concurrent
        How many may run at the same time, whichever process runs them.
    """

    def __init__(self, database: Database, market: str, *, concurrent: int = 1) -> None:
        self._database = database
        self._market = market
        self._concurrent = concurrent
        self._mine = _JOBS.c.market == market
        self._waiting = database.native(select(_JOBS.c.id).where(self._mine, _JOBS.c.state == "queued").limit(1))

    def enqueue(
        self,
        trigger: str,
        priority: int,
        reason: str,
        evidence: Mapping[str, Any],
        *,
        dedupe: str,
        market_time: datetime,
        max_attempts: int,
        not_before: datetime | None = None,
        connection: Connection | None = None,
    ) -> Job | None:
        """Add a job; return None, and change nothing, where `dedupe` was asked for before.

        Parameters
        ----------
        priority
            The greater, the sooner.
        evidence
            JSON; its ``overrides`` are parameters that this retraining changes, by dotted name.
        market_time, not_before
            The market's time of the request, and before which it does not start.
        connection
            A write transaction to take part in.
        """
        job = Job(
            id=str(uuid.uuid4()),
            market=self._market,
            dedupe=dedupe,
            trigger=trigger,
            priority=priority,
            reason=reason[:2000],
            evidence=dict(evidence),
            state="queued",
            attempts=0,
            max_attempts=max_attempts,
            not_before=not_before,
            market_time=market_time,
            created_at=_now(),
        )
        with self._transaction(connection) as used:
            known = used.execute(select(_JOBS.c.id).where(self._mine, _JOBS.c.dedupe == dedupe)).first()
            if known is not None:
                return None
            used.execute(insert(JobRow).values(vars(job)))
        return job

    def claim(self, owner: str, market_time: datetime, *, at_least: int | None = None) -> Job | None:
        """Take the most urgent job that may start now, the oldest first, and count the attempt.

        Parameters
        ----------
        owner
            Who runs it; only they can beat, finish or fail it.
        at_least
            Leave jobs of a lower priority where they are.
        """
        waiting = [self._mine, _JOBS.c.state == "queued"]
        waiting.append(or_(_JOBS.c.not_before.is_(None), _JOBS.c.not_before <= market_time))
        if at_least is not None:
            waiting.append(_JOBS.c.priority >= at_least)
        order = (_JOBS.c.priority.desc(), _JOBS.c.market_time, _JOBS.c.created_at, _JOBS.c.id)
        query = select(_JOBS).where(*waiting).order_by(*order).limit(1)
        if not self._any_waits():
            return None
        with self._database.read() as connection:  # not yet the writers' lock: it may wait for its time for days
            if connection.execute(query).first() is None:
                return None
        with self._transaction() as connection:
            row = connection.execute(query).mappings().first()
            if row is None or self._running(connection) >= self._concurrent:
                return None
            now = _now()
            started = {"state": "running", "owner": owner, "attempts": row["attempts"] + 1, "error": None}
            job = self._set(connection, Job(**row), **started, started_at=now, seen_at=now)
            attempt = {"id": str(uuid.uuid4()), "market": self._market, "job_id": job.id, "attempt": job.attempts}
            attempt |= {"state": "running", "params": job.overrides, "metrics": {}, "started_at": now}
            connection.execute(insert(ExperimentRow).values(attempt))
            return job

    def beat(self, job: Job) -> bool:
        """Say that the job is still being worked on; False where it was cancelled or given to another owner."""
        with self._transaction() as connection:
            return bool(connection.execute(self._held(job).values(seen_at=_now())).rowcount)

    def finish(self, job: Job, result: Mapping[str, Any], attempt: Attempt | None = None) -> Job | None:
        """Record success; return None, and change nothing, where the job is no longer its owner's."""
        with self._transaction() as connection:
            return self._end(connection, job, "succeeded", attempt, result=dict(result))

    def fail(self, job: Job, error: str, retry_at: datetime | None, attempt: Attempt | None = None) -> Job | None:
        """Record a failed attempt: back to the queue until `retry_at` (the market's time), or ``failed``.

        Parameters
        ----------
        retry_at
            None where trying again makes no sense. It is ignored once all attempts are used.
        """
        with self._transaction() as connection:
            if retry_at is None or job.attempts >= job.max_attempts:
                return self._end(connection, job, "failed", attempt, error=error)
            return self._end(connection, job, "queued", attempt, error=error, not_before=retry_at)

    def release(self, job: Job, reason: str) -> Job | None:
        """Hand a running job back without counting the attempt: its owner closes down in good order."""
        with self._transaction() as connection:
            return self._end(connection, job, "queued", None, error=reason, attempts=job.attempts - 1)

    def cancel(self, job_id: str, *, actor: str, reason: str) -> Job:
        """Withdraw a job; where it is running, its owner learns of it at the next beat. One that ended stays as it is.

        Raises
        ------
        StoreError
            There is no such job.
        """
        with self._transaction() as connection:
            job = self._found(connection, job_id)
            if job.state not in ("queued", "running"):
                return job
            return self._end(connection, job, "cancelled", None, error=f"cancelled by {actor}: {reason}") or job

    def recover(self, stale_after: timedelta, *, gone: Callable[[str], bool] | None = None) -> list[Job]:
        """Put back what nobody works on any more, or fail it if that was its last attempt; return those jobs.

        Parameters
        ----------
        stale_after
            How long an owner may be silent, by the wall's clock. A last sign in the future counts the same: the clock
            was set back.
        gone
            Tells of an owner whether it is known to be dead; then there is no waiting.
        """
        recovered = []
        for job in self._running_jobs():
            silent = abs(_now() - (job.seen_at or job.created_at))
            if silent <= stale_after and not (gone is not None and gone(job.owner or "")):
                continue
            state: State = "queued" if job.attempts < job.max_attempts else "failed"
            error = f"lost: {job.owner} stopped working on it in attempt {job.attempts} of {job.max_attempts}"
            with self._transaction() as connection:
                current = self._found(connection, job.id)
                if current.seen_at == job.seen_at:
                    ended = self._end(connection, job, state, None, error=error)
                    recovered += [ended] if ended is not None else []
        return recovered

    def acknowledge(self, job_id: str, *, actor: str) -> Job:
        """Note that a person knows of a failed job; it alerts no more. StoreError where there is no such job."""
        with self._transaction() as connection:
            job = self._found(connection, job_id)
            if job.state != "failed" or job.acknowledged_at is not None:
                return job
            return self._set(connection, job, acknowledged_at=_now(), acknowledged_by=actor[:64])

    def failures(self) -> list[Job]:
        """Return the failed jobs that still matter, oldest first: not acknowledged, and none succeeded after them."""
        with self._database.read() as connection:
            done = select(func.max(_JOBS.c.ended_at)).where(self._mine, _JOBS.c.state == "succeeded")
            last = connection.execute(done).scalar()
            standing = [_JOBS.c.state == "failed", _JOBS.c.acknowledged_at.is_(None)]
            failed = self._select(connection, *standing, *([] if last is None else [_JOBS.c.ended_at > last]))
        return failed[::-1]

    def jobs(self, limit: int = 50, *, state: State | None = None) -> list[Job]:
        """Return the newest jobs, the last asked for first."""
        with self._database.read() as connection:
            conditions = [] if state is None else [_JOBS.c.state == state]
            return self._select(connection, *conditions, limit=limit)

    def get(self, job_id: str) -> Job:
        """Return a job; StoreError where there is none of that id."""
        with self._database.read() as connection:
            return self._found(connection, job_id)

    def find(self, name: str) -> Job:
        """Return the job with this id, or whose id alone begins so; JobError where there is none, or are several."""
        with self._database.read() as connection:
            if not name or len(name) > 36 or set(name) - set("0123456789abcdef-"):
                raise JobError(f"a job is named by its id or the beginning of it (0-9, a-f, -), got {name[:64]!r}")
            found = self._select(connection, _JOBS.c.id.startswith(name), limit=2)
        if len(found) == 1:
            return found[0]
        how = f"has more than one job that begins with {name!r}" if found else f"has no job {name!r}"
        raise JobError(f"market {self._market} {how}: see `tradeloop jobs`")

    def experiments(self, limit: int = 50, *, job_id: str | None = None) -> list[dict[str, Any]]:
        """Return the newest attempts as JSON has them, the last first: the columns of ``training_experiments``."""
        query = select(_ATTEMPTS).where(_ATTEMPTS.c.market == self._market)
        if job_id is not None:
            query = query.where(_ATTEMPTS.c.job_id == job_id)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(_ATTEMPTS.c.started_at.desc()).limit(limit)).mappings()
            return [jsonable(row) for row in rows]

    def _any_waits(self) -> bool:
        """Return whether a job is queued, in the driver's own words: most turns of the loop end here."""
        with self._database.driver() as connection:
            cursor = connection.cursor()
            cursor.execute(self._waiting.text, self._waiting.row({}))
            return cursor.fetchone() is not None

    def _transaction(self, connection: Connection | None = None) -> AbstractContextManager[Connection]:
        if connection is not None:
            return nullcontext(connection)
        return self._database.write(f"tradeloop.jobs.{self._market}")

    def _select(self, connection: Connection, *conditions: ColumnElement[bool], limit: int | None = None) -> list[Job]:
        order = (_JOBS.c.created_at.desc(), _JOBS.c.id)
        query = select(_JOBS).where(self._mine, *conditions).order_by(*order).limit(limit)
        return [Job(**row) for row in connection.execute(query).mappings()]

    def _running_jobs(self) -> list[Job]:
        with self._database.read() as connection:
            return self._select(connection, _JOBS.c.state == "running")

    def _running(self, connection: Connection) -> int:
        query = select(func.count()).select_from(_JOBS).where(self._mine, _JOBS.c.state == "running")
        return int(connection.execute(query).scalar_one())

    def _found(self, connection: Connection, job_id: str) -> Job:
        found = self._select(connection, _JOBS.c.id == job_id)
        if not found:
            raise StoreError(f"market {self._market} has no job {job_id!r}")
        return found[0]

    def _held(self, job: Job) -> Any:
        """Return the update that applies only while the job is as its holder knows it."""
        same = [self._mine, _JOBS.c.id == job.id, _JOBS.c.state == job.state, _JOBS.c.attempts == job.attempts]
        return update(JobRow).where(*same, _JOBS.c.owner.is_not_distinct_from(job.owner))

    def _set(self, connection: Connection, job: Job, **values: Any) -> Job:
        connection.execute(self._held(job).values(values))
        return self._found(connection, job.id)

    def _end(
        self, connection: Connection, job: Job, state: State, attempt: Attempt | None, **values: Any
    ) -> Job | None:
        """Take a job out of its present state, and end its attempt with it; None where it is in another one."""
        now = _now()
        waits = state == "queued"
        values |= {"state": state, "ended_at": None if waits else now}
        if waits:
            values["owner"] = None
        if not connection.execute(self._held(job).values(values)).rowcount:
            return None
        became = ("cancelled" if "attempts" in values else "failed") if waits else state
        ended: dict[str, Any] = {"state": became, "ended_at": now, "error": values.get("error")}
        if attempt is not None:
            known = {name: value for name, value in vars(attempt).items() if value is not None}
            ended |= known | {"params": dict(attempt.params) or job.overrides, "metrics": dict(attempt.metrics)}
        running = (_ATTEMPTS.c.job_id == job.id, _ATTEMPTS.c.state == "running")
        connection.execute(update(ExperimentRow).where(*running).values(ended))
        return self._found(connection, job.id)


def _now() -> datetime:
    return datetime.now(UTC)
