"""Baselines by hand, and that none of them knows more than the closed bars."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tradeloop import baselines
from tradeloop.bars import Bars
from tradeloop.baselines import Sample
from tradeloop.errors import DataError

DAY = np.timedelta64(1, "D")
START = np.datetime64("2020-01-01T21:00:00", "us")


def sample(direction: list[float], *, train: int, horizon: int = 1, symbols: int = 1) -> Sample:
    """Rows of `symbols` symbols in turn, day by day; return and range labels are functions of the row number."""
    rows = np.arange(len(direction))
    timestamp = START + (rows // symbols) * DAY
    y = {"direction": np.array(direction, dtype=float), "return": rows / 100.0, "range": -4.0 + rows / 10.0}
    name = np.array([f"S{row % symbols}" for row in rows], dtype=object)
    return Sample(name, timestamp, timestamp + horizon * DAY, y, rows[:train], rows[train:])


class TestPreviousLabel:
    def test_the_newest_label_that_has_ended(self) -> None:
        np.testing.assert_array_equal(
            baselines.previous_label(sample([1, 0, 1, 1], train=2), "direction"), [math.nan, 1, 0, 1]
        )

    def test_a_label_of_three_bars_is_known_three_bars_later(self) -> None:
        last = baselines.previous_label(sample([0] * 6, train=2, horizon=3), "return")
        np.testing.assert_allclose(last, [math.nan] * 3 + [0.0, 0.01, 0.02])

    def test_symbols_are_kept_apart(self) -> None:
        last = baselines.previous_label(sample([0] * 6, train=2, symbols=2), "return")
        np.testing.assert_allclose(last, [math.nan, math.nan, 0.0, 0.01, 0.02, 0.03])

    def test_a_label_that_ends_a_moment_later_is_not_known(self) -> None:
        rows = sample([0] * 4, train=2)
        late = Sample(
            rows.symbol, rows.timestamp, rows.label_end + np.timedelta64(1, "us"), rows.y, rows.train, rows.test
        )
        np.testing.assert_allclose(baselines.previous_label(late, "return"), [math.nan, math.nan, 0.0, 0.01])


class TestConstants:
    def test_majority_is_the_training_prevalence(self) -> None:
        np.testing.assert_allclose(baselines.majority(sample([1, 1, 1, 0, 0, 0], train=4)), [0.75, 0.75])

    def test_training_mean(self) -> None:
        np.testing.assert_allclose(baselines.training_mean(sample([0] * 4, train=3), "return"), [0.01])

    def test_previous_value_without_a_past_is_the_training_mean(self) -> None:
        rows = sample([0] * 4, train=3)
        rows.symbol[3] = "NEW"
        np.testing.assert_allclose(baselines.previous_value(rows, "return"), [0.01])
        np.testing.assert_allclose(baselines.previous_value(sample([0] * 4, train=3), "return"), [0.02])

    def test_previous_direction_is_a_markov_chain_of_the_training_rows(self) -> None:
        #      train: 1 1 0 1 1 0 | after 1: 1 0 1 0 → 1/2; after 0: 1 → 1;  test rows follow 0 and 1
        rows = sample([1, 1, 0, 1, 1, 0, 1, 0], train=6)
        np.testing.assert_allclose(baselines.previous_direction(rows), [1.0, 0.5])


def walk(seed: int, count: int, symbol: str = "S0") -> Bars:
    rng = np.random.default_rng(seed)
    volatility = np.exp(-4 + np.cumsum(rng.normal(0, 0.1, count)))
    close = np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    high, low = close * np.exp(volatility / 2), close * np.exp(-volatility / 2)
    return Bars(symbol, START + np.arange(count) * DAY, close, high, low, close, np.ones(count))


def range_sample(bars: Bars, *, train: int) -> Sample:
    """Rows at every bar but the last; the label is the next bar's log Parkinson volatility."""
    log_range = np.log(np.log(bars.high / bars.low) / math.sqrt(4 * math.log(2)))
    rows = np.arange(len(bars) - 1)
    times = bars.timestamp
    name = np.full(len(rows), bars.symbol, dtype=object)
    return Sample(name, times[:-1], times[1:], {"range": log_range[1:]}, rows[:train], rows[train:])


FORECASTS: dict[str, Callable[[Sample, dict[str, Bars]], np.ndarray]] = {
    "ewma": lambda rows, bars: baselines.ewma(rows, bars, "parkinson"),
    "ewma of squared returns": lambda rows, bars: baselines.ewma(rows, bars, "realised"),
    "har": baselines.har,
}


