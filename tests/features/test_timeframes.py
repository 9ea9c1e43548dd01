"""Higher bars by hand, against pandas, and what is read from them."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from tests.features.conftest import market_bars
from tradeloop.bars import Bars
from tradeloop.features import Timeframe, registered
from tradeloop.features.multi_timeframe import CHANGES, COLUMNS, higher_bars
from tradeloop.features.timeframes import gather

MINUTE, HOUR, DAY, WEEK = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1), timedelta(weeks=1)


def bars_at(*times: str, close: list[float] | None = None) -> Bars:
    """Return bars at these closes that rise by one each; a bar's range is ±0.5, its volume its number."""
    stamps = np.array(times, dtype="datetime64[us]")
    prices = np.array(close) if close else 10.0 + np.arange(len(times))
    return Bars("X", stamps, prices, prices + 0.5, prices - 0.5, prices, 1.0 + np.arange(len(times)))


def test_the_base_bar_that_ends_with_the_bucket_closes_it() -> None:
    hours = gather(bars_at("2024-03-04T09:30", "2024-03-04T09:45", "2024-03-04T10:00", "2024-03-04T10:15"), HOUR)
    assert hours.own.tolist() == [0, 0, 0, 1]
    assert hours.closed.tolist() == [0, 0, 1, 1]
    assert hours.close.tolist() == [12.0, 13.0] and hours.high.tolist() == [12.5, 13.5]
    assert hours.low.tolist() == [9.5, 12.5] and hours.volume.tolist() == [6.0, 4.0]


def test_a_bucket_whose_last_bar_is_missing_closes_with_the_next_bucket_s_first() -> None:
    hours = gather(bars_at("2024-03-04T09:15", "2024-03-04T09:45", "2024-03-04T10:15", "2024-03-04T11:00"), HOUR)
    assert hours.closed.tolist() == [0, 0, 1, 2]


def test_hours_without_bars_have_no_higher_bar() -> None:
    hours = gather(bars_at("2024-03-04T09:30", "2024-03-04T13:30", "2024-03-04T14:00"), HOUR)
    assert hours.own.tolist() == [0, 1, 1] and hours.closed.tolist() == [0, 1, 2]
    assert hours.volume.tolist() == [1.0, 5.0]


def test_a_session_is_one_day_and_is_there_from_the_next_one_s_first_bar() -> None:
    """New York, 2024-03-08 and 2024-03-11: summer time came in between, the session's UTC hours moved, its days not."""
    winter = [f"2024-03-08T{hour}:30" for hour in range(15, 21)] + ["2024-03-08T21:00"]
    summer = [f"2024-03-11T{hour}:30" for hour in range(14, 20)] + ["2024-03-11T20:00"]
    days = gather(bars_at(*winter, *summer), DAY)
    assert days.own.tolist() == [0] * 7 + [1] * 7
    assert days.closed.tolist() == [0] * 7 + [1] * 7
    assert days.close.tolist() == [16.0, 23.0]


def test_weeks_begin_on_monday_and_hold_sunday_evening() -> None:
    # Friday, Sunday evening, Monday 00:00 (the week's last moment), Monday evening
    weeks = gather(bars_at("2024-03-08T22:00", "2024-03-10T23:00", "2024-03-11T00:00", "2024-03-11T22:00"), WEEK)
    assert weeks.own.tolist() == [0, 0, 0, 1]
    assert weeks.closed.tolist() == [0, 0, 1, 1]


def test_times_before_1970_have_buckets_too() -> None:
    days = gather(bars_at("1969-12-30T12:00", "1969-12-31T00:00", "1969-12-31T12:00", "1970-01-01T12:00"), DAY)
    assert days.own.tolist() == [0, 0, 1, 2] and days.closed.tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize(("market", "symbol"), [("btc_15m", "BTCUSD"), ("eurusd_hourly", "EURUSD")])
@pytest.mark.parametrize("span", ["4h", "1D", "7D"])
def test_higher_bars_are_those_of_pandas(market: str, symbol: str, span: str) -> None:
    bars = market_bars(market, symbol)
    frame = pd.DataFrame(
        {"high": bars.high, "low": bars.low, "close": bars.close, "volume": bars.volume}, index=bars.timestamp
    )
    rule = frame.resample(span, closed="right", label="right", origin=pd.Timestamp("1970-01-05"))
    theirs = rule.agg({"high": "max", "low": "min", "close": "last", "volume": "sum"}).dropna()
    ours = gather(bars, pd.Timedelta(span).to_pytimedelta())
    assert len(ours.close) == len(theirs) > 10
    for name in ("high", "low", "close"):
        np.testing.assert_array_equal(getattr(ours, name), theirs[name])
    np.testing.assert_allclose(ours.volume, theirs["volume"])
    ends = theirs.index.to_numpy()
    seen = [(ends <= time).sum() for time in bars.timestamp]
    np.testing.assert_array_equal(ours.closed, seen)


def columns(bars: Bars, name: str, span: timedelta, per: int) -> dict[str, np.ndarray]:
    return dict(zip(COLUMNS, higher_bars(bars, Timeframe(name, span, per)), strict=True))


