"""What one column is worth, which columns say the same, and how far choices agree."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import mutual_info_score

from tradeloop.selection.clusters import clusters, most_common, rank_correlation, representatives
from tradeloop.selection.importance import LEAVES, ROUNDS, SETTINGS, importance
from tradeloop.selection.information import BINS, bins, information
from tradeloop.selection.stability import stability
from tradeloop.splits import Fold


def test_the_share_of_the_most_common_value() -> None:
    x = np.array([[1, 1, 5], [2, 1, 5], [3, 1, 5], [4, 2, 5]], dtype=np.float32)
    assert most_common(x).tolist() == [0.25, 0.75, 1.0]


def test_rank_correlation_is_spearmans() -> None:
    x = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    x[:, 3] = np.exp(x[:, 0])
    found = rank_correlation(x)
    np.testing.assert_allclose(found, spearmanr(x).statistic, atol=1e-12)
    assert found[0, 3] == pytest.approx(1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), width=st.integers(1, 12), least=st.floats(0.3, 0.99))
def test_every_two_columns_of_a_cluster_are_correlated_and_only_close_columns_join(
    seed: int, width: int, least: float
) -> None:
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(80, 3))
    x = (common[:, rng.integers(0, 3, width)] + rng.exponential(1, width) * rng.normal(size=(80, width))).astype("f4")
    cluster = clusters(x, least)
    near = np.abs(rank_correlation(x)) >= least - 1e-9 if width > 1 else np.ones((1, 1), dtype=bool)
    for number in set(cluster):
        own = cluster == number
        assert near[np.ix_(own, own)].all()
    # A column that is close to no other stands alone.
    alone = near.sum(axis=0) == 1
    assert all((cluster == cluster[at]).sum() == 1 for at in np.flatnonzero(alone))


def test_mirrored_columns_are_one_and_the_one_worth_most_stands_for_them() -> None:
    base = np.random.default_rng(1).normal(size=(200, 2)).astype("f4")
    x = np.column_stack([base[:, 0], -base[:, 0], np.exp(base[:, 0]), base[:, 1]]).astype("f4")
    cluster = clusters(x, 0.95)
    assert len({*cluster[:3]}) == 1 and cluster[3] != cluster[0]
    assert representatives(cluster, np.array([1.0, 3.0, 3.0, 0.0])).tolist() == [1, 1, 1, 3]


def test_bins_hold_equal_counts_and_never_part_equal_values() -> None:
    values = np.random.default_rng(2).normal(size=1000)
    assert np.bincount(bins(values)).tolist() == [100] * BINS
    flag = np.repeat([0.0, 1.0], [30, 970])
    assert np.unique(bins(flag)).tolist() == np.unique(bins(-flag)).tolist() == [0, 1]
    assert (np.diff(bins(np.sort(np.round(values)))) >= 0).all()
    assert bins(np.zeros(5)).tolist() == [0] * 5


def test_information_is_that_of_the_table_less_what_chance_gives_it() -> None:
    rng = np.random.default_rng(3)
    y = rng.normal(size=3000)
    x = np.column_stack([y + rng.normal(size=3000), rng.normal(size=3000), np.sign(y), np.abs(y)]).astype("f4")
    found = information(x, y)
    for column, value in zip(x.T, found, strict=True):
        one, label = bins(column), bins(y)
        raw = mutual_info_score(one, label)
        assert value == pytest.approx(max(raw - one.max() * label.max() / 6000, 0), abs=1e-12)
    assert found[1] < 0.01 < found[0]
    assert found[2] == pytest.approx(np.log(2), abs=0.05)
    assert found[3] > 0.5  # nothing that a correlation would see


def test_information_of_noise_does_not_grow_with_the_number_of_values() -> None:
    rng = np.random.default_rng(4)
    y = rng.normal(size=400)
    noise = rng.normal(size=(400, 300)).astype("f4")
    flags = (noise > 0).astype("f4")
    raw = np.mean([mutual_info_score(bins(column), bins(y)) for column in noise.T])
    assert raw > 0.09
    assert information(noise, y).mean() < 0.02 and information(flags, y).mean() < 0.02


def _sample(n: int = 2000) -> tuple[np.ndarray, np.ndarray, Fold]:
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, 5)).astype("f4")
    x[:, 4] = 0
    y = 1.5 * x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * rng.normal(size=n)
    return x, y, Fold(0, np.arange(0, n // 2), np.arange(n // 2, n))


def test_importance_finds_effects_and_interactions_and_gives_a_column_that_is_not_read_nothing() -> None:
    x, y, fold = _sample()
    shap, lost = importance(x, y, fold, seed=1)
    assert shap.argmax() == 0 and lost.argmax() == 0
    assert shap[4] == 0 and lost[4] == 0
    assert min(shap[1], shap[2]) > 1.3 * shap[3] and min(lost[1], lost[2]) > abs(lost[3])


def test_importance_reads_training_rows_to_fit_and_test_rows_to_measure() -> None:
    x, y, fold = _sample()
    base = importance(x, y, fold, seed=1)
    again = importance(x, y, fold, seed=1)
    np.testing.assert_array_equal(base, again)
    turned = y.copy()
    turned[fold.test] = -turned[fold.test]
    shap, lost = importance(x, turned, fold, seed=1)
    np.testing.assert_array_equal(shap, base[0])  # SHAP values need no label
    assert lost[0] < 0 < base[1][0]  # a model that is wrong is better off without its best column
    assert (importance(x, y, fold, seed=2)[0] != base[0]).any()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # matplotlib's, at the import of shap
def test_the_boosters_own_contributions_are_tree_explainers() -> None:
    import shap
    import xgboost

    x, y, fold = _sample()
    settings = SETTINGS | {"min_child_weight": len(fold.train) / LEAVES, "base_score": 0.0, "nthread": 1, "seed": 1}
    matrix = xgboost.DMatrix(x[fold.train], y[fold.train] - y[fold.train].mean())
    values = shap.TreeExplainer(xgboost.train(settings, matrix, ROUNDS)).shap_values(x[fold.test])
    np.testing.assert_allclose(importance(x, y, fold, seed=1)[0], np.abs(values).mean(axis=0), rtol=1e-5, atol=1e-8)


def test_stability_worked_by_hand() -> None:
    # Three choices of two of four columns; shares 1, 2/3, 1/3, 0 have variances 0, 1/3, 1/3, 0 (over M - 1).
    chosen = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]], dtype=bool)
    assert stability(chosen).value == pytest.approx(1 - ((0 + 1 / 3 + 1 / 3 + 0) / 4) / (0.5 * 0.5))


def test_equal_choices_are_stable_and_none_or_all_are_undefined() -> None:
    same = stability(np.tile([True, False, True, False], (5, 1)))
    assert (same.value, same.low, same.high) == pytest.approx((1, 1, 1))
    for degenerate in (np.ones((3, 4), dtype=bool), np.zeros((3, 4), dtype=bool), np.eye(4, dtype=bool)[:1]):
        assert np.isnan(stability(degenerate).value)


def test_random_choices_have_no_stability_and_the_interval_says_so() -> None:
    rng = np.random.default_rng(6)
    inside, values = 0, []
    for _ in range(200):
        chosen = np.array([np.isin(np.arange(40), rng.permutation(40)[: rng.integers(5, 20)]) for _ in range(12)])
        found = stability(chosen)
        values.append(found.value)
        inside += found.low <= 0 <= found.high
    assert np.mean(values) == pytest.approx(0, abs=0.01)
    assert inside / 200 > 0.85
    assert np.std(values) > 0.01
