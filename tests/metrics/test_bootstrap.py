"""The stationary bootstrap: whole timestamps, blocks, and intervals that hold the truth as often as they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tradeloop.metrics import calibration, classification, financial, regression
from tradeloop.metrics.base import Metric
from tradeloop.metrics.bootstrap import Bootstrap, Interval, stationary_index

MEAN = Metric("mean", "returns", "higher", None, lambda series: series.mean(axis=-1), "The mean of a series.")


def autoregressive(rng: np.random.Generator, length: int, phi: float) -> np.ndarray:
    noise = rng.normal(size=length + 100)
    for t in range(1, len(noise)):
        noise[t] += phi * noise[t - 1]
    return noise[100:]


class TestIndex:
    def test_blocks_run_on_and_wrap_around(self) -> None:
        index = stationary_index(50, block=10, count=400, seed=1)
        step = np.diff(index, axis=1) % 50
        assert index.min() == 0
        assert index.max() == 49
        # one step in ten opens a block, and one in fifty of those goes on by chance
        assert (step == 1).mean() == pytest.approx(0.9 + 0.1 / 50, abs=0.01)

    def test_block_of_one_is_the_ordinary_bootstrap(self) -> None:
        step = np.diff(stationary_index(50, block=1, count=400, seed=1), axis=1) % 50
        assert (step == 1).mean() == pytest.approx(1 / 50, abs=0.005)

    def test_every_position_is_drawn_equally_often(self) -> None:
        drawn = np.bincount(stationary_index(40, block=8, count=4000, seed=2).ravel())
        assert drawn.min() > 0.93 * 4000
        assert drawn.max() < 1.07 * 4000

    @pytest.mark.parametrize("broken", [{"block": 0.5}, {"count": 0}])
    def test_bad_numbers_are_refused(self, broken: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="must be ≥ 1"):
            stationary_index(10, **{"block": 2, "count": 3, "seed": 0, **broken})


class TestBootstrap:
    def test_a_timestamp_is_drawn_whole(self) -> None:
        timestamp = np.repeat(np.arange(30), 3)
        label = np.tile([1.0, 0.0, 0.0], 30)  # every timestamp holds one up row: no resample can score anything else
        bootstrap = Bootstrap(timestamp, block=4, count=200, confidence=0.95, seed=0)
        replicates = bootstrap.replicates(classification.accuracy, label, np.ones(90))
        np.testing.assert_allclose(replicates, 1 / 3)

    def test_the_order_of_rows_does_not_matter(self) -> None:
        rng = np.random.default_rng(0)
        timestamp, label, p = np.repeat(np.arange(40), 2), rng.integers(0, 2, 80), rng.random(80)
        shuffled = rng.permutation(80)
        settings = {"block": 5, "count": 100, "confidence": 0.9, "seed": 3}
        straight = Bootstrap(timestamp, **settings).interval(classification.auc, label, p)
        mixed = Bootstrap(timestamp[shuffled], **settings).interval(classification.auc, label[shuffled], p[shuffled])
        assert straight.value == pytest.approx(mixed.value)
        assert straight.low == pytest.approx(mixed.low)

    def test_rows_and_series_are_drawn_alike(self) -> None:
        series = np.random.default_rng(0).exponential(size=50)
        bootstrap = Bootstrap(np.arange(50), block=5, count=40, confidence=0.95, seed=3)
        of_rows = bootstrap.replicates(regression.mae, series, np.zeros(50))
        np.testing.assert_allclose(of_rows, bootstrap.replicates(MEAN, series))

    def test_a_score_that_resampling_raises_is_moved_back_to_the_sample(self) -> None:
        rng = np.random.default_rng(0)
        p = rng.uniform(0.4, 0.6, 500)
        label = (rng.random(500) < p).astype(float)
        bootstrap = Bootstrap(np.arange(500), block=2, count=300, confidence=0.95, seed=3)
        raw = bootstrap.replicates(calibration.ece, label, p)
        interval = bootstrap.interval(calibration.ece, label, p)
        assert raw.mean() > interval.value + 0.01
        assert 0 <= interval.low < interval.value < interval.high < np.quantile(raw, 0.975)

    def test_gain_is_the_share_of_the_loss_that_is_saved(self) -> None:
        rng = np.random.default_rng(0)
        actual, noise = rng.normal(size=(2, 200))
        bootstrap = Bootstrap(np.arange(200), block=2, count=300, confidence=0.95, seed=3)
        ours, theirs = (bootstrap.score(regression.rmse, actual, actual + scale * noise) for scale in (1.0, 2.0))
        gain = ours.gain(theirs, power=2).interval
        np.testing.assert_allclose([gain.value, gain.low, gain.high], 0.75)
        assert theirs.gain(ours).interval.value == pytest.approx(-1.0)

    def test_the_same_seed_gives_the_same_interval_and_another_seed_another(self) -> None:
        values = np.random.default_rng(0).normal(size=100)

        def low(seed: int) -> float:
            return Bootstrap(np.arange(100), block=5, count=100, confidence=0.95, seed=seed).interval(MEAN, values).low

        assert low(1) == low(1)
        assert low(1) != low(2)

    def test_confidence_widens_the_interval(self) -> None:
        values = np.random.default_rng(0).normal(size=100)
        widths = []
        for confidence in (0.5, 0.9, 0.99):
            interval = Bootstrap(np.arange(100), block=5, count=500, confidence=confidence, seed=1).interval(
                MEAN, values
            )
            widths.append(interval.high - interval.low)
        assert widths == sorted(widths)
        assert widths[0] < 0.6 * widths[1]

    def test_parts_do_not_change_the_result(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(0)
        label, p = rng.integers(0, 2, 60), rng.random(60)
        bootstrap = Bootstrap(np.repeat(np.arange(30), 2), block=3, count=50, confidence=0.95, seed=0)
        whole = bootstrap.replicates(classification.auc, label, p)
        monkeypatch.setattr("tradeloop.metrics.bootstrap._CELLS", 7 * 60)
        np.testing.assert_allclose(bootstrap.replicates(classification.auc, label, p), whole, rtol=1e-12)

    @pytest.mark.parametrize("phi", [0.0, 0.5])
    def test_the_interval_holds_the_true_mean_about_as_often_as_it_claims(self, phi: float) -> None:
        rng = np.random.default_rng(11)
        held = 0
        for seed in range(200):
            series = autoregressive(rng, 400, phi)
            interval = Bootstrap(np.arange(400), block=20, count=300, confidence=0.95, seed=seed).interval(MEAN, series)
            held += interval.low <= 0 <= interval.high
        assert 0.88 <= held / 200 <= 0.99

    def test_a_block_of_one_is_too_sure_of_a_correlated_series(self) -> None:
        rng = np.random.default_rng(11)
        held = 0
        for seed in range(200):
            series = autoregressive(rng, 400, 0.5)
            interval = Bootstrap(np.arange(400), block=1, count=300, confidence=0.95, seed=seed).interval(MEAN, series)
            held += interval.low <= 0 <= interval.high
        assert held / 200 < 0.85

    def test_the_paired_difference_is_narrower_than_two_intervals(self) -> None:
        rng = np.random.default_rng(2)
        actual = rng.normal(size=300)
        ours, theirs = actual + rng.normal(size=300), np.zeros(300)
        ours_too = ours + 0.01 * rng.normal(size=300)
        bootstrap = Bootstrap(np.arange(300), block=5, count=500, confidence=0.95, seed=0)
        score = bootstrap.score(regression.rmse, actual, ours)
        close = (score - bootstrap.score(regression.rmse, actual, ours_too)).interval
        far = (score - bootstrap.score(regression.rmse, actual, theirs)).interval
        alone = score.interval
        assert close.high - close.low < 0.1 * (alone.high - alone.low)
        assert far.value == pytest.approx(regression.rmse(actual, ours) - regression.rmse(actual, theirs))

    def test_nan_gives_an_undefined_interval_that_excludes_nothing(self) -> None:
        bootstrap = Bootstrap(np.arange(20), block=2, count=100, confidence=0.95, seed=0)
        interval = bootstrap.interval(MEAN, np.r_[math.nan, np.ones(19)])
        assert math.isnan(interval.low)
        assert not interval.excludes(0.0)
        assert interval.as_dict() == {"value": None, "low": None, "high": None}

    def test_a_score_often_undefined_has_no_interval(self) -> None:
        label = np.r_[1.0, np.zeros(19)]  # about a third of the resamples hold no up row
        interval = Bootstrap(np.arange(20), block=1, count=200, confidence=0.95, seed=0).interval(
            classification.auc, label, np.arange(20) / 20
        )
        assert math.isnan(interval.low)

    def test_a_series_of_the_wrong_length_is_refused(self) -> None:
        bootstrap = Bootstrap(np.repeat(np.arange(10), 2), block=2, count=10, confidence=0.95, seed=0)
        with pytest.raises(ValueError, match="hit_rate needs arrays of length 10, got 20"):
            bootstrap.interval(financial.hit_rate, np.ones(20))


def test_excludes() -> None:
    assert Interval(0.6, 0.55, 0.65).excludes(0.5)
    assert Interval(0.4, 0.35, 0.45).excludes(0.5)
    assert not Interval(0.51, 0.49, 0.53).excludes(0.5)
