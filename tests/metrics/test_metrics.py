"""Metrics against scikit-learn, scipy and numbers worked out by hand, and the contract of all that are registered."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import spearmanr
from sklearn import metrics as sk

from tradeloop.metrics import METRICS, Metric, calibration, classification, financial, regression

OPTIONS = {
    "sharpe": {"bars_per_year": 252.0},
    "sortino": {"bars_per_year": 252.0},
    "pinball": {"level": 0.1},
    "interval_score": {"level": 0.9},
}


def sample(metric: Metric, rows: int = 60) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(3)
    label, p, noise = rng.integers(0, 2, rows).astype(float), rng.integers(1, 20, rows) / 20, rng.normal(size=rows)
    return {
        "classification": (label, p),
        "regression": (noise, np.round(noise + rng.normal(size=rows), 1)),
        "interval": (noise, noise - rng.normal(size=rows) ** 2 + 0.3, noise + 0.5),
        "returns": (noise / 50,),
    }[metric.kind]


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
class TestEveryMetric:
    def test_a_replicate_equals_the_score_of_the_rows_drawn(self, metric: Metric) -> None:
        if metric.name == "ece":  # keeps the bins of the whole sample: test_ece_of_a_resample_keeps_the_bins
            return
        columns = sample(metric)
        options = OPTIONS.get(metric.name, {})
        index = np.random.default_rng(0).integers(0, 60, (5, 60))
        weights = np.stack([np.bincount(row, minlength=60) for row in index]).astype(float)
        replicates = metric.replicates(columns, index=index, weights=weights, **options)
        expected = [metric(*(column[row] for column in columns), **options) for row in index]
        np.testing.assert_allclose(replicates, expected, rtol=1e-10)

    @pytest.mark.parametrize("poison", [math.nan, math.inf])
    def test_a_value_that_is_not_finite_poisons_the_score(self, metric: Metric, poison: float) -> None:
        for broken in range(len(sample(metric))):
            columns = sample(metric)
            columns[broken][7] = poison
            assert math.isnan(metric(*columns, **OPTIONS.get(metric.name, {})))

    def test_an_empty_sample_scores_nan(self, metric: Metric) -> None:
        columns = (np.empty(0),) * len(sample(metric))
        assert math.isnan(metric(*columns, **OPTIONS.get(metric.name, {})))

    def test_arrays_of_different_length_are_refused(self, metric: Metric) -> None:
        if metric.kind == "returns":
            with pytest.raises(ValueError, match="flat arrays"):
                metric(np.ones((3, 2)), **OPTIONS.get(metric.name, {}))
        else:
            with pytest.raises(ValueError, match="one length"):
                metric(np.ones(3), *(np.ones(4) for _ in sample(metric)[1:]), **OPTIONS.get(metric.name, {}))

    def test_it_says_what_it_is(self, metric: Metric) -> None:
        assert METRICS[metric.name] is metric
        assert metric.__doc__
        assert metric.greater_is_better == (metric.better == "higher")


@settings(deadline=None, max_examples=60)
@given(
    label=arrays(float, 25, elements=st.sampled_from([0.0, 1.0])),
    p=arrays(float, 25, elements=st.integers(1, 9).map(lambda tenth: tenth / 10)),
    weight=arrays(float, 25, elements=st.integers(0, 4).map(float)),
)
def test_classification_agrees_with_sklearn(label: np.ndarray, p: np.ndarray, weight: np.ndarray) -> None:
    seen = {label[weight > 0].min(initial=9), label[weight > 0].max(initial=-9)}
    if seen != {0.0, 1.0}:
        return
    ours = {
        metric.name: metric.replicates((label, p), index=None, weights=weight[None])[0]
        for metric in (classification.auc, classification.accuracy, classification.log_loss, classification.brier)
    }
    assert ours["auc"] == pytest.approx(sk.roc_auc_score(label, p, sample_weight=weight))
    assert ours["accuracy"] == pytest.approx(sk.accuracy_score(label, p >= 0.5, sample_weight=weight))
    assert ours["log_loss"] == pytest.approx(sk.log_loss(label, p, sample_weight=weight))
    assert ours["brier"] == pytest.approx(sk.brier_score_loss(label, p, sample_weight=weight))


def test_regression_agrees_with_sklearn_and_scipy() -> None:
    rng = np.random.default_rng(5)
    actual = np.round(rng.normal(size=200), 1)
    forecast = np.round(0.4 * actual + rng.normal(size=200), 1)
    weight = rng.integers(0, 4, 200)
    repeated = np.repeat(np.arange(200), weight)

    def ours(metric: Metric, **options: float) -> float:
        return metric.replicates((actual, forecast), index=None, weights=weight[None].astype(float), **options)[0]

    assert ours(regression.r2) == pytest.approx(sk.r2_score(actual, forecast, sample_weight=weight))
    assert ours(regression.rmse) == pytest.approx(sk.root_mean_squared_error(actual, forecast, sample_weight=weight))
    assert ours(regression.mae) == pytest.approx(sk.mean_absolute_error(actual, forecast, sample_weight=weight))
    assert ours(regression.ic) == pytest.approx(spearmanr(actual[repeated], forecast[repeated]).statistic)
    assert ours(calibration.pinball, level=0.2) == pytest.approx(
        sk.mean_pinball_loss(actual, forecast, alpha=0.2, sample_weight=weight)
    )


class TestUndefined:
    def test_auc_of_one_class(self) -> None:
        assert math.isnan(classification.auc([1, 1, 1], [0.2, 0.5, 0.7]))

    def test_r2_of_a_constant(self) -> None:
        assert math.isnan(regression.r2([2, 2, 2], [1, 2, 3]))

    def test_ic_of_a_constant_forecast(self) -> None:
        assert math.isnan(regression.ic([1, 2, 3], [5, 5, 5]))

    def test_profit_factor_and_sortino_without_a_loss(self) -> None:
        assert math.isnan(financial.profit_factor([0.1, 0.0]))
        assert math.isnan(financial.sortino([0.1, 0.0], bars_per_year=252))

    def test_sharpe_of_a_constant_series(self) -> None:
        assert math.isnan(financial.sharpe([0.01, 0.01, 0.01], bars_per_year=252))

    def test_hit_rate_of_a_strategy_that_never_traded(self) -> None:
        assert math.isnan(financial.hit_rate([0.0, 0.0]))


class TestCalibration:
    def test_ece_by_hand(self) -> None:
        # two values of the forecast, five rows each: gaps |0.2 − 1/5| = 0 and |0.8 − 2/5| = 0.4, mean 0.2
        p = [0.2] * 5 + [0.8] * 5
        label = [1, 0, 0, 0, 0, 1, 1, 0, 0, 0]
        assert calibration.ece(label, p) == pytest.approx(0.2)

    def test_ece_of_a_resample_keeps_the_bins(self) -> None:
        p = np.array([0.2] * 5 + [0.8] * 5)
        label = np.array([1, 0, 0, 0, 0, 1, 1, 0, 0, 0], dtype=float)
        weights = np.array([[0, 1, 1, 0, 0, 2, 0, 0, 0, 0]], dtype=float)  # bins: 2 rows at gap .2, 2 rows at gap .2
        assert calibration.ece.replicates((label, p), index=None, weights=weights)[0] == pytest.approx(0.2)

    def test_ece_of_a_true_probability_is_near_what_the_docstring_says(self) -> None:
        rng = np.random.default_rng(0)
        p = rng.uniform(0.4, 0.6, (50, 2600))
        scores = [calibration.ece(rng.random(2600) < row, row) for row in p]
        assert np.mean(scores) == pytest.approx(0.4 * math.sqrt(10 / 2600), rel=0.1)

    def test_reliability_by_hand(self) -> None:
        diagram = calibration.reliability([1, 0, 0, 0, 0, 1, 1, 0, 0, 0], [0.2] * 5 + [0.8] * 5)
        np.testing.assert_allclose(diagram.mean_p, [0.2, 0.8])
        np.testing.assert_allclose(diagram.frequency, [0.2, 0.4])
        np.testing.assert_array_equal(diagram.count, [5, 5])

    def test_interval_scores_by_hand(self) -> None:
        actual, low, high = [0.0, 1.0, 3.0, -2.0], [0.0] * 4, [2.0] * 4
        assert calibration.coverage(actual, low, high) == 0.5
        assert calibration.width(actual, low, high) == 2.0
        # misses 1 and 2, each charged 2 / (1 − .9) = 20: (4 · 2 + 20 + 40) / 4
        assert calibration.interval_score(actual, low, high, level=0.9) == pytest.approx(17.0)

    def test_interval_score_is_the_pinball_loss_of_both_ends(self) -> None:
        rng = np.random.default_rng(1)
        actual = rng.normal(size=99)
        ends = [calibration.pinball(actual, np.full(99, q), level=tau) for q, tau in ((-1.0, 0.05), (1.2, 0.95))]
        whole = calibration.interval_score(actual, np.full(99, -1.0), np.full(99, 1.2), level=0.9)
        assert whole == pytest.approx(sum(ends) / 0.05)


class TestFinancial:
    net = (0.10, -0.50, 0.20, 0.0)  # equity 1.1, .55, .66, .66

    def test_by_hand(self) -> None:
        assert financial.total_return(self.net) == pytest.approx(-0.34)
        assert financial.max_drawdown(self.net) == pytest.approx(-0.5)
        assert financial.profit_factor(self.net) == pytest.approx(0.6)
        assert financial.hit_rate(self.net) == pytest.approx(2 / 3)
        # mean −.05; deviations .15 −.45 .25 .05, squares sum .29, std sqrt(.29 / 3)
        assert financial.sharpe(self.net, bars_per_year=4) == pytest.approx(-0.05 / math.sqrt(0.29 / 3) * 2)
        assert financial.sortino(self.net, bars_per_year=4) == pytest.approx(-0.05 / math.sqrt(0.25 / 4) * 2)
        assert financial.turnover([2.0, 1.0, 0.0]) == 1.0

    def test_a_loss_on_the_first_bar_is_a_drawdown(self) -> None:
        assert financial.max_drawdown([-0.2, 0.1]) == pytest.approx(-0.2)
        np.testing.assert_allclose(financial.drawdown_curve(np.array([-0.2, 0.1])), [-0.2, -0.12])


def test_a_name_is_registered_once() -> None:
    from tradeloop.metrics.base import metric

    with pytest.raises(ValueError, match="'auc' is registered already"):

        @metric("classification", "higher")
        def auc() -> None: ...
