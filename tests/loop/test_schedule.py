from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from tests.loop.conftest import until
from tradeloop.errors import ConfigError
from tradeloop.loop.schedule import Schedule, Task, Timetable, next_window, off_hours, period
from tradeloop.loop.timer import WallSchedule
from tradeloop.state.database import Database
from tradeloop.state.tables import ScheduleRow


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


HOURS = [
    ("XNYS", "2024-01-03T14:29:59", None, True),
    ("XNYS", "2024-01-03T14:30", None, False),
    ("XNYS", "2024-01-03T20:59:59", None, False),
    ("XNYS", "2024-01-03T21:00", None, True),
    ("XNYS", "2024-01-06T16:00", None, True),  # Saturday
    ("XNYS", "2024-01-01T16:00", None, True),  # New Year's Day
    ("XNYS", "2024-07-03T17:30", None, True),  # an early close
    ("XNYS", "2024-07-08T13:31", None, False),  # summer time
    ("XNYS", "2024-01-03T16:00", "15:00-17:00", True),
    ("XNYS", "2024-01-03T17:00", "15:00-17:00", False),
    ("XTKS", "2024-01-10T03:00", None, False),  # lunch
    ("XTKS", "2024-01-10T06:00", None, True),
    ("24/5", "2024-01-03T03:00", None, False),
    ("24/5", "2024-01-06T03:00", None, True),
    ("24/5", "2024-01-07T21:59", None, True),
    ("24/5", "2024-01-07T22:00", None, False),
    ("24/7", "2024-01-03T12:00", None, True),
    ("24/7", "2024-01-03T12:00", "22:00-06:00", False),
    ("24/7", "2024-01-03T23:00", "22:00-06:00", True),
    ("24/7", "2024-01-03T05:59", "22:00-06:00", True),
    ("24/7", "2024-01-03T06:00", "22:00-06:00", False),
]


@pytest.mark.parametrize(("calendar", "moment", "hours", "expected"), HOURS)
def test_off_hours(calendar: str, moment: str, hours: str | None, expected: bool) -> None:
    assert off_hours(calendar, at(moment), hours=hours) is expected


@pytest.mark.parametrize(
    ("calendar", "moment", "hours", "start", "end"),
    [
        ("XNYS", "2024-01-03T16:00", None, "2024-01-03T21:00", "2024-01-04T14:30"),
        ("XNYS", "2024-01-05T22:00", None, "2024-01-05T21:00", "2024-01-08T14:30"),
        ("XNYS", "2024-01-03T16:00", "16:30-21:30", "2024-01-03T16:30", "2024-01-04T14:30"),  # they meet
        ("24/5", "2024-01-03T12:00", None, "2024-01-05T22:00", "2024-01-07T22:00"),
        ("24/7", "2024-01-03T12:00", "22:00-06:00", "2024-01-03T22:00", "2024-01-04T06:00"),
        ("XSHG", "2024-02-09T03:00", None, "2024-02-08T07:00", "2024-02-19T01:30"),  # eleven days
    ],
)
def test_next_window(calendar: str, moment: str, hours: str | None, start: str, end: str) -> None:
    assert next_window(calendar, at(moment), hours=hours) == (at(start), at(end))


def test_a_market_that_never_shuts_is_never_waited_for() -> None:
    assert next_window("24/7", at("2024-01-03T12:00"))[1] is None


def test_an_unknown_calendar_is_named() -> None:
    with pytest.raises(ConfigError, match="XMOON"):
        off_hours("XMOON", at("2024-01-03T12:00"))


@settings(deadline=None, max_examples=40)
@given(
    calendar=st.sampled_from(["XNYS", "24/5", "24/7", "XTKS"]),
    hours=st.sampled_from([None, "22:00-06:00", "12:00-12:30"]),
    minute=st.integers(0, 2 * 366 * 24 * 60),
)
@example(calendar="XTKS", hours="22:00-06:00", minute=260_640)  # a holiday at the end of what is looked at
def test_windows_agree_with_off_hours(calendar: str, hours: str | None, minute: int) -> None:
    now = at("2020-01-01T00:00") + timedelta(minutes=minute)
    start, end = next_window(calendar, now, hours=hours)
    assert off_hours(calendar, now, hours=hours) is (start <= now)
    assert off_hours(calendar, max(start, now), hours=hours)
    if start > now:
        assert not off_hours(calendar, start - timedelta(seconds=1), hours=hours)
    if end is not None:
        assert end > now and not off_hours(calendar, end, hours=hours)


WEEKLY, HOURLY = Task("report", timedelta(days=7)), Task("parity", timedelta(hours=1))
NIGHTLY = Task("cleanup", timedelta(days=1), off_hours=True)
TABLE = Timetable((WEEKLY, HOURLY, NIGHTLY), "XNYS")


