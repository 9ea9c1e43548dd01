"""Retraining beside serving: who trains, and how the queue, the hours and the attempts are kept.

A `Trainer` starts a job and later says how it ended: `dvc_trainer.DvcTrainer` runs the project's own pipeline.
`Retraining` is what a turn of the loop calls.
"""

from __future__ import annotations

import math
import os
import platform
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import psutil

from tradeloop.config import Retrain, parse_interval
from tradeloop.loop.limits import Cause
from tradeloop.loop.schedule import off_hours
from tradeloop.state.job import Attempt, Job, State
from tradeloop.state.jobs import JobQueue

FINAL: frozenset[Cause] = frozenset({"memory", "params"})
"""What another attempt would only meet again."""

_BEAT_SECONDS = 1.0
"""How often owners give a sign of life and are looked for, by the wall's clock."""


@dataclass(frozen=True)
class TrainingResult:
    """How one attempt ended.

    Attributes
    ----------
    state
        ``succeeded`` (there is a model; `Attempt.verdict` tells whether it passed the gate), ``failed`` or
        ``cancelled``.
    cause, error
        Of a failure, and one line for a person.
    summary
        What the job's result shall say: model, version, verdict, reason, seconds.
    """

    job_id: str
    state: State
    cause: Cause | None = None
    error: str | None = None
    attempt: Attempt = field(default_factory=Attempt)
    summary: Mapping[str, Any] = field(default_factory=dict)


class Trainer(Protocol):
    """Trains models for jobs; it registers what it made, and never promotes."""

    def start(self, job: Job) -> None:
        """Begin an attempt and return at once; what goes wrong is told by `poll`."""

    def poll(self) -> list[TrainingResult]:
        """Return the attempts that ended since the last call."""

    def cancel(self, job_id: str, reason: str) -> None:
        """Stop an attempt, if it is running; `poll` tells when it has ended."""

    def status(self) -> dict[str, str]:
        """Return one line for a person for each running job."""

    def close(self) -> None:
        """Stop all that runs, and wait for it; nothing that was finished is lost."""

    def tidy(self, active: Collection[str]) -> None:
        """Remove what attempts left behind, of jobs that are neither queued nor running."""


class Retraining:
    """Keeps the queue moving: one call a turn.

    1. Say that the running jobs are alive; stop those that were cancelled or given to another owner.
    2. Record the attempts that ended: success, another attempt later, or failure.
    3. Put back jobs whose owner is gone.
    4. Start the most urgent job that may start now.

    Parameters
    ----------
    calendar
        The market's; without urgency a job waits until it is shut, see `schedule.off_hours`.
    fault
        Called with a cause and one line for every attempt that failed.
    """

    def __init__(
        self,
        queue: JobQueue,
        trainer: Trainer,
        config: Retrain,
        *,
        calendar: str,
        fault: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._queue = queue
        self._trainer = trainer
        self._config = config
        self._calendar = calendar
        self._fault = fault
        self._owner = owner_name()
        self._held: dict[str, Job] = {}
        self._unsettled: list[TrainingResult] = []
        self._beaten = self._looked = -math.inf

    def step(self, now: datetime) -> list[tuple[Job, TrainingResult]]:
        """Do all four; return the attempts that ended, each with its job as it became.

        Parameters
        ----------
        now
            The market's time.

        Raises
        ------
        StoreError
            The database does not answer; the next call goes on, and nothing is lost.
        """
        self._beat()
        ended = self._settle(now)
        self._recover()
        self._start(now)
        return ended

    def status(self) -> dict[str, str]:
        """Return one line for a person for each running job."""
        return self._trainer.status()

    def close(self, now: datetime) -> None:
        """Stop in good order: what has ended is recorded, what has not goes back to the queue, its attempt uncounted.

        Raises
        ------
        StoreError
            The database does not answer; the jobs are recovered when another loop finds their owner gone.
        """
        self._trainer.close()
        self._settle(now)
        for job in list(self._held.values()):
            self._queue.release(job, "the loop closed; the next one goes on where it stopped")
            del self._held[job.id]

    def _beat(self) -> None:
        if not self._held or time.monotonic() - self._beaten < _BEAT_SECONDS:
            return
        for job in self._held.values():
            if not self._queue.beat(job):
                self._trainer.cancel(job.id, "the job was cancelled, or given to another owner")
        self._beaten = time.monotonic()

    def _recover(self) -> None:
        if time.monotonic() - self._looked >= _BEAT_SECONDS:
            self._queue.recover(parse_interval(self._config.stale_after), gone=is_gone)
            self._looked = time.monotonic()

    def _settle(self, now: datetime) -> list[tuple[Job, TrainingResult]]:
        """Record what ended; a result leaves the list only once it is in the database."""
        self._unsettled += self._trainer.poll()
        ended = []
        while self._unsettled:
            result = self._unsettled[0]
            job = self._held.get(result.job_id)
            became = None if job is None else self._record(job, result, now)
            self._unsettled.pop(0)
            if became is not None:
                del self._held[became.id]
                ended.append((became, result))
        if ended:
            live = [*self._queue.jobs(1000, state="queued"), *self._queue.jobs(1000, state="running")]
            self._trainer.tidy({job.id for job in live})
        return ended

    def _record(self, job: Job, result: TrainingResult, now: datetime) -> Job | None:
        """Return the job as it became, or None where it stays held: it was stopped and is to be released."""
        if result.state == "succeeded":
            return self._queue.finish(job, result.summary, result.attempt) or self._queue.get(job.id)
        if result.state == "cancelled":
            current = self._queue.get(job.id)
            return None if current.state == "running" and current.owner == self._owner else current
        error = result.error or "failed: no reason given"
        wait = parse_interval(self._config.backoff) * 2 ** (job.attempts - 1)
        retry_at = None if result.cause in FINAL else now + wait
        failed = self._queue.fail(job, error, retry_at, result.attempt) or self._queue.get(job.id)
        self._fault(result.cause or "failed", f"job {job.id}, attempt {job.attempts} of {job.max_attempts}: {error}")
        return failed

    def _start(self, now: datetime) -> None:
        waits = self._config.off_hours and not off_hours(self._calendar, now, hours=self._config.hours)
        job = self._queue.claim(self._owner, now, at_least=self._config.urgent if waits else None)
        if job is not None:
            self._held[job.id] = job
            self._trainer.start(job)


def owner_name() -> str:
    """Return a name for this process among all that may run jobs."""
    return f"{platform.node()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"


def is_gone(owner: str) -> bool:
    """Return whether a process of this machine is known to be dead; of another machine's nothing is known."""
    host, _, rest = owner.partition(":")
    pid = rest.partition(":")[0]
    if host != platform.node() or not pid.isdigit():
        return False
    try:
        return bool(psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
