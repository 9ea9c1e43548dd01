"""Trading on the holdout: costs, what stands beside it, and the curves."""

from __future__ import annotations

import numpy as np
import pytest

from tests.holdouts import Case, values
from tradeloop import backtest
from tradeloop.evaluate.trading import judge_trading, trade
from tradeloop.metrics import financial


def test_scores_are_those_of_the_net_returns(skilled: Case) -> None:
    trades = trade(skilled.holdout, skilled.params.evaluate, skilled.holdout.forecast.p_up)
    found = values(skilled.evaluation["trading"]["metrics"])
    years = skilled.holdout.bars_per_year
    assert found["sharpe"] == pytest.approx(financial.sharpe(trades.net, bars_per_year=years))
    assert found["sortino"] == pytest.approx(financial.sortino(trades.net, bars_per_year=years))
    assert found["total_return"] == pytest.approx(np.prod(1 + trades.net) - 1)
    assert found["turnover"] == pytest.approx(trades.traded.mean())


def test_nothing_is_left_at_the_break_even_cost(skilled: Case) -> None:
    cost = skilled.evaluation["trading"]["break_even_bps"]
    assert cost > skilled.params.evaluate.cost_bps
    trades = trade(skilled.holdout, skilled.changed(cost_bps=cost).evaluate, skilled.holdout.forecast.p_up)
    assert trades.net.sum() == pytest.approx(0, abs=1e-9)


def test_a_signal_pays_and_noise_does_not(honest: Case, skilled: Case) -> None:
    assert skilled.evaluation["trading"]["metrics"]["sharpe"]["low"] > 0
    assert skilled.evaluation["trading"]["deflated_sharpe"] > 0.8
    assert honest.evaluation["trading"]["metrics"]["sharpe"]["low"] < 0


def test_exposure_is_the_share_of_rows_with_a_position(honest: Case) -> None:
    held = backtest.positions(honest.holdout.forecast.p_up, honest.params.evaluate.threshold)
    assert honest.evaluation["trading"]["exposure"] == pytest.approx(np.mean(held != 0))


def test_a_threshold_that_nothing_passes_gives_no_trades_and_no_ratio(honest: Case) -> None:
    found, curves = judge_trading(honest.holdout, honest.changed(threshold=0.49).evaluate, 0)
    assert found["metrics"]["sharpe"] == {"value": None, "low": None, "high": None}
    assert found["break_even_bps"] is None
    assert found["deflated_sharpe"] is None
    assert (curves["equity"] == 1).all()


def test_curves_compound_the_returns(honest: Case) -> None:
    curves = honest.judgement.plots["equity"]
    total = honest.evaluation["trading"]["metrics"]["total_return"]["value"]
    assert curves["equity"].iloc[-1] == pytest.approx(1 + total)
    peak = np.maximum.accumulate(np.maximum(curves["equity"], 1))
    np.testing.assert_allclose(curves["drawdown"], curves["equity"] / peak - 1, atol=1e-12)
    assert (curves["gross"] >= curves["equity"] - 1e-12).all()
    assert (curves["low"] <= curves["high"]).all()
    start = honest.holdout.timestamp.min()
    worth = [bars.close[-1] / bars.close[bars.timestamp == start][0] for bars in honest.holdout.bars.values()]
    assert curves["buy_and_hold"].iloc[-1] == pytest.approx(np.mean(worth))


def test_columns_that_were_searched_for_count_as_trials(skilled: Case) -> None:
    config = skilled.params.evaluate
    alone, _ = judge_trading(skilled.holdout, config, 0)
    searched, _ = judge_trading(skilled.holdout, config, 0, searched=3000)
    assert searched["trials"] == alone["trials"] + 3000
    assert searched["deflated_sharpe"] < alone["deflated_sharpe"]
    assert searched["metrics"] == alone["metrics"]
    assert "searched" not in alone
