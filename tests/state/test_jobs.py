from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text, update

from tradeloop.errors import StoreError
from tradeloop.state.database import Database
from tradeloop.state.jobs import Attempt, Job, JobQueue
from tradeloop.state.tables import JobRow

NOW = datetime(2020, 1, 2, 3, tzinfo=UTC)


def ask(queue: JobQueue, dedupe: str = "a", *, priority: int = 50, **changes: Any) -> Job | None:
    values: dict[str, Any] = {"dedupe": dedupe, "market_time": NOW, "max_attempts": 2} | changes
    return queue.enqueue("manual", priority, "a test", {"overrides": {"train.xgboost.max_depth": 4}}, **values)


def taken(queue: JobQueue, owner: str = "me") -> Job:
    job = queue.claim(owner, NOW)
    assert job is not None
    return job


@pytest.fixture
def queue(database: Database) -> JobQueue:
    return JobQueue(database, "m")


class TestQueue:
    def test_one_job_for_the_same_request(self, queue: JobQueue, database: Database) -> None:
        first = ask(queue)
        assert first is not None and ask(queue) is None
        assert [job.id for job in queue.jobs()] == [first.id]
        assert queue.jobs()[0] == first
        assert ask(JobQueue(database, "other")) is not None  # another market's

    def test_the_callers_transaction_decides(self, queue: JobQueue, database: Database) -> None:
        with pytest.raises(RuntimeError), database.write() as connection:
            assert ask(queue, connection=connection) is not None
            raise RuntimeError("the turn failed")
        assert queue.jobs() == []

    def test_the_most_urgent_first_and_of_those_the_oldest(self, database: Database) -> None:
        queue = JobQueue(database, "m", concurrent=9)
        for dedupe, priority in [("a", 10), ("b", 90), ("c", 10), ("d", 90)]:
            ask(queue, dedupe, priority=priority)
        assert [taken(queue).dedupe for _ in range(4)] == ["b", "d", "a", "c"]
        assert queue.claim("me", NOW) is None

    def test_a_job_waits_for_its_time_and_for_its_hours(self, queue: JobQueue) -> None:
        ask(queue, not_before=NOW + timedelta(hours=1))
        assert queue.claim("me", NOW) is None
        assert queue.claim("me", NOW + timedelta(hours=1), at_least=51) is None
        assert queue.claim("me", NOW + timedelta(hours=1), at_least=50) is not None

    @pytest.mark.parametrize("concurrent", [1, 2])
    def test_as_many_run_as_may(self, database: Database, concurrent: int) -> None:
        queue = JobQueue(database, "m", concurrent=concurrent)
        for dedupe in "abc":
            ask(queue, dedupe)
        jobs = [job for _ in range(3) if (job := queue.claim("me", NOW)) is not None]
        assert len(jobs) == concurrent
        queue.finish(jobs[0], {})
        assert queue.claim("me", NOW) is not None

    def test_threads_that_claim_at_once_get_different_jobs(self, database: Database) -> None:
        queue = JobQueue(database, "m", concurrent=8)
        for number in range(8):
            ask(queue, str(number))
        with ThreadPoolExecutor(8) as pool:
            jobs = list(pool.map(lambda n: queue.claim(f"owner {n}", NOW), range(8)))
        assert len({job.id for job in jobs if job is not None}) == 8


def _claim_in_a_process(url: str, barrier: Any, answers: Any) -> None:
    database = Database.open(url)
    barrier.wait()
    job = JobQueue(database, "m").claim(f"process {os.getpid()}", NOW)
    answers.put(None if job is None else job.id)
    database.close()


