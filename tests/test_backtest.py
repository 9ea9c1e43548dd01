"""The backtest against trades worked out by hand, and against the labels it must agree with."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.backtest import Trades, positions, trade
from tradeloop.bars import Bars
from tradeloop.errors import DataError

DAY = np.timedelta64(1, "D")
START = np.datetime64("2020-01-01T21:00:00", "us")
COST = 0.001  # 10 basis points


def bars(symbol: str, opens: list[float], closes: list[float], first: int = 0) -> Bars:
    open_, close = np.array(opens, dtype=float), np.array(closes, dtype=float)
    high, low = np.maximum(open_, close), np.minimum(open_, close)
    return Bars(symbol, START + (first + np.arange(len(close))) * DAY, open_, high, low, close, np.ones(len(close)))


def run(series: list[Bars], rows: list[tuple[str, int, float]], **options: object) -> Trades:
    symbol, day, position = zip(*rows, strict=True)
    return trade(
        {one.symbol: one for one in series},
        np.array(symbol, dtype=object),
        START + np.array(day) * DAY,
        position=np.array(position, dtype=float),
        **{"entry": "next_open", "horizon": 1, "cost_bps": 10.0, **options},
    )


A = bars("A", opens=[99, 100, 110, 120], closes=[100, 105, 99, 126])


class TestPositions:
    def test_a_lean_beyond_the_threshold_trades(self) -> None:
        np.testing.assert_array_equal(positions([0.5, 0.53, 0.47, 0.521, 0.519, math.nan], 0.02), [0, 1, -1, 1, 0, 0])

    def test_exactly_at_the_threshold_stays_flat(self) -> None:
        np.testing.assert_array_equal(positions([0.75, 0.25], 0.25), [0, 0])


class TestNextOpen:
    def test_each_bar_is_a_round_trip_at_its_own_prices(self) -> None:
        result = run([A], [("A", 0, 1), ("A", 1, -1), ("A", 2, 0)])
        np.testing.assert_allclose(result.gross, [105 / 100 - 1, -(99 / 110 - 1), 0])
        np.testing.assert_allclose(result.traded, [1 + 1.05, 1 + 0.9, 0])
        np.testing.assert_allclose(result.net, [0.05 - COST * 2.05, 0.10 - COST * 1.9, 0])
        np.testing.assert_array_equal(result.timestamp, START + np.array([1, 2, 3]) * DAY)

    def test_buy_and_hold_runs_from_the_close_of_the_first_forecast(self) -> None:
        result = run([A], [("A", 0, 0), ("A", 1, 0), ("A", 2, 0)])
        np.testing.assert_allclose(np.cumprod(1 + result.buy_and_hold), [1.05, 0.99, 1.26])

    def test_two_symbols_share_the_capital(self) -> None:
        b = bars("B", opens=[10, 10, 10, 10], closes=[10, 11, 10, 12])
        result = run([A, b], [("A", 0, 1), ("B", 0, 1), ("B", 1, 1)])  # A has no row on day 1: B gets all of it
        np.testing.assert_allclose(result.gross, [(0.05 + 0.10) / 2, 0.0])
        np.testing.assert_allclose(result.traded, [(2.05 + 2.10) / 2, 2.0])

    def test_horizon_two_holds_halves_over_two_bars(self) -> None:
        result = run([A], [("A", 0, 1), ("A", 1, 1)], horizon=2)
        first, second = [0.05, 99 / 100 - 1.05], [99 / 110 - 1, 126 / 110 - 99 / 110]
        np.testing.assert_allclose(result.gross, [first[0] / 2, (first[1] + second[0]) / 2, second[1] / 2])
        np.testing.assert_allclose(result.traded, [0.5, 0.5 + 0.99 / 2, 126 / 110 / 2])


class TestClose:
    def test_a_position_kept_pays_only_for_the_drift(self) -> None:
        result = run([A], [("A", 0, 1), ("A", 1, 1), ("A", 2, -1)], entry="close")
        np.testing.assert_allclose(result.gross, [0, 0.05, 99 / 105 - 1, -(126 / 99 - 1)])
        drifted = 99 / 105
        np.testing.assert_allclose(result.traded, [1, 0.05, 1 + drifted, 126 / 99])
        np.testing.assert_allclose(result.net, result.gross - COST * result.traded)

    def test_buy_and_hold_buys_at_the_first_close(self) -> None:
        result = run([A], [("A", 0, 0), ("A", 1, 0), ("A", 2, 0)], entry="close")
        np.testing.assert_allclose(np.cumprod(1 + result.buy_and_hold), [1.0, 1.05, 0.99, 1.26])

    def test_horizon_two_trades_only_the_half_that_changes(self) -> None:
        result = run([A], [("A", 0, 1), ("A", 1, 1)], entry="close", horizon=2)
        # nothing new enters after day 1: both halves are sold as they end
        np.testing.assert_allclose(result.traded, [0.5, 0.5, 0.99 / 2, 126 / 105 / 2])

    def test_the_leaving_part_meets_the_entering_one(self) -> None:
        longer = bars("A", opens=[1] * 5, closes=[100, 105, 99, 126, 126])
        result = run([longer], [("A", 0, 1), ("A", 1, 0), ("A", 2, 1)], entry="close", horizon=2)
        assert result.traded[2] == pytest.approx(abs(1 - 0.99) / 2)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    horizon=st.integers(1, 6),
    entry=st.sampled_from(["close", "next_open"]),
)
def test_profits_add_up_to_what_the_labels_say(seed: int, horizon: int, entry: str) -> None:
    rng = np.random.default_rng(seed)
    close = np.exp(np.cumsum(rng.normal(0, 0.02, 40)))
    open_ = close * np.exp(rng.normal(0, 0.01, 40))
    series = bars("A", opens=list(open_), closes=list(close))
    days = np.arange(3, 40 - horizon)
    position = rng.integers(-1, 2, len(days)).astype(float)
    paid = open_[days + 1] if entry == "next_open" else close[days]
    label = np.log(close[days + horizon] / paid)
    result = run(
        [series], [("A", int(d), p) for d, p in zip(days, position, strict=True)], entry=entry, horizon=horizon
    )
    assert result.gross.sum() == pytest.approx((position * np.expm1(label)).sum() / horizon, abs=1e-12)
    np.testing.assert_allclose(result.net, result.gross - COST * result.traded)
    if entry == "next_open":
        assert result.traded.sum() == pytest.approx((np.abs(position) * (1 + np.exp(label))).sum() / horizon)


class TestRuin:
    def test_a_short_that_more_than_doubles_loses_everything_and_no_more(self) -> None:
        spike = bars("A", opens=[1, 1], closes=[1, 3])
        assert run([spike], [("A", 0, -1)]).net[0] == -1.0


class TestRefusals:
    def test_no_forecast(self) -> None:
        with pytest.raises(DataError, match="at least one forecast"):
            trade(
                {"A": A},
                np.array([], dtype=object),
                np.array([], dtype="datetime64[us]"),
                position=np.array([]),
                entry="close",
                horizon=1,
                cost_bps=0,
            )

    def test_a_forecast_without_its_bar(self) -> None:
        with pytest.raises(DataError, match=r"A at 2020-01-08T21:00:00\.000000Z: forecast without a bar"):
            run([A], [("A", 0, 1), ("A", 7, 1)])

    def test_a_forecast_whose_trade_has_not_ended(self) -> None:
        with pytest.raises(DataError, match="fewer than 2 bars follow"):
            run([A], [("A", 2, 1)], horizon=2)

    def test_a_symbol_without_bars(self) -> None:
        with pytest.raises(DataError, match="B: a backtest needs the bars"):
            run([A], [("B", 0, 1)])
