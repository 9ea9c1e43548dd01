"""Features on a few bars whose values can be worked out on paper, and on bars on which nothing happens."""

from __future__ import annotations

import math
from datetime import timedelta

import numpy as np
import pytest

from tradeloop.bars import Bars
from tradeloop.features import FeatureSpec, registered

HOUR = np.timedelta64(1, "h")


def specs(calendar: str = "24/7", interval: timedelta = timedelta(hours=1)) -> dict[str, FeatureSpec]:
    return {spec.name: spec for spec in registered(interval=interval, calendar=calendar, inputs=())}


def bars_of(rows: list[tuple[float, float, float, float]], volume: float = 100.0) -> Bars:
    opened, high, low, close = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    times = np.datetime64("2024-01-01T01:00", "us") + np.arange(len(rows)) * HOUR
    return Bars("HAND", times, opened, high, low, close, np.full(len(rows), volume))


def closes(*values: float, volume: float = 100.0) -> Bars:
    return bars_of([(value, value, value, value) for value in values], volume)


def newest(name: str, bars: Bars, calendar: str = "24/7") -> float:
    return float(specs(calendar)[name].function(bars)[-1])


def test_an_efficient_walk_and_one_to_and_fro() -> None:
    assert newest("efficiency_10", closes(*np.exp(0.01 * np.arange(11)))) == pytest.approx(1)
    assert newest("efficiency_10", closes(*[100, 101] * 5, 100)) == pytest.approx(0)
    assert newest("cmo_9", closes(*np.exp([0, 1, 2, 3, 2, 1, 0, 1, 2, 3]))) == pytest.approx(3 / 9)


def test_a_channel_is_that_of_the_bars_before() -> None:
    before = [(100, 110, 90, 100)] * 20
    assert newest("donchian_20", bars_of([*before, (100, 105, 95, 105)])) == pytest.approx(0.75)
    assert newest("donchian_20", bars_of([*before, (110, 120, 110, 120)])) == pytest.approx(1.5)
    assert newest("donchian_20", bars_of([*before, (100, 500, 100, 500)])) == 2


def test_runs_and_steps() -> None:
    rising = closes(*range(100, 103), 102, *range(103, 111))
    assert newest("streak", rising) == 8
    assert newest("streak", closes(*range(120, 100, -1))) == -10
    assert newest("streak", closes(*[100] * 12)) == 0
    assert newest("stair_10", rising) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("second", "expected"), [((9.6, 9.8, 9.2, 9.4), -1), ((9, 11, 8, 10), 1), ((9.6, 11, 9.2, 10.5), 0)]
)
def test_inside_and_outside_bars(second: tuple[float, float, float, float], expected: int) -> None:
    assert newest("containment", bars_of([(9.5, 10, 9, 9.5), second])) == expected


def test_overlap_and_void() -> None:
    assert newest("overlap", bars_of([(10, 12, 10, 11), (11, 13, 11, 12)])) == pytest.approx(1 / 3)
    assert newest("overlap", bars_of([(10, 11, 10, 11), (13, 14, 13, 14)])) == pytest.approx(-2 / 4)


def test_a_gap_and_how_much_of_it_was_traded_back() -> None:
    assert newest("gap_fill", bars_of([(10, 10, 10, 10), (12, 13, 11.5, 13)])) == pytest.approx(0.25)
    assert newest("gap_fill", bars_of([(10, 10, 10, 10), (8, 11, 8, 8)])) == 1
    assert newest("gap_fill", bars_of([(10, 10, 10, 10), (10, 13, 10, 13)])) == 1


def test_a_pivot_is_known_three_bars_late() -> None:
    flat = [100.0] * 50
    top = [101.0, 102.0, 110.0, 104.0, 103.0]
    three_later = closes(*flat, *flat[:4], *top, 102)
    assert newest("pivot_high_distance_60", three_later) == pytest.approx(math.log(102 / 110))
    two_later = closes(*flat, *flat[:5], *top)  # the newest confirmed high is still that of the flat before
    assert newest("pivot_high_distance_60", two_later) == pytest.approx(math.log(103 / 100))
    rising = closes(*np.linspace(90, 95, 57), 110, 104, 103)
    assert newest("pivot_order_60", rising) == pytest.approx((2 - 59) / 60)  # no pivots: the window's extremes


