"""The loop's timetable on the wall's clock: APScheduler says when, the state database remembers across restarts.

What is stored is when each task is due next, and nothing that could be executed: the tasks themselves are in the code.
A task stays due until it is done, so that one that fell due just before a crash is due again after it.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from sqlalchemy import delete, insert, select

from tradeloop.loop.schedule import Task, Timetable
from tradeloop.state.database import Database
from tradeloop.state.tables import ScheduleRow

_ROWS = ScheduleRow.__table__


class WallSchedule:
    """A timetable that is driven by the wall's clock; see `schedule.Scheduled`.

    Missed periods, also those of a time when no loop ran, make a task due once. Shorter periods than those that were
    stored apply at once.

    Parameters
    ----------
    database
        Where the next times are kept, one row a task.
    """

    def __init__(self, timetable: Timetable, database: Database, market: str) -> None:
        self._timetable = timetable
        self._database = database
        self._market = market
        self._lock = threading.Lock()
        self._fired: set[str] = set()
        self._scheduler: Any = None

    def start(self) -> None:
        """Begin to watch the clock.

        Raises
        ------
        StoreError
            The database does not answer.
        """
        now = datetime.now(UTC)
        stored = self._stored()
        scheduler = BackgroundScheduler(
            timezone=UTC,
            jobstores={"default": MemoryJobStore()},
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        for task in self._timetable.tasks:
            following = self._timetable.following(task, now)
            due = min(stored.get(task.name, following), following)
            self._store(task.name, None, due)
            trigger = _Periods(self._timetable, task)
            scheduler.add_job(self._fire, trigger, args=[task.name], id=task.name, next_run_time=due)
        scheduler.start()
        self._scheduler = scheduler

    def due(self, now: datetime) -> list[str]:
        """Return the tasks that are due; `now` is the wall's business here."""
        del now
        with self._lock:
            return [task.name for task in self._timetable.tasks if task.name in self._fired]

    def done(self, name: str, now: datetime) -> None:
        """Note that a task was done; see `schedule.Scheduled.done`."""
        del now
        wall = datetime.now(UTC)
        self._store(name, wall, self._timetable.following(self._timetable[name], wall))
        with self._lock:
            self._fired.discard(name)

    def close(self) -> None:
        """Stop watching the clock."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=True)
            self._scheduler = None

    def _fire(self, name: str) -> None:
        with self._lock:
            self._fired.add(name)

    def _stored(self) -> dict[str, datetime]:
        with self._database.read() as connection:
            rows = connection.execute(select(_ROWS.c.task, _ROWS.c.next_at).where(_ROWS.c.market == self._market))
            return {name: moment for name, moment in rows}

    def _store(self, name: str, last: datetime | None, following: datetime) -> None:
        mine = (_ROWS.c.market == self._market, _ROWS.c.task == name)
        with self._database.write(f"tradeloop.schedule.{self._market}") as connection:
            before = connection.execute(select(_ROWS.c.last_at).where(*mine)).scalar()
            connection.execute(delete(ScheduleRow).where(*mine))
            row = {"market": self._market, "task": name, "last_at": last or before, "next_at": following}
            connection.execute(insert(ScheduleRow).values(row))


class _Periods(BaseTrigger):  # type: ignore[misc]  # apscheduler has no types
    """Fires when the timetable says."""

    def __init__(self, timetable: Timetable, task: Task) -> None:
        self._timetable = timetable
        self._task = task

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the beginning of the period after the last one."""
        return self._timetable.following(self._task, previous_fire_time or now)