class TestSchedule:
    def test_weeks_begin_on_monday(self) -> None:
        assert period(WEEKLY, at("2024-01-04T05:00")) == at("2024-01-01T00:00")
        schedule = Schedule(TABLE)
        assert schedule.due(at("2024-01-04T05:30")) == []
        assert "report" not in schedule.due(at("2024-01-07T23:59"))
        assert "report" in schedule.due(at("2024-01-08T00:00"))

    def test_due_until_done_and_then_in_the_next_period(self) -> None:
        schedule = Schedule(replace(TABLE, tasks=(HOURLY,)))
        assert schedule.due(at("2024-01-04T05:30")) == []
        for _ in range(2):
            assert schedule.due(at("2024-01-04T06:10")) == ["parity"]
        schedule.done("parity", at("2024-01-04T06:10"))
        assert schedule.due(at("2024-01-04T06:59")) == []
        assert schedule.due(at("2024-01-04T07:00")) == ["parity"]

    def test_what_was_missed_is_due_once(self) -> None:
        schedule = Schedule(TABLE)
        schedule.due(at("2024-01-04T05:30"))
        now = at("2024-03-04T05:30")
        assert schedule.due(now) == ["report", "parity", "cleanup"]
        for name in schedule.due(now):
            schedule.done(name, now)
        assert schedule.due(now) == []

    def test_off_hours_tasks_wait_for_the_close(self) -> None:
        schedule = Schedule(replace(TABLE, tasks=(NIGHTLY,)))
        assert schedule.due(at("2024-01-03T15:00")) == []
        assert schedule.due(at("2024-01-04T03:00")) == ["cleanup"]
        schedule.done("cleanup", at("2024-01-04T15:00"))
        hourly = Schedule(replace(TABLE, tasks=(Task("cleanup", timedelta(hours=1), off_hours=True),)))
        hourly.due(at("2024-01-03T14:45"))
        assert hourly.due(at("2024-01-03T20:59")) == []
        assert hourly.due(at("2024-01-03T21:00")) == ["cleanup"]

    def test_its_state_is_all_it_knows(self) -> None:
        schedule, again = Schedule(TABLE), Schedule(TABLE)
        schedule.due(at("2024-01-04T05:30"))
        schedule.done("parity", at("2024-01-04T06:10"))
        again.restore({**schedule.state(), "retired": "2024-01-01T00:00:00+00:00"})
        assert again.state() == schedule.state()
        assert again.due(at("2024-01-04T07:00")) == schedule.due(at("2024-01-04T07:00")) == ["parity"]


class TestWallSchedule:
    @pytest.fixture
    def short(self, database: Database) -> Iterator[WallSchedule]:
        made = WallSchedule(Timetable((Task("short", timedelta(seconds=1)), WEEKLY), "24/7"), database, "m")
        yield made
        made.close()

    def next_at(self, database: Database, task: str) -> datetime:
        with database.read() as connection:
            query = select(ScheduleRow.next_at).where(ScheduleRow.task == task)
            return connection.execute(query).scalar_one()

    def test_due_until_done_again_and_again(self, short: WallSchedule) -> None:
        short.start()
        for _ in range(2):
            until(lambda: short.due(datetime.now(UTC)) == ["short"], 5)
            short.done("short", datetime.now(UTC))
            assert short.due(datetime.now(UTC)) == []

    def test_what_fell_due_while_no_loop_ran_is_due_once(self, database: Database) -> None:
        hourly = Timetable((HOURLY,), "24/7")
        first = WallSchedule(hourly, database, "m")
        first.start()
        first.close()
        expected = period(HOURLY, datetime.now(UTC)) + HOURLY.every
        assert abs(self.next_at(database, "parity") - expected) <= HOURLY.every
        with database.write() as connection:
            connection.execute(update(ScheduleRow).values(next_at=datetime.now(UTC) - timedelta(days=3)))
        second = WallSchedule(hourly, database, "m")
        second.start()
        try:
            until(lambda: second.due(datetime.now(UTC)) == ["parity"], 5)
            # It is not done: a loop that dies now leaves it due.
            assert self.next_at(database, "parity") < datetime.now(UTC)
            second.done("parity", datetime.now(UTC))
            assert self.next_at(database, "parity") > datetime.now(UTC)
            time.sleep(0.3)
            assert second.due(datetime.now(UTC)) == []
        finally:
            second.close()

    def test_a_shorter_period_applies_at_once(self, database: Database) -> None:
        WallSchedule(Timetable((WEEKLY,), "24/7"), database, "m")
        with database.write() as connection:
            later = datetime.now(UTC) + timedelta(days=6)
            connection.execute(ScheduleRow.__table__.insert().values(market="m", task="short", next_at=later))
        made = WallSchedule(Timetable((Task("short", timedelta(seconds=1)),), "24/7"), database, "m")
        made.start()
        try:
            until(lambda: made.due(datetime.now(UTC)) == ["short"], 5)
        finally:
            made.close()
