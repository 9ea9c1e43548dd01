from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import expit

from tests.matrices import planted
from tradeloop.bars import Floats
from tradeloop.config import TARGETS, Split, Stack, Target
from tradeloop.dataset import Matrix
from tradeloop.ensemble import calibrate, interval, logit
from tradeloop.errors import ModelError
from tradeloop.metrics import METRICS
from tradeloop.splits import Fold, holdout_split, walk_forward
from tradeloop.stacking import MIN_ROWS, OutOfFold, fit_calibrator, fit_conformal, fit_stack, fit_weights

SPLIT = Split(folds=4, embargo=2)


def weights(part: dict[str, Any]) -> dict[str, float]:
    return {name: member["weight"] for name, member in part["members"].items()}


def test_two_unbiased_forecasts_are_weighed_by_their_precision() -> None:
    # Independent errors of standard deviation 1 and 2: the best convex weights are as 4 to 1.
    rng = np.random.default_rng(0)
    actual = rng.normal(size=200_000)
    members = {"good": actual + rng.normal(size=200_000), "poor": actual + 2 * rng.normal(size=200_000)}
    part = fit_weights("identity", members, actual, l2=0.0)
    assert weights(part) == pytest.approx({"good": 0.8, "poor": 0.2}, abs=0.01)
    assert sum(weights(part).values()) == pytest.approx(1.0, abs=1e-8)
    assert part["intercept"] == 0.0


def test_a_harmful_member_gets_nothing_and_no_weight_is_negative() -> None:
    rng = np.random.default_rng(1)
    actual = rng.normal(size=5_000)
    members = {"good": actual + 0.1 * rng.normal(size=5_000), "wrong": -actual}
    assert weights(fit_weights("identity", members, actual, l2=0.0)) == pytest.approx({"good": 1, "wrong": 0}, abs=0.01)
    label = (actual > 0).astype(float)
    odds = {"good": expit(actual), "wrong": expit(-actual)}
    found = weights(fit_weights("logit", odds, label, l2=0.01))
    assert found["wrong"] == 0
    assert found["good"] > 1


def test_convex_weights_are_the_best_of_all_convex_weights() -> None:
    rng = np.random.default_rng(13)
    actual = rng.normal(size=400)
    shared = rng.normal(size=400)
    columns = [actual + shared, actual + 2 * shared + 0.5 * rng.normal(size=400), actual + 3 * rng.normal(size=400)]
    assert np.linalg.lstsq(np.column_stack(columns), actual)[0].min() < -0.1  # unbounded, one would be negative
    found = weights(fit_weights("identity", dict(zip("abc", columns, strict=True)), actual, l2=0.0))
    grid = np.linspace(0, 1, 101)
    errors = {
        (a, b): float(((a * columns[0] + b * columns[1] + (1 - a - b) * columns[2] - actual) ** 2).mean())
        for a in grid
        for b in grid
        if a + b <= 1 + 1e-9
    }
    best = min(errors, key=lambda key: errors[key])
    assert (found["a"], found["b"]) == pytest.approx(best, abs=0.011)


def test_log_odds_weights_find_the_planted_ones() -> None:
    rng = np.random.default_rng(2)
    z = rng.normal(size=(100_000, 2))
    label = (rng.random(100_000) < expit(0.9 * z[:, 0] + 0.3 * z[:, 1])).astype(float)
    part = fit_weights("logit", {"a": expit(z[:, 0]), "b": expit(z[:, 1])}, label, l2=0.0)
    assert weights(part) == pytest.approx({"a": 0.9, "b": 0.3}, abs=0.03)


@pytest.mark.parametrize("space", ["identity", "logit"])
def test_ridge_pulls_towards_equal_weights(space: str) -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=(400, 2))
    label = (rng.random(400) < expit(1.5 * z[:, 0])).astype(float)
    members = {"a": expit(z[:, 0]), "b": expit(z[:, 1])}
    gaps = []
    for l2 in (0.0, 1.0, 30.0, 1e7):
        found = weights(fit_weights(space, members, label, l2=l2))
        gaps.append(abs(found["a"] - 0.5) + abs(found["b"] - 0.5))
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.3
    assert gaps[-1] == pytest.approx(0.0, abs=1e-3)