class TestRange:
    def test_har_is_the_least_squares_of_three_means(self) -> None:
        bars = walk(0, 300)
        rows = range_sample(bars, train=200)
        known = np.r_[
            np.nan, rows.y["range"]
        ]  # log range of each bar; the first follows from the second row's regressors
        known[0] = np.log(np.log(bars.high[0] / bars.low[0]) / math.sqrt(4 * math.log(2)))
        x = np.array([[1, known[t], known[t - 4 : t + 1].mean(), known[t - 21 : t + 1].mean()] for t in range(21, 299)])
        beta = np.linalg.lstsq(x[: 200 - 21], rows.y["range"][21:200], rcond=None)[0]
        np.testing.assert_allclose(baselines.har(rows, {"S0": bars}), x[200 - 21 :] @ beta, rtol=1e-9)

    def test_ewma_by_recursion(self) -> None:
        bars = walk(1, 80)
        rows = range_sample(bars, train=50)
        variance = np.log(bars.high / bars.low) ** 2 / (4 * math.log(2))
        total = weight = 0.0
        level = []
        for value in variance:
            total, weight = 0.94 * total + value, 0.94 * weight + 1
            level.append(math.log(total / weight) / 2)
        level = np.array(level[:-1])
        shift = (rows.y["range"] - level)[:50].mean()
        np.testing.assert_allclose(baselines.ewma(rows, {"S0": bars}, "parkinson"), level[50:] + shift)

    @pytest.mark.parametrize("name", FORECASTS)
    def test_later_bars_change_nothing(self, name: str) -> None:
        bars, other = walk(2, 200), walk(3, 200)
        rows = range_sample(bars, train=100)
        cut = 150
        changed = Bars(
            "S0",
            bars.timestamp,
            *(
                np.r_[getattr(bars, c)[:cut], getattr(other, c)[cut:]]
                for c in ("open", "high", "low", "close", "volume")
            ),
        )
        before, after = (FORECASTS[name](rows, {"S0": one}) for one in (bars, changed))
        np.testing.assert_allclose(before[: cut - 100], after[: cut - 100])
        assert abs(before[cut - 100] - after[cut - 100]) > 1e-6

    @pytest.mark.parametrize("name", FORECASTS)
    def test_labels_of_the_holdout_change_nothing(self, name: str) -> None:
        bars = walk(2, 200)
        rows = range_sample(bars, train=100)
        other = Sample(
            rows.symbol, rows.timestamp, rows.label_end, {"range": rows.y["range"].copy()}, rows.train, rows.test
        )
        other.y["range"][rows.test] += 5
        np.testing.assert_array_equal(FORECASTS[name](rows, {"S0": bars}), FORECASTS[name](other, {"S0": bars}))

    @pytest.mark.parametrize("name", FORECASTS)
    def test_bars_that_never_move_give_the_training_mean(self, name: str) -> None:
        flat = Bars("S0", START + np.arange(200) * DAY, *(np.ones(200) for _ in range(5)))
        rows = sample([0] * 200, train=150)
        rows.y["range"][:150] = -3.0
        np.testing.assert_allclose(FORECASTS[name](rows, {"S0": flat}), -3.0)

    def test_a_short_symbol_takes_the_pooled_regression(self) -> None:
        long, short = walk(5, 300), walk(6, 60, "S1")
        one, two = range_sample(long, train=200), range_sample(short, train=40)
        both = Sample(
            np.r_[one.symbol, two.symbol],
            np.r_[one.timestamp, two.timestamp],
            np.r_[one.label_end, two.label_end],
            {"range": np.r_[one.y["range"], two.y["range"]]},
            np.r_[one.train, two.train + 299],
            np.r_[one.test, two.test + 299],
        )
        forecast = baselines.har(both, {"S0": long, "S1": short})
        np.testing.assert_allclose(forecast[:99], baselines.har(one, {"S0": long}))
        assert np.isfinite(forecast[99:]).all()
        assert np.ptp(forecast[99:]) > 0.01

    def test_missing_bars_are_named(self) -> None:
        with pytest.raises(DataError, match="S0: a range baseline needs the bars"):
            baselines.har(sample([0] * 4, train=2), {})

    def test_a_row_before_the_first_bar_is_named(self) -> None:
        with pytest.raises(DataError, match=r"S0 at 2020-01-01.*: no bar had closed by then"):
            baselines.har(sample([0] * 4, train=2), {"S0": walk(0, 10)[1:]})
