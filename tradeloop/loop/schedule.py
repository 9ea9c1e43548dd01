"""When the loop does its periodic work, and when a retraining may start: outside the market's hours.

Periods are counted from Monday 1970-01-05 00:00 UTC, so that a weekly task falls on Mondays wherever the loop was
started. A task that was missed, however often, is due once. `Schedule` is told the time, the market's in a simulation;
`WallSchedule` is the same timetable on the wall's clock, driven by APScheduler and kept in the state database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from tradeloop.calendars import sessions

MONDAY = datetime(1970, 1, 5, tzinfo=UTC)

_BEHIND, _AHEAD = 15, 25
"""Days looked at around one: longer than any holiday."""

Period = tuple[datetime, datetime]


def off_hours(calendar: str, now: datetime, *, hours: str | None = None) -> bool:
    """Return whether a retraining is in nobody's way: at night, on weekends and holidays, and within `hours`.

    Lunch breaks are no off-hours. A market that never shuts has those of `hours`; without them it is never in the way.

    Parameters
    ----------
    now
        Aware.
    hours
        UTC, ``22:00-06:00``.

    Examples
    --------
    >>> off_hours("24/7", datetime(2024, 1, 2, 12, tzinfo=UTC), hours="22:00-06:00")
    False
    """
    start, _ = next_window(calendar, now, hours=hours)
    return start <= now


def next_window(calendar: str, now: datetime, *, hours: str | None = None) -> tuple[datetime, datetime | None]:
    """Return the off-hours that hold `now`, or the next ones: their start and their end, None where none is known."""
    now = now.astimezone(UTC)
    for start, end in _windows(calendar, now.date().toordinal(), hours):
        if end is None or now < end:
            return start, end
    return now, None


@lru_cache(maxsize=64)
def _windows(calendar: str, ordinal: int, hours: str | None) -> list[tuple[datetime, datetime | None]]:
    """Return the off-hours around a day, in order; the last may have no end."""
    day = datetime.combine(datetime.fromordinal(ordinal).date(), time(), UTC)
    first, last = day - timedelta(days=_BEHIND), day + timedelta(days=_AHEAD)
    trading = _trading(calendar, first, last)
    if len(trading) == 1 and hours is None and trading[0][0] <= first + timedelta(days=1):
        return [(first, None)]
    edges = [(first, first), *trading]
    shut: list[tuple[datetime, datetime | None]] = [(end, start) for (_, end), (start, _) in pairwise(edges)]
    if edges[-1][1] < last:  # no session begins until then
        shut.append((edges[-1][1], last))
    joined = _union([*shut, *_daily(hours, first, last)])
    # One that reaches the end of what was looked at has no known end.
    return [(start, None if end is not None and end > last - timedelta(days=2) else end) for start, end in joined]


def _trading(calendar: str, first: datetime, last: datetime) -> list[Period]:
    """Return when the market is open; sessions that follow one another without a pause are one."""
    table = sessions(calendar, np.datetime64(first.replace(tzinfo=None)), np.datetime64(last.replace(tzinfo=None)))
    periods: list[Period] = []
    for opens, closes in zip(table["open"], table["close"], strict=True):
        start, end = (stamp.to_pydatetime().replace(tzinfo=UTC) for stamp in (opens, closes))
        if periods and start <= periods[-1][1]:
            periods[-1] = (periods[-1][0], end)
        else:
            periods.append((start, end))
    return periods


def _daily(hours: str | None, first: datetime, last: datetime) -> list[tuple[datetime, datetime | None]]:
    if hours is None:
        return []
    start, end = (
        timedelta(hours=int(part[:2]), minutes=int(part[3:])) for part in hours.split("-")
    )  # the form is held by the parameter's pattern
    length = (end - start) if end > start else (end - start) + timedelta(days=1)
    days = [first + timedelta(days=number) for number in range((last - first).days)]
    return [(day + start, day + start + length) for day in days]


def _union(windows: Iterable[tuple[datetime, datetime | None]]) -> list[tuple[datetime, datetime | None]]:
    joined: list[tuple[datetime, datetime | None]] = []
    for start, end in sorted(windows, key=lambda window: window[0]):
        before = joined[-1][1] if joined else MONDAY
        if joined and (before is None or start <= before):
            joined[-1] = (joined[-1][0], None if before is None or end is None else max(before, end))
        else:
            joined.append((start, end))
    return joined


@dataclass(frozen=True)
class Task:
    """Something to be done once in every period, where `off_hours` says so not before the market is shut."""

    name: str
    every: timedelta
    off_hours: bool = False


@dataclass(frozen=True)
class Timetable:
    """The tasks of one market."""

    tasks: tuple[Task, ...]
    calendar: str
    hours: str | None = None

    def __getitem__(self, name: str) -> Task:
        return next(task for task in self.tasks if task.name == name)

    def following(self, task: Task, last: datetime) -> datetime:
        """Return when a task is due after the period that holds `last`."""
        begins = period(task, last) + task.every
        if not task.off_hours:
            return begins
        return max(begins, next_window(self.calendar, begins, hours=self.hours)[0])


def period(task: Task, moment: datetime) -> datetime:
    """Return the start of the period that holds a moment."""
    return MONDAY + (moment - MONDAY) // task.every * task.every


class Scheduled(Protocol):
    """What a turn asks: which tasks are due; and tells: which are done."""

    def due(self, now: datetime) -> list[str]:
        """Return the tasks that are due and not done, in the timetable's order."""

    def done(self, name: str, now: datetime) -> None:
        """Note that a task was done, or tried: it is due again in its next period."""


class Schedule:
    """A timetable that is told the time. Its first periods are those after the first question."""

    def __init__(self, timetable: Timetable) -> None:
        self._timetable = timetable
        self._last: dict[str, datetime] = {}

    def due(self, now: datetime) -> list[str]:
        """Return the tasks that are due; see `Scheduled.due`."""
        table = self._timetable
        return [
            task.name for task in table.tasks if now >= table.following(task, self._last.setdefault(task.name, now))
        ]

    def done(self, name: str, now: datetime) -> None:
        """Note that a task was done; see `Scheduled.done`."""
        self._last[name] = now

    def state(self) -> dict[str, Any]:
        """Return what it remembers, as JSON has it."""
        return {name: moment.isoformat() for name, moment in self._last.items()}

    def restore(self, state: Mapping[str, str]) -> None:
        """Take up what `state` returned; tasks that are no more are forgotten."""
        known = {task.name for task in self._timetable.tasks}
        self._last = {name: datetime.fromisoformat(text) for name, text in state.items() if name in known}