def test_weights_do_not_depend_on_the_unit_of_the_target() -> None:
    rng = np.random.default_rng(4)
    actual = rng.normal(size=500)
    members = {"a": actual + rng.normal(size=500), "b": actual + 2 * rng.normal(size=500)}
    small = {name: 1e-3 * values for name, values in members.items()}
    assert weights(fit_weights("identity", members, actual, l2=1.0)) == pytest.approx(
        weights(fit_weights("identity", small, 1e-3 * actual, l2=1.0)), abs=1e-6
    )


def test_a_level_that_all_members_share_does_not_disturb_the_weights() -> None:
    rng = np.random.default_rng(5)
    actual = rng.normal(size=500)
    members = {"a": actual + rng.normal(size=500), "b": actual + 2 * rng.normal(size=500)}
    raised = {name: values - 1e4 for name, values in members.items()}
    assert weights(fit_weights("identity", members, actual, l2=1.0)) == pytest.approx(
        weights(fit_weights("identity", raised, actual - 1e4, l2=1.0)), abs=1e-5
    )


def test_few_rows_and_a_single_member_get_equal_weights() -> None:
    short = {"a": np.zeros(MIN_ROWS - 1), "b": np.ones(MIN_ROWS - 1)}
    assert weights(fit_weights("identity", short, np.zeros(MIN_ROWS - 1), l2=0.0)) == {"a": 0.5, "b": 0.5}
    alone = {"a": np.linspace(0, 1, 200)}
    assert weights(fit_weights("identity", alone, np.linspace(1, 0, 200), l2=1.0)) == {"a": 1.0}


def overconfident(n: int, seed: int) -> tuple[Floats, Floats]:
    """Return log odds three times too large, and labels."""
    rng = np.random.default_rng(seed)
    truth = 0.8 * rng.normal(size=n) + 0.2
    return 3.0 * (truth - 0.2), (rng.random(n) < expit(truth)).astype(float)


@pytest.mark.parametrize("kind", ["platt", "isotonic"])
def test_calibration_mends_overconfidence(kind: str) -> None:
    z, label = overconfident(20_000, 6)
    fresh, outcome = overconfident(20_000, 7)
    before = METRICS["ece"](outcome, calibrate({"kind": "none"}, fresh))
    after = METRICS["ece"](outcome, calibrate(fit_calibrator(kind, z, label, bars=len(z)), fresh))
    assert before > 0.15
    assert after < 0.02


def test_platt_finds_the_planted_line() -> None:
    z, label = overconfident(100_000, 8)
    found = fit_calibrator("platt", z, label, bars=len(z))
    assert found["slope"] == pytest.approx(1 / 3, abs=0.02)
    assert found["intercept"] == pytest.approx(0.2, abs=0.02)


def test_platt_believes_the_log_odds_until_there_are_many_bars() -> None:
    z, label = overconfident(300, 9)
    slopes = [fit_calibrator("platt", z, label, bars=bars)["slope"] for bars in (300, 30, 3)]
    assert slopes == sorted(slopes)
    assert slopes[0] == pytest.approx(1 / 3, abs=0.1)
    assert slopes[-1] > 0.7


def test_a_stack_that_is_wrong_is_silenced_not_turned_round() -> None:
    rng = np.random.default_rng(10)
    z = rng.normal(size=5_000)
    label = (rng.random(5_000) < expit(0.2 - z)).astype(float)
    found = fit_calibrator("platt", z, label, bars=5_000)
    assert found["slope"] == 0.0
    assert np.ptp(calibrate(found, z)) == 0
    assert calibrate(found, z)[0] == pytest.approx(label.mean(), abs=0.02)


def test_isotonic_never_says_never() -> None:
    z = np.linspace(-3, 3, 200)
    p = calibrate(fit_calibrator("isotonic", z, (z > 0).astype(float), bars=200), np.array([-10.0, 10.0]))
    np.testing.assert_allclose(p, [1 / 202, 201 / 202])