def test_drawdown_is_measured_from_the_high_before_it() -> None:
    path = closes(*[100.0] * 10, 120, 90, 130, 110, *[110.0] * 6)
    assert newest("max_drawdown_20", path) == pytest.approx(math.log(120 / 90))
    falls = [math.log(120 / 90), *[math.log(130 / 110)] * 7]
    assert newest("ulcer_20", path) == pytest.approx(math.sqrt(sum(fall**2 for fall in falls) / 20))


def test_alternating_returns_have_memory_and_no_surprise() -> None:
    path = closes(*[100.0, 101.0] * 70)
    assert newest("autocorrelation_1", path) == pytest.approx(-1)
    assert newest("autocorrelation_2", path) == pytest.approx(1)
    assert newest("sign_entropy_60", path) == pytest.approx(1 / 3)  # two words of eight
    assert newest("permutation_entropy_60", path) == pytest.approx(math.log(2) / math.log(6))
    assert newest("variance_ratio_5", path) == pytest.approx(1 / 5, rel=1e-3)  # five moves come to one


def test_returns_of_busy_and_quiet_bars() -> None:
    rng = np.random.default_rng(3)
    made = closes(*np.exp(np.cumsum(rng.normal(0, 0.01, 61))))
    busy = Bars("HAND", made.timestamp, made.open, made.high, made.low, made.close, np.tile([1.0, 2.0], 31)[:61])
    change = np.diff(np.log(made.close))
    assert newest("busy_return_60", busy) == pytest.approx(change[0::2].sum())
    assert newest("quiet_return_60", busy) == pytest.approx(change[1::2].sum())


NEUTRAL = {
    "sma_distance_10": 0, "above_average_20": 0, "vortex_14": 0, "trend_correlation_20": 0, "regression_slope_20": 0,
    "efficiency_10": 0, "choppiness_14": 0.5, "path_range_28": 0, "donchian_20": 0.5, "adx_14": 0, "tsi": 0,
    "scaled_return_60": 0, "rsi_14": 0.5, "stochastic_14": 0.5, "stochastic_rsi_14": 0.5, "fisher_10": 0, "cci_20": 0,
    "cmo_20": 0, "ultimate": 0.5, "intraday_momentum_14": 0.5, "vigor_10": 0, "price_zscore_20": 0,
    "log_volatility_20": math.log(1e-5), "log_atr_14": math.log(1e-5), "downside_share_20": 0.5, "jump_share_20": 0,
    "gap_share_20": 0.5, "squeeze_20": 0, "mass_index": 0, "volatility_clustering_60": 0, "leverage_60": 0,
    "range_skew_60": 0, "relative_volume_20": 0, "volume_zscore_20": 0, "volume_variation_20": 0, "obv_slope_20": 0,
    "money_flow_14": 0.5, "chaikin_flow_20": 0, "force_13": 0, "vwap_distance_20": 0, "volume_confirmation_20": 0,
    "illiquidity_20_120": 0, "ease_of_movement_14": 0, "close_location": 0, "wick_balance_10": 0, "overlap": 1,
    "range_share": 0, "containment": 0, "streak": 0, "return_zscore_20": 0, "skewness_20": 0, "kurtosis_20": 0,
    "autocorrelation_1": 0, "variance_ratio_5": 1, "hurst_120": 0.5, "sign_entropy_60": 0, "permutation_entropy_60": 0,
    "tail_asymmetry_60": 0, "centre_share_60": 0.41, "mean_reversion_60": 0, "fractal_dimension_30": 1.5,
    "max_drawdown_20": 0, "session_position": 0.5, "session_range": 0, "session_vwap_distance": 0,
}  # fmt: skip


@pytest.mark.parametrize("name", NEUTRAL)
def test_where_nothing_happens_the_neutral_value_stands(name: str) -> None:
    flat = closes(*[1.097] * 400, volume=0.0)
    assert newest(name, flat) == pytest.approx(NEUTRAL[name], abs=1e-12)


def at(*times: str, price: float = 100.0) -> Bars:
    stamps = np.array(times, dtype="datetime64[us]")
    level = price + np.arange(len(times), dtype=float)
    return Bars("HAND", stamps, level, level + 0.5, level - 0.5, level, np.full(len(times), 10.0))


