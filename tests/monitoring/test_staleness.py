from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evidences import HOUR, NOW, changed, hourly
from tradeloop.calendars import expected_closes
from tradeloop.config import Market
from tradeloop.monitoring.staleness import Staleness, closes_between, nth_newest_close

DAILY = Market(source="bundled", symbols=["A", "B"], calendar="XNYS", interval="1d", max_age="5d")
FOREX = Market(source="bundled", symbols=["E"], calendar="24/5", interval="1h")
ROUND_THE_CLOCK = Market(source="synthetic", symbols=["S"], calendar="24/7", interval="15m")

FRIDAY = datetime(2024, 3, 1, 21, tzinfo=UTC)
MONDAY = datetime(2024, 3, 4, 21, tzinfo=UTC)


@dataclass
class Seen:
    component: str
    wall_time: datetime


@pytest.mark.parametrize(
    ("market", "after", "until", "count"),
    [
        (DAILY, FRIDAY, MONDAY - timedelta(seconds=1), 0),  # a weekend ages nothing
        (DAILY, FRIDAY, MONDAY, 1),
        (DAILY, MONDAY, FRIDAY, 0),
        (DAILY, datetime(2023, 12, 29, 21, tzinfo=UTC), datetime(2024, 1, 2, 21, tzinfo=UTC), 1),  # New Year
        (ROUND_THE_CLOCK, datetime(2023, 12, 31, 23, tzinfo=UTC), datetime(2024, 1, 1, 1, tzinfo=UTC), 8),
        (FOREX, datetime(2024, 3, 1, 22, tzinfo=UTC), datetime(2024, 3, 3, 22, tzinfo=UTC), 0),
        (FOREX, datetime(2024, 3, 1, 22, tzinfo=UTC), datetime(2024, 3, 3, 23, tzinfo=UTC), 1),
    ],
)
def test_bars_are_counted_on_the_calendar(market: Market, after: datetime, until: datetime, count: int) -> None:
    assert closes_between(market, after, until) == count


@given(
    st.datetimes(datetime(2019, 1, 1), datetime(2023, 1, 1), timezones=st.just(UTC)),
    st.timedeltas(timedelta(0), timedelta(days=800)),
    st.sampled_from([DAILY, FOREX, ROUND_THE_CLOCK]),
)
@settings(deadline=None, max_examples=40)
def test_count_is_that_of_the_calendar_in_one_piece(after: datetime, span: timedelta, market: Market) -> None:
    until = after + span
    first, last = (np.datetime64(at.replace(tzinfo=None), "us") for at in (after, until))
    interval = {"1d": timedelta(days=1), "1h": HOUR, "15m": HOUR / 4}[market.interval]
    whole = expected_closes(market.calendar, interval, first, last)
    assert closes_between(market, after, until) == len(whole) - int(len(whole) > 0 and whole[0] == first)


@given(st.integers(1, 3000), st.sampled_from([DAILY, FOREX]))
@settings(deadline=None, max_examples=30)
def test_nth_newest_close_is_where_counting_begins(count: int, market: Market) -> None:
    start = nth_newest_close(market, count, NOW)
    assert 1 + closes_between(market, start, NOW) == count


def test_calendar_that_does_not_reach_back_gives_its_earliest_close() -> None:
    assert nth_newest_close(DAILY, 10**6, NOW).year < 1975


def test_nothing_is_late_while_the_market_is_shut() -> None:
    watch = Staleness(DAILY, hourly().drift)
    ages = {"A": FRIDAY, "B": FRIDAY}
    found = watch.evidence(MONDAY - timedelta(hours=1), bars=ages, features=ages)
    assert found == {"late_data": {}, "late_features": {}, "too_old": []}


def test_late_and_missing_series_are_named_with_the_bars_they_miss() -> None:
    watch = Staleness(DAILY, hourly().drift)
    now = datetime(2024, 3, 7, 21, tzinfo=UTC)
    found = watch.evidence(now, bars={"A": MONDAY, "B": None}, features={"A": now, "B": MONDAY - timedelta(days=4)})
    assert found["late_data"] == {"A": 3, "B": None}
    assert found["late_features"] == {"B": 5}
    assert found["too_old"] == ["B"]


@pytest.mark.parametrize(("late_bars", "late"), [(2, {}), (1, {"A": 1})])
def test_how_many_bars_make_a_series_late_is_a_parameter(late_bars: int, late: dict[str, int]) -> None:
    watch = Staleness(DAILY, changed(hourly(), {"drift.late_bars": late_bars}).drift)
    assert watch.evidence(MONDAY, bars={"A": FRIDAY}, features={})["late_data"] == late


@pytest.mark.parametrize(("model_age", "old"), [("90d", False), ("10d", True)])
def test_model_ages_by_bars_and_days(model_age: str, old: bool) -> None:
    watch = Staleness(DAILY, changed(hourly(), {"drift.model_age": model_age}).drift)
    found = watch.evidence(MONDAY, bars={}, features={}, train_end=FRIDAY - timedelta(days=14))
    assert (found["model_bars"], found["model_days"], found["model_old"]) == (10, 17.0, old)  # Presidents' Day was none


def test_components_are_late_by_the_wall_whatever_the_market_does() -> None:
    watch = Staleness(DAILY, hourly().drift)
    wall = datetime(2026, 1, 1, tzinfo=UTC)
    beats = [
        Seen("service", wall - timedelta(seconds=100)),
        Seen("loop", wall - timedelta(seconds=130.5)),
        Seen("trainer", wall + timedelta(hours=1)),  # the clock was set back
    ]
    assert watch.late_components(beats, wall) == {"loop": 130.5, "trainer": 3600.0}
    patient = Staleness(DAILY, changed(hourly(), {"drift.heartbeat": "5m"}).drift)
    assert patient.late_components(beats, wall) == {"trainer": 3600.0}