def test_no_calibration() -> None:
    z, label = overconfident(500, 11)
    assert fit_calibrator("none", z, label, bars=500) == {"kind": "none"}
    assert fit_calibrator("platt", z[:50], label[:50], bars=50) == {"kind": "none"}


def test_conformal_quantiles_by_hand() -> None:
    # 39 residuals 1..39, coverage .9: each tail .05, (39 + 1) · .05 = 2nd smallest and 38th.
    residual = np.random.default_rng(0).permutation(np.arange(1.0, 40.0))
    found = fit_conformal("none", residual, np.zeros(39), coverage=0.9)
    assert (found["low"], found["high"]) == (2.0, 38.0)
    # Scaled by the forecast range, here 2.
    found = fit_conformal("range", residual, np.full(39, np.log(2)), coverage=0.9)
    assert (found["low"], found["high"]) == pytest.approx((1.0, 19.0))
    # 40 residuals: 2.05 rounds out to the 2nd, 38.95 to the 39th.
    found = fit_conformal("none", np.append(residual, 40.0), np.zeros(40), coverage=0.9)
    assert (found["low"], found["high"]) == (2.0, 39.0)


def test_conformal_needs_enough_rows() -> None:
    assert fit_conformal("none", np.arange(19.0), np.zeros(19), coverage=0.9)["high"] == 18.0
    with pytest.raises(ModelError, match=r"coverage 0\.9 need at least 19 out-of-fold rows, got 18"):
        fit_conformal("none", np.arange(18.0), np.zeros(18), coverage=0.9)


def test_conformal_covers_at_least_what_it_promises_even_on_few_rows() -> None:
    rng = np.random.default_rng(12)
    covered = []
    for _ in range(4_000):
        log_range = rng.normal(size=41)
        actual = np.exp(log_range) * rng.standard_t(3, size=41)
        found = fit_conformal("range", actual[:40], log_range[:40], coverage=0.9)
        low, high = interval(found, np.zeros(1), log_range[40:])
        covered.append(low[0] <= actual[40] <= high[0])
    # The exact value is 1 - 4/41 = .902 (order statistics 2 and 39 of 40); its standard error here is .0047.
    assert np.mean(covered) == pytest.approx(37 / 41, abs=0.015)
    assert np.mean(covered) > 0.885


def panel(seed: int = 0) -> tuple[Matrix, OutOfFold, list[Fold], Fold]:
    """Return a planted panel with out-of-fold forecasts of two made-up models, one good, one noise."""
    matrix = planted(bars=700, symbols=2, seed=seed)
    folds = walk_forward(matrix.timestamp, matrix.label_end, SPLIT)
    holdout = holdout_split(matrix.timestamp, matrix.label_end, SPLIT)
    row = np.concatenate([fold.test for fold in folds])
    number = np.concatenate([np.full(len(fold.test), fold.number) for fold in folds])
    rng = np.random.default_rng(seed + 1)
    signal = matrix.x[:, :3].sum(axis=1, dtype=np.float64) / np.sqrt(3)
    good: dict[Target, Floats] = {
        "direction": expit(1.2 * signal),
        "return": 0.01 * signal,
        "range": -4.5 + 0.4 * matrix.x[:, 0].astype(np.float64),
    }
    forecasts: dict[Target, dict[str, Floats]] = {}
    for target in TARGETS:
        noise = rng.permutation(good[target])
        forecasts[target] = {"good": good[target][row], "noise": noise[row]}
    return matrix, OutOfFold(row, number.astype(np.int64), forecasts), folds, holdout


def test_stack_learns_whom_to_trust_and_its_specification_survives_json() -> None:
    matrix, oof, folds, holdout = panel()
    stacked = fit_stack(matrix, oof, folds, holdout, config=Stack(l2=0.1))
    spec = json.loads(json.dumps(stacked.spec, allow_nan=False))
    assert spec == stacked.spec
    for target in TARGETS:
        members = spec["targets"][target]["members"]
        assert members["good"]["weight"] > 4 * members["noise"]["weight"] + 0.3
        assert members["noise"]["file"] == f"noise/{target}.onnx"
    assert spec["schema"] == {"hash": matrix.schema.hash, "names": list(matrix.schema.names)}
    assert (spec["format"], spec["market"], spec["coverage"]) == (1, "test", 0.9)