@pytest.mark.parametrize(
    ("calendar", "time", "days"),
    [
        ("XNYS", "2024-11-27T21:00", 45 / 24),  # before Thanksgiving: the next close is Friday's early one, 18:00 UTC
        ("XNYS", "2024-11-29T18:00", 75 / 24),  # after it: Monday 21:00
        ("XNYS", "2024-11-29T15:30", 2.5 / 24),
        ("XNYS", "2024-03-08T21:00", 71 / 24),  # the weekend on which New York puts its clocks forward
        ("24/7", "2024-03-08T21:00", 3 / 24),
        ("24/5", "2024-03-08T21:00", 1 / 24),  # Friday 17:00 in New York
        ("24/5", "2024-03-08T22:00", 71 / 24),  # Monday 17:00, daylight saving time
    ],
)
def test_the_next_close_is_known_beforehand(calendar: str, time: str, days: float) -> None:
    assert newest("log_days_to_close", at(time), calendar) == pytest.approx(math.log(days))


@pytest.mark.parametrize(
    ("time", "progress", "first", "last"),
    [
        ("2024-11-29T15:30", 1 / 3.5, 1, 0),
        ("2024-11-29T17:00", 2.5 / 3.5, 0, 0),
        ("2024-11-29T17:01", 151 / 210, 0, 1),
        ("2024-11-29T18:00", 1, 0, 1),
        ("2024-11-30T12:00", 0, 1, 0),  # Saturday: Monday's session has not begun
    ],
)
def test_an_early_close_moves_the_last_hour(time: str, progress: float, first: int, last: int) -> None:
    assert newest("session_progress", at(time), "XNYS") == pytest.approx(progress)
    assert (newest("first_hour", at(time), "XNYS"), newest("last_hour", at(time), "XNYS")) == (first, last)


@pytest.mark.parametrize(
    ("day", "expected"),
    [("2024-08-30", 1), ("2024-08-29", 0), ("2024-09-03", 1), ("2024-09-05", 1), ("2024-09-06", 0)],
)
def test_the_turn_of_the_month_counts_sessions(day: str, expected: int) -> None:
    """Labor Day 2024 fell on September 2: the first three sessions are the 3rd, 4th and 5th, the last the 30th."""
    assert newest("turn_of_month", at(f"{day}T20:00"), "XNYS") == expected


def test_third_fridays_and_winter() -> None:
    assert newest("expiry_distance", at("2024-03-15T00:00")) == pytest.approx(0)
    assert newest("expiry_distance", at("2024-11-16T12:00")) == pytest.approx(1.5 / 31)
    assert [newest("winter", at(f"2024-{month:02d}-15")) for month in range(1, 13)] == [1] * 4 + [0] * 6 + [1] * 2


def test_a_session_remembers_the_one_before() -> None:
    times = [f"2024-01-0{day}T{hour:02d}:00" for day in (1, 2, 3) for hour in range(1, 24)]
    bars = at(*times)  # 23 bars a day, since midnight closes the day before; prices rise by 1 from 100
    assert newest("session_return", bars) == pytest.approx(math.log(168 / 146))
    assert newest("session_gap", bars) == pytest.approx(math.log(146 / 145))
    assert newest("session_position", bars) == pytest.approx(22.5 / 23)
    assert newest("last_session_high_distance", bars) == pytest.approx(math.log(168 / 145.5))
    assert newest("last_session_low_distance", bars) == pytest.approx(math.log(168 / 122.5))
    assert newest("session_vwap_distance", bars) == pytest.approx(math.log(168 / 157))


def test_the_day_of_foreign_exchange_begins_in_the_evening_of_new_york() -> None:
    bars = at("2024-07-09T20:00", "2024-07-09T21:00", "2024-07-09T22:00", "2024-07-09T23:00")
    # 17:00 in New York is 21:00 UTC in summer: two bars lie in the session before
    assert newest("session_return", bars, "24/5") == pytest.approx(math.log(103 / 102))
    assert newest("session_gap", bars, "24/5") == pytest.approx(math.log(102 / 101))
    assert newest("session_gap", bars, "24/7") != newest("session_gap", bars, "24/7")  # no day before: not known
