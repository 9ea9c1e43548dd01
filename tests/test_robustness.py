"""The controls must fire on what they are there for, and stay quiet otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tradeloop import robustness
from tradeloop.bars import Bars
from tradeloop.metrics.bootstrap import Bootstrap
from tradeloop.metrics.classification import auc
from tradeloop.robustness import Leak, Split

HOUR = np.timedelta64(1, "h")
START = np.datetime64("2020-01-01T00:00:00", "us")


def split(strength: float, rows: int = 3000) -> Split:
    """Two symbols; the first feature moves the odds of up by `strength` per standard deviation."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(rows, 8)).astype(np.float32)
    label = (rng.random(rows) < 1 / (1 + np.exp(-strength * x[:, 0]))).astype(float)
    timestamp = START + (np.arange(rows) // 2) * HOUR
    return Split(x, label, timestamp, np.arange(2000), np.arange(2000, rows))


def bootstrap(of: Split) -> Bootstrap:
    return Bootstrap(of.timestamp[of.test], block=5, count=200, confidence=0.95, seed=0)


class TestPermutation:
    def test_whole_timestamps_are_exchanged_with_others_of_their_size(self) -> None:
        timestamp = START + np.array([0, 0, 1, 1, 2, 2, 3, 4]) * HOUR
        label = np.array([10, 11, 20, 21, 30, 31, 40, 50], dtype=float)
        seen = set()
        for seed in range(30):
            dealt = robustness.permute_timestamps(timestamp, label, seed=seed)
            pairs = [tuple(dealt[start : start + 2]) for start in (0, 2, 4)]
            assert sorted(pairs) == [(10, 11), (20, 21), (30, 31)]
            assert sorted(dealt[6:]) == [40, 50]
            seen.add(tuple(dealt))
        assert len(seen) > 5

    def test_rows_in_any_order(self) -> None:
        rng = np.random.default_rng(0)
        timestamp, label = START + np.repeat(np.arange(20), 3) * HOUR, np.repeat(np.arange(20.0), 3)
        mixed = rng.permutation(60)
        dealt = robustness.permute_timestamps(timestamp[mixed], label[mixed], seed=1)
        for time in np.unique(timestamp):
            assert len(set(dealt[timestamp[mixed] == time])) == 1


class TestShuffledLabels:
    def test_nothing_is_learned_where_much_could_be(self) -> None:
        rows = split(strength=2.0)
        assert auc(rows.label[rows.test], robustness.cheap_forecast(rows, seed=0)) > 0.75
        interval = robustness.shuffled_auc(rows, bootstrap(rows), seeds=4, seed=0)
        assert not interval.excludes(0.5)

    def test_labels_that_were_not_shuffled_are_noticed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(robustness, "permute_timestamps", lambda _timestamp, label, **_: label)
        rows = split(strength=0.6)
        assert robustness.shuffled_auc(rows, bootstrap(rows), seeds=4, seed=0).low > 0.5


def walk(count: int = 600, horizon: int = 1) -> Bars:
    rng = np.random.default_rng(5)
    close = np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    return Bars("S", START + np.arange(count) * HOUR, close, close * 1.01, close * 0.99, close, np.ones(count))


class TestPlantedLeak:
    @pytest.mark.parametrize("horizon", [1, 5])
    def test_the_contract_finds_it(self, horizon: int) -> None:
        assert any("look-ahead" in line for line in robustness.leak_findings(walk(), horizon=horizon))

    def test_its_values_by_hand(self) -> None:
        bars = walk(4)
        expected = [bars.close[2] / bars.close[0] - 1, bars.close[3] / bars.close[1] - 1, 0, 0]
        np.testing.assert_allclose(Leak(2)(bars), expected)

    def test_the_score_shows_it(self) -> None:
        rows = split(strength=0.0)
        leak = (2 * rows.label - 1) + np.random.default_rng(0).normal(size=len(rows.label))
        assert robustness.leaked_auc(rows, leak, seed=0) > 0.85
        assert robustness.leaked_auc(rows, np.zeros(len(rows.label)), seed=0) < 0.56


class TestDeflatedSharpe:
    def test_the_example_of_the_paper(self) -> None:
        # Bailey and López de Prado (2014), "A numerical example": 1,250 days, annual ratio 2.5, 100 trials whose annual
        # ratios have variance 1/2, skewness -3, kurtosis 10: hurdle .1132 a day, probability .9004
        hurdle = robustness.best_of_luck(math.sqrt(0.5 / 250), 100)
        assert hurdle == pytest.approx(0.1132, abs=1e-4)
        found = robustness.probabilistic_sharpe(2.5 / math.sqrt(250), hurdle, 1250, skewness=-3, kurtosis=10)
        assert found == pytest.approx(0.9004, abs=1e-4)

    def test_more_trials_and_wider_ones_deflate(self) -> None:
        net = np.random.default_rng(0).normal(0.001, 0.01, 500)
        alone = robustness.deflated_sharpe(net, np.array([0.1]))
        few = robustness.deflated_sharpe(net, np.array([0.1, 0.05]))
        many = robustness.deflated_sharpe(net, np.linspace(0.0, 0.15, 30))
        assert alone > few > many > 0

    def test_a_trial_that_never_traded_is_left_out(self) -> None:
        net = np.random.default_rng(0).normal(0.001, 0.01, 500)
        trials = np.array([0.1, 0.05, math.nan])
        assert robustness.deflated_sharpe(net, trials) == robustness.deflated_sharpe(net, trials[:2])

    @pytest.mark.parametrize("net", [np.zeros(20), np.array([0.1, math.nan, 0.2]), np.array([0.1])])
    def test_undefined(self, net: np.ndarray) -> None:
        assert math.isnan(robustness.deflated_sharpe(net, np.array([0.1, 0.2])))


class TestMonteCarlo:
    def test_a_constant_gain_has_one_history(self) -> None:
        spread = robustness.monte_carlo(np.full(10, 0.1), block=3, count=100, seed=0)
        np.testing.assert_allclose(spread.equity, 1.1**10)
        np.testing.assert_allclose(spread.band, np.tile(1.1 ** np.arange(1, 11), (2, 1)))
        np.testing.assert_array_equal(spread.drawdown, 0)
        assert spread.loss_probability == 0

    def test_a_coin_that_pays_nothing_loses_about_every_other_time(self) -> None:
        spread = robustness.monte_carlo(np.tile([0.01, -0.01], 200), block=1, count=2000, seed=0)
        assert 0.45 < spread.loss_probability < 0.6
        assert (np.diff(spread.equity) > 0).all()
        assert (np.diff(spread.drawdown) > 0).all()
        assert (spread.drawdown < 0).all()
        assert (spread.band[0, 5:] < spread.band[1, 5:]).all()