def test_coverage_on_rows_that_the_stack_never_saw() -> None:
    matrix, oof, folds, holdout = panel()
    # The good model's own forecasts stand for the whole; ranges have noise .3, returns .01 around them.
    alone = OutOfFold(oof.row, oof.fold, {t: {"good": oof.forecasts[t]["good"]} for t in TARGETS})
    spec = fit_stack(matrix, alone, folds, holdout, config=Stack(coverage=0.8)).spec
    log_range = -4.5 + 0.4 * matrix.x[holdout.test, 0].astype(np.float64)
    low, high = interval(spec["targets"]["range"]["conformal"], log_range, log_range)
    actual = matrix.y["range"][holdout.test]
    assert np.mean((low <= actual) & (actual <= high)) == pytest.approx(0.8, abs=0.06)


def test_stack_is_prequential() -> None:
    """Changing a fold's labels and forecasts changes nothing that is said of it or of earlier folds."""
    matrix, oof, folds, holdout = panel()
    before = fit_stack(matrix, oof, folds, holdout, config=Stack())
    later = oof.fold >= 2
    changed = {target: values.copy() for target, values in matrix.y.items()}
    for target in TARGETS:
        changed[target][oof.row[later]] = changed[target][oof.row[later]][::-1]
    other = Matrix(matrix.schema, matrix.x, changed, matrix.symbol, matrix.timestamp, matrix.label_end)
    after = fit_stack(other, oof, folds, holdout, config=Stack())
    said = oof.fold <= 2
    for target in TARGETS:
        np.testing.assert_array_equal(before.forecasts[target][said], after.forecasts[target][said])
        assert (before.forecasts[target][~said] != after.forecasts[target][~said]).any()
    assert before.spec != after.spec


def test_stack_does_not_use_labels_that_overlap_the_fold_it_speaks_of() -> None:
    matrix, oof, folds, holdout = panel()
    before = fit_stack(matrix, oof, folds, holdout, config=Stack())
    # Rows of fold 0 that fold 1 may not train on: those within the embargo before it.
    purged = np.setdiff1d(folds[0].test, folds[1].train)
    assert len(purged) > 0
    changed = {target: values.copy() for target, values in matrix.y.items()}
    for target, value in (("direction", 0.0), ("return", 9.0), ("range", 9.0)):
        changed[target][purged] = value
    other = Matrix(matrix.schema, matrix.x, changed, matrix.symbol, matrix.timestamp, matrix.label_end)
    after = fit_stack(other, oof, folds, holdout, config=Stack())
    for target in TARGETS:
        np.testing.assert_array_equal(before.forecasts[target][oof.fold == 1], after.forecasts[target][oof.fold == 1])


def test_first_fold_is_stacked_with_equal_weights_and_left_as_it_is() -> None:
    matrix, oof, folds, holdout = panel()
    stacked = fit_stack(matrix, oof, folds, holdout, config=Stack())
    first = oof.fold == 0
    mean = (oof.forecasts["return"]["good"][first] + oof.forecasts["return"]["noise"][first]) / 2
    np.testing.assert_allclose(stacked.forecasts["return"][first], mean)
    z = (logit(oof.forecasts["direction"]["good"][first]) + logit(oof.forecasts["direction"]["noise"][first])) / 2
    np.testing.assert_allclose(stacked.forecasts["direction"][first], expit(z))


def test_every_setting_of_the_stack_changes_it() -> None:
    matrix, oof, folds, holdout = panel()
    usual = fit_stack(matrix, oof, folds, holdout, config=Stack()).spec
    for change in (Stack(l2=50.0), Stack(calibration="isotonic"), Stack(calibration="none"), Stack(coverage=0.8)):
        assert fit_stack(matrix, oof, folds, holdout, config=change).spec != usual
