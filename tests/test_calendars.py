from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.calendars import close_stamps, expected_closes, next_session_closes, session_closes, sessions
from tradeloop.errors import ConfigError

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def at(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[us]")


def test_session_closes_know_early_closes_daylight_saving_and_holidays() -> None:
    closes = session_closes("XNYS", at("2012-11-23", "2012-11-22", "2012-07-02", "2012-12-31", "1999-11-26"))
    expected = at("2012-11-23T18:00", "NaT", "2012-07-02T20:00", "2012-12-31T21:00", "1999-11-26T18:00")
    np.testing.assert_array_equal(closes, expected)


def test_session_closes_of_nothing_are_nothing() -> None:
    assert len(session_closes("XNYS", at())) == len(next_session_closes("XNYS", at())) == 0


def test_next_session_close_is_of_a_later_day_even_from_a_holiday() -> None:
    closes = next_session_closes("XNYS", at("2012-11-22", "2012-11-23", "2012-11-24", "2009-12-31"))
    expected = at("2012-11-23T18:00", "2012-11-26T21:00", "2012-11-26T21:00", "2010-01-04T21:00")
    np.testing.assert_array_equal(closes, expected)


@pytest.mark.parametrize(
    ("open_", "close"),
    [
        ("2024-11-27T14:30", "2024-11-27T15:30"),  # the first bar of a plain day
        ("2024-11-27T20:30", "2024-11-27T21:00"),  # the last: half an hour to the bell
        ("2024-11-29T16:30", "2024-11-29T17:30"),  # the day after Thanksgiving …
        ("2024-11-29T17:30", "2024-11-29T18:00"),  # … ends at 13:00 in New York
        ("2024-11-28T15:30", "2024-11-28T16:30"),  # Thanksgiving itself: no session cuts the bar
        ("2024-11-27T22:00", "2024-11-27T23:00"),  # after hours
    ],
)
def test_close_stamp_is_an_interval_later_or_the_bell(open_: str, close: str) -> None:
    np.testing.assert_array_equal(close_stamps("XNYS", at(open_), HOUR), at(close))


def test_close_stamps_stop_at_a_lunch_break() -> None:
    opens = at("2020-01-06T02:00", "2020-01-06T03:30", "2020-01-06T05:30")  # Tokyo: 11:00, 12:30, 14:30
    expected = at("2020-01-06T02:30", "2020-01-06T04:30", "2020-01-06T06:00")
    np.testing.assert_array_equal(close_stamps("XTKS", opens, HOUR), expected)


def test_foreign_exchange_trades_from_sunday_to_friday_evening_in_new_york() -> None:
    closes = expected_closes(
        "24/5", HOUR, np.datetime64("2017-03-10T20:00", "us"), np.datetime64("2017-03-13T00:00", "us")
    )
    # Clocks went forward on the 12th: the week ended at 22:00 UTC and began at 21:00.
    expected = at("2017-03-10T20:00", "2017-03-10T21:00", "2017-03-10T22:00")
    expected = np.append(expected, at("2017-03-12T22:00", "2017-03-12T23:00", "2017-03-13T00:00"))
    np.testing.assert_array_equal(closes, expected)


def test_a_foreign_exchange_bar_is_not_cut_where_one_session_follows_another() -> None:
    np.testing.assert_array_equal(
        close_stamps("24/5", at("2017-03-08T20:00", "2017-03-10T20:00"), timedelta(hours=4)),
        at("2017-03-09T00:00", "2017-03-10T22:00"),
    )


def test_expected_closes_of_hours_of_new_york() -> None:
    first, last = np.datetime64("2024-11-27T18:00", "us"), np.datetime64("2024-11-29T23:00", "us")
    expected = at("2024-11-27T18:30", "2024-11-27T19:30", "2024-11-27T20:30", "2024-11-27T21:00")
    expected = np.append(expected, at("2024-11-29T15:30", "2024-11-29T16:30", "2024-11-29T17:30", "2024-11-29T18:00"))
    np.testing.assert_array_equal(expected_closes("XNYS", HOUR, first, last), expected)


def test_expected_closes_include_both_ends_and_pass_over_new_year() -> None:
    first, last = np.datetime64("2021-12-31T23:30", "us"), np.datetime64("2022-01-01T00:15", "us")
    expected = at("2021-12-31T23:30", "2021-12-31T23:45", "2022-01-01T00:00", "2022-01-01T00:15")
    np.testing.assert_array_equal(expected_closes("24/7", timedelta(minutes=15), first, last), expected)


def test_expected_daily_closes_are_those_of_the_sessions() -> None:
    first, last = np.datetime64("2012-11-21T21:00", "us"), np.datetime64("2012-11-26T21:00", "us")
    expected = at("2012-11-21T21:00", "2012-11-23T18:00", "2012-11-26T21:00")
    np.testing.assert_array_equal(expected_closes("XNYS", DAY, first, last), expected)


def test_intervals_above_a_day_are_refused() -> None:
    with pytest.raises(ConfigError, match="at most 1d, got 7 days"):
        expected_closes("24/7", timedelta(days=7), np.datetime64("2020-01-01", "us"), np.datetime64("2021-01-01", "us"))


def test_unknown_calendar_is_named() -> None:
    with pytest.raises(ConfigError, match="got 'XNYC'"):
        session_closes("XNYC", at("2020-01-02"))


def test_a_calendar_with_a_short_record_gives_what_it_has() -> None:
    table = sessions("XBOM", np.datetime64("1995-01-01"), np.datetime64("1997-01-03"))
    assert str(table.index[0].date()) == "1997-01-01"


@settings(deadline=None, max_examples=80)
@given(
    st.datetimes(datetime(2010, 1, 9), datetime(2019, 12, 1)),
    st.sampled_from(["24/7", "24/5", "XNYS"]),
    st.sampled_from([5, 15, 60, 240]),
)
def test_a_bar_opened_on_the_grid_closes_on_the_grid(time: datetime, calendar: str, minutes: int) -> None:
    interval = timedelta(minutes=minutes)
    first = np.datetime64(time, "us")
    grid = expected_closes(calendar, interval, first, first + np.timedelta64(10, "D"))
    assert (np.diff(grid) > np.timedelta64(0)).all()
    # A bar that does not start a stretch of trading opens where the one before it closes.
    follows = np.diff(grid) <= np.timedelta64(interval)
    np.testing.assert_array_equal(close_stamps(calendar, grid[:-1][follows], interval), grid[1:][follows])


@settings(deadline=None, max_examples=100)
@given(st.datetimes(datetime(2001, 1, 1), datetime(2029, 12, 1), timezones=st.just(UTC)))
def test_foreign_exchange_is_open_by_the_clock_of_new_york(time: datetime) -> None:
    there = time.astimezone(ZoneInfo("America/New_York"))
    hours = there.weekday() * 24 + there.hour  # since Monday began
    is_open = hours < 4 * 24 + 17 or hours >= 6 * 24 + 17
    moment = np.datetime64(time.replace(tzinfo=None), "us")
    table = sessions("24/5", moment - np.timedelta64(4, "D"), moment + np.timedelta64(4, "D"))
    assert ((table["open"] <= moment) & (moment < table["close"])).any() == is_open


def test_round_the_clock_markets_do_not_load_exchange_calendars() -> None:
    code = (
        "import sys, numpy as np; from tradeloop.calendars import session_closes;"
        "session_closes('24/5', np.array(['2017-01-03'], 'datetime64[D]'));"
        "sys.exit('exchange_calendars' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
