"""Sessions and dates: whole on every calendar, whatever hours the bars come at, and the same as datetime64 has them."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.features.conftest import made_bars, market_params
from tradeloop.bars import Bars
from tradeloop.features import compute, registered, schema_for
from tradeloop.features.contract import violations
from tradeloop.features.schedule import dates, session_times
from tradeloop.schema import Schema

CALENDARS = ("XNYS", "XTKS", "24/5", "24/7")


@pytest.mark.parametrize("calendar", CALENDARS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(bars=made_bars())
def test_the_contract_holds_on_every_calendar(calendar: str, bars: Bars) -> None:
    for spec in registered(["calendar", "session"], interval=timedelta(hours=1), calendar=calendar):
        assert violations(spec.function, bars, spec.lookback) == [], spec.name


def of(times: np.ndarray) -> Bars:
    level = np.ones(len(times))
    return Bars("TIMES", times, level, level, level, level, level)


@given(seconds=st.lists(st.integers(-2_000_000_000, 6_000_000_000), min_size=1, max_size=40))
def test_dates_are_those_of_pandas(seconds: list[int]) -> None:
    times = np.sort(np.array(seconds)).astype("datetime64[s]").astype("datetime64[us]")
    weekday, month, month_gone, since_expiry, day_gone = dates(of(times))
    stamps = pd.Series(times)
    into = (stamps - stamps.dt.normalize()) / pd.Timedelta(days=1)
    np.testing.assert_array_equal(weekday, stamps.dt.weekday)
    np.testing.assert_array_equal(month, stamps.dt.month - 1)
    np.testing.assert_allclose(month_gone, (stamps.dt.day - 1 + into) / stamps.dt.days_in_month, atol=1e-12)
    np.testing.assert_allclose(day_gone, into, atol=1e-12)
    first = stamps.dt.normalize() - pd.to_timedelta(stamps.dt.day - 1, unit="D")
    friday = first + pd.to_timedelta((4 - first.dt.weekday) % 7 + 14, unit="D")
    np.testing.assert_allclose(since_expiry, (stamps - friday) / pd.Timedelta(days=1), atol=1e-9)


def test_where_the_calendar_ends_its_last_session_stands() -> None:
    bars = of(np.array(["1880-01-01T12:00", "2024-07-01T15:00", "2300-01-01T12:00"], dtype="datetime64[us]"))
    for bar in range(3):
        known = session_times(bars[bar : bar + 1], "24/7")
        assert known.shape == (6, 1) and np.isfinite(known).all()
    assert session_times(of(bars.timestamp[:0]), "XNYS").shape == (6, 0)


def test_the_schema_knows_its_calendar_and_a_row_of_another_is_refused() -> None:
    params = market_params("aapl_hourly")
    everything = params.features.model_copy(update={"columns": None})  # the default columns ask no calendar
    params = params.model_copy(update={"features": everything})
    schema = schema_for(params)
    assert schema.calendar == "XNYS"
    assert Schema.of(schema.content()) == schema
    elsewhere = params.active.model_copy(update={"calendar": "24/7"})
    other = schema_for(params.model_copy(update={"markets": {**params.markets, params.market: elsewhere}}))
    assert other.names == schema.names and other.hash != schema.hash


def test_the_columns_follow_the_calendar() -> None:
    times = np.arange("2024-11-25T15", "2024-11-30T15", dtype="datetime64[h]").astype("datetime64[us]")
    params = market_params("synthetic")
    rows = {}
    for calendar in CALENDARS:
        market = params.active.model_copy(update={"calendar": calendar})
        schema = schema_for(
            params.model_copy(
                update={
                    "markets": {**params.markets, params.market: market},
                    "features": params.features.model_copy(
                        update={"families": ["calendar", "session"], "columns": None}
                    ),
                }
            )
        )
        rows[calendar] = compute(of(times), schema)[:, schema.names.index("log_days_to_close")]
    assert len({row.tobytes() for row in rows.values()}) == len(CALENDARS)