def test_of_several_processes_one_gets_the_job(queue: JobQueue, url: str) -> None:
    ask(queue)
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.Queue()
    processes = [context.Process(target=_claim_in_a_process, args=(url, barrier, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert sum(job is not None for job in found) == 1
    assert queue.jobs()[0].attempts == 1


class TestEnds:
    def test_success_is_recorded_with_its_attempt(self, queue: JobQueue) -> None:
        ask(queue)
        job = taken(queue)
        facts = Attempt(
            name="loop-1", git_revision="c0ffee", data_hash="d0", params={"seed": 1}, metrics={"range": {"r2": 0.3}},
            model="ab" * 32, verdict="pass", cpu_seconds=12.5, peak_mib=900.0,
        )  # fmt: skip
        done = queue.finish(job, {"model": "ab" * 32}, facts)
        assert done is not None and done.state == "succeeded" and done.ended_at is not None
        assert done.result == {"model": "ab" * 32}
        (row,) = queue.experiments()
        assert {name: row[name] for name in vars(facts)} == vars(facts)
        assert (row["state"], row["attempt"], row["job_id"]) == ("succeeded", 1, job.id)
        assert queue.finish(job, {}) is None  # once

    def test_attempts_are_bounded(self, queue: JobQueue) -> None:
        ask(queue)
        later = NOW + timedelta(minutes=10)
        waiting = queue.fail(taken(queue), "timeout: 7200 s", later)
        assert waiting is not None
        assert (waiting.state, waiting.not_before, waiting.owner) == ("queued", later, None)
        assert queue.claim("me", NOW) is None
        second = queue.claim("me", later)
        assert second is not None and second.attempts == 2
        failed = queue.fail(second, "timeout again", later)
        assert failed is not None and failed.state == "failed" and failed.error == "timeout again"
        assert queue.claim("me", later + timedelta(days=1)) is None
        assert [(row["attempt"], row["state"], row["error"]) for row in queue.experiments()] == [
            (2, "failed", "timeout again"),
            (1, "failed", "timeout: 7200 s"),
        ]
        assert queue.experiments()[0]["params"] == {"train.xgboost.max_depth": 4}

    def test_no_retry_fails_at_once(self, queue: JobQueue) -> None:
        ask(queue)
        failed = queue.fail(taken(queue), "memory", None)
        assert failed is not None and failed.state == "failed"

    def test_a_released_job_keeps_its_attempts(self, queue: JobQueue) -> None:
        ask(queue)
        released = queue.release(taken(queue), "the loop closed")
        assert released is not None and (released.state, released.attempts) == ("queued", 0)
        assert queue.experiments()[0]["state"] == "cancelled"

    def test_a_queued_job_is_cancelled(self, queue: JobQueue) -> None:
        job = ask(queue)
        assert job is not None
        cancelled = queue.cancel(job.id, actor="ann", reason="not needed")
        assert (cancelled.state, cancelled.error) == ("cancelled", "cancelled by ann: not needed")
        assert queue.claim("me", NOW) is None
        assert queue.cancel(job.id, actor="bob", reason="again") == cancelled

    def test_the_owner_of_a_cancelled_job_learns_of_it(self, queue: JobQueue) -> None:
        ask(queue)
        job = taken(queue)
        assert queue.beat(job)
        queue.cancel(job.id, actor="ann", reason="not needed")
        assert not queue.beat(job)
        assert queue.finish(job, {}) is None
        assert queue.fail(job, "killed", NOW) is None
        assert queue.get(job.id).state == "cancelled"
        assert queue.experiments()[0]["state"] == "cancelled"

    def test_an_unknown_job_is_named(self, queue: JobQueue) -> None:
        for act in (queue.get, lambda name: queue.cancel(name, actor="a", reason="b")):
            with pytest.raises(StoreError, match="market m has no job 'nope'"):
                act("nope")


class TestRecovery:
    def test_a_silent_owner_loses_the_job_but_not_the_count(self, queue: JobQueue, database: Database) -> None:
        ask(queue)
        job = taken(queue, "gone")
        assert queue.recover(timedelta(minutes=1)) == []
        _seen(database, datetime.now(UTC) - timedelta(minutes=2))
        (back,) = queue.recover(timedelta(minutes=1))
        assert (back.state, back.attempts, back.owner) == ("queued", 1, None)
        assert back.error == "lost: gone stopped working on it in attempt 1 of 2"
        assert not queue.beat(job)  # it was not dead after all: it must stop
        second = taken(queue, "gone")  # of the same name: only the attempt tells them apart
        assert second.attempts == 2
        assert not queue.beat(job) and queue.finish(job, {}) is None
        assert queue.finish(second, {}) is not None

    def test_the_last_attempt_lost_is_a_failure(self, queue: JobQueue) -> None:
        ask(queue, max_attempts=1)
        taken(queue)
        (failed,) = queue.recover(timedelta(0))
        assert failed.state == "failed" and queue.failures() == [failed]

    def test_a_dead_owner_is_not_waited_for(self, queue: JobQueue) -> None:
        ask(queue)
        taken(queue, "host:1")
        assert queue.recover(timedelta(hours=1), gone=lambda owner: owner == "host:2") == []
        assert len(queue.recover(timedelta(hours=1), gone=lambda owner: owner == "host:1")) == 1

    def test_a_clock_set_back_holds_no_job_for_ever(self, queue: JobQueue, database: Database) -> None:
        ask(queue)
        taken(queue)
        _seen(database, datetime.now(UTC) + timedelta(days=1))
        assert len(queue.recover(timedelta(minutes=1))) == 1

    def test_an_owner_that_beats_in_between_keeps_its_job(
        self, queue: JobQueue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask(queue)
        job = taken(queue)
        before = replace(job, seen_at=datetime.now(UTC) - timedelta(minutes=2))
        monkeypatch.setattr(queue, "_running_jobs", lambda: [before])
        assert queue.recover(timedelta(minutes=1)) == []
        assert queue.beat(job)


class TestFailures:
    def test_a_failure_stands_until_someone_knows_of_it(self, queue: JobQueue) -> None:
        ask(queue, max_attempts=1)
        failed = queue.fail(taken(queue), "died", None)
        assert failed is not None and queue.failures() == [failed]
        known = queue.acknowledge(failed.id, actor="ann")
        assert known.acknowledged_by == "ann" and known.acknowledged_at is not None
        assert queue.failures() == []
        assert queue.acknowledge(failed.id, actor="bob") == known

    def test_or_until_a_later_one_succeeds(self, queue: JobQueue) -> None:
        ask(queue, "a")
        queue.finish(taken(queue), {})
        ask(queue, "b")
        failed = queue.fail(taken(queue), "died", None)
        assert queue.failures() == [failed]
        ask(queue, "c")
        queue.finish(taken(queue), {})
        assert queue.failures() == []


def _seen(database: Database, moment: datetime) -> None:
    with database.write() as connection:
        connection.execute(update(JobRow.__table__).values(seen_at=moment))


def test_claim_does_not_write_while_nothing_waits(queue: JobQueue, database: Database) -> None:
    """A turn must not wait for the writers' lock when there is nothing to start."""
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with database.write("tradeloop.jobs.m") as connection:
            connection.execute(text("SELECT 1"))
            entered.set()
            leave.wait(30)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(hold)
        entered.wait(30)
        assert queue.claim("me", NOW) is None
        leave.set()
        held.result()


@pytest.mark.parametrize("act", [lambda q, j: q.finish(j, {}), lambda q, j: q.fail(j, "x", None)])
def test_two_ends_at_once_one_counts(queue: JobQueue, act: Callable[[JobQueue, Job], Job | None]) -> None:
    ask(queue)
    job = taken(queue)
    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(lambda _: act(queue, job), range(4)))
    assert sum(one is not None for one in ended) == 1