def test_columns_are_those_of_the_closed_bars_by_pandas() -> None:
    bars = market_bars("eurusd_hourly", "EURUSD")[-1500:]
    found = columns(bars, "4h", timedelta(hours=4), 4)
    index = pd.DatetimeIndex(bars.timestamp)
    base = pd.Series(bars.close, index)
    high, low = pd.Series(bars.high, index), pd.Series(bars.low, index)
    rule = {"closed": "right", "label": "right"}
    frame = pd.DataFrame(
        {
            "high": high.resample("4h", **rule).max(),
            "low": low.resample("4h", **rule).min(),
            "close": base.resample("4h", **rule).last(),
            "volume": pd.Series(bars.volume, index).resample("4h", **rule).sum(),
        }
    ).dropna()
    for row in (300, 777, 778, 779, 780, 1499):
        closed = frame[frame.index <= index[row]].iloc[-CHANGES - 1 :]
        change = np.log(closed["close"]).diff().iloc[1:]
        last = closed.iloc[1:]
        assert found["return"][row] == pytest.approx(change.iloc[-1], abs=1e-12)
        assert found["rsi"][row] == pytest.approx(change.clip(lower=0).sum() / change.abs().sum())
        parkinson = (np.log(last.high / last.low) ** 2 / (4 * np.log(2))).mean()
        assert found["log_volatility"][row] == pytest.approx(0.5 * np.log(parkinson))
        volume = last.volume.iloc[-1] / last.volume.mean()
        assert found["relative_volume"][row] == pytest.approx(np.log((volume + 0.01) / 1.01))
        place = (bars.close[row] - last.low.min()) / (last.high.max() - last.low.min())
        assert found["range_position"][row] == pytest.approx(np.clip(place, -1, 2))
        assert found["sma_distance"][row] == pytest.approx(np.log(bars.close[row] / last.close.mean()))
        ours = np.corrcoef(closed["close"], np.arange(CHANGES + 1))[0, 1]
        theirs = np.corrcoef(bars.close[row - CHANGES : row + 1], np.arange(CHANGES + 1))[0, 1]
        assert found["slope_agreement"][row] == pytest.approx(ours * theirs)


def test_direction_of_a_steady_climb_by_hand() -> None:
    """Each day's high, low and close are 1 % above the day before's: DM⁺ is ln 1.01 a day, TR ln(H / C_{t−1})."""
    times = np.datetime64("2024-03-04T21:00", "us") + np.arange(120) * np.timedelta64(1, "D")
    close = 100 * 1.01 ** np.arange(120)
    bars = Bars("UP", times, close, close * 1.005, close * 0.999, close, np.ones(120))
    found = columns(bars, "1w", WEEK, 7)
    row = 119
    weekly = np.log(1.01) * 7
    highs, lows = np.log(1.005), np.log(0.999)
    spread = max(weekly + highs, highs - lows + 6 * np.log(1.01)) - min(0.0, weekly + lows - 6 * np.log(1.01))
    assert found["return"][row] == pytest.approx(weekly)
    assert found["rsi"][row] == 1.0
    assert found["direction"][row] == pytest.approx(weekly / spread)
    assert found["slope_agreement"][row] == pytest.approx(
        np.corrcoef(1.01 ** np.arange(0, 77, 7), np.arange(11))[0, 1]
        * np.corrcoef(1.01 ** np.arange(11), np.arange(11))[0, 1]
    )


def test_an_open_higher_bar_has_no_say() -> None:
    """Between two closes of the higher bar only what reads the base close moves."""
    bars = market_bars("eurusd_hourly", "EURUSD")[-600:]
    found = columns(bars, "1d", DAY, 24)
    still = np.flatnonzero(np.diff(gather(bars, DAY).closed) == 0)
    still = still[still >= 24 * (CHANGES + 3)]
    assert len(still) > 200
    for name in ("return", "rsi", "direction", "log_volatility", "relative_volume"):
        assert (np.diff(found[name])[still] == 0).all() and np.diff(found[name])[still.min() :].any(), name
    assert (np.diff(found["sma_distance"])[still] != 0).mean() > 0.9


def test_base_bars_too_dense_for_the_interval_give_what_their_span_holds() -> None:
    """One bar a minute where the market's interval says an hour: the lookback holds an hour, and no closed day."""
    size = 400
    times = np.datetime64("2024-03-04T21:00", "us") + np.arange(size) * np.timedelta64(1, "m")
    close = 100 + np.cumsum(np.random.default_rng(3).normal(0, 0.1, size))
    bars = Bars("DENSE", times, close, close, close, close, np.ones(size))
    found = columns(bars, "1d", DAY, 24)
    assert (found["rsi"][24 * 13 - 1 :] == 0.5).all() and (found["return"][24 * 13 - 1 :] == 0).all()
    assert np.isnan(found["rsi"][: 24 * 13 - 1]).all()


def test_a_bucket_that_may_have_begun_before_the_lookback_has_no_say() -> None:
    """Six bars an hour where four hours are said to hold four: the lookback begins in the middle of a bucket."""
    size = 300
    rng = np.random.default_rng(9)
    times = np.datetime64("2024-03-04T21:00", "us") + np.arange(size) * np.timedelta64(10, "m")
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, size)))
    bars = Bars("DENSE", times, close, close * 1.01, close / 1.01, close, rng.lognormal(3, 1, size))
    span, lookback = timedelta(hours=4), 4 * (CHANGES + 3)
    full = columns(bars, "4h", span, 4)
    for row in range(lookback - 1, size):
        tail = columns(bars[row - lookback + 1 : row + 1], "4h", span, 4)
        assert [values[-1] for values in tail.values()] == [values[row] for values in full.values()]


def test_timeframes_follow_the_interval() -> None:
    def names(interval: timedelta) -> set[str]:
        return {spec.name.rpartition("_")[2] for spec in registered(["multi_timeframe"], interval=interval)}

    assert names(MINUTE) == {"5m", "15m", "1h", "4h", "1d"}
    assert names(HOUR) == {"4h", "1d"}
    assert names(DAY) == {"1w"}
    assert len(registered(["multi_timeframe"], interval=15 * MINUTE)) == 3 * len(COLUMNS)
