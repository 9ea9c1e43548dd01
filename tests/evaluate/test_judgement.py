"""The judgement as a whole: honest and skilled markets, scores, slices, and what each parameter changes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as sk

from tests.holdouts import SYMBOLS, Case
from tradeloop.config import TARGETS
from tradeloop.evaluate.holdout import bars_per_year
from tradeloop.evaluate.judgement import judge
from tradeloop.evaluate.scores import baseline_forecasts


class TestVerdicts:
    def test_an_honest_market_proves_range_only(self, honest: Case) -> None:
        proven = {target: honest.evaluation["targets"][target]["edge"]["proven"] for target in TARGETS}
        assert proven == {"direction": False, "return": False, "range": True}
        assert honest.evaluation["flags"] == []

    def test_a_planted_signal_is_found_and_flagged(self, skilled: Case) -> None:
        assert skilled.evaluation["targets"]["direction"]["edge"]["proven"]
        assert skilled.evaluation["targets"]["return"]["edge"]["proven"]
        assert "is above 0.56" in skilled.evaluation["flags"][0]

    def test_skill_that_fades_with_the_next_open_shows_as_bounce(self, honest: Case, skilled: Case) -> None:
        # the markets' open is the last close plus noise, so part of the signal is gone by then
        assert skilled.evaluation["bounce"]["difference"]["low"] > 0
        assert skilled.evaluation["bounce"]["close"]["value"] > skilled.evaluation["bounce"]["next_open"]["value"]
        own = honest.evaluation["targets"]["direction"]["metrics"]["auc"]["value"]
        assert honest.evaluation["bounce"]["next_open"]["value"] == pytest.approx(own)


class TestScores:
    def test_values_are_those_of_sklearn(self, honest: Case) -> None:
        found = honest.evaluation["targets"]
        holdout = honest.holdout
        label, p_up = holdout.label("direction"), holdout.forecast.p_up
        assert found["direction"]["metrics"]["auc"]["value"] == pytest.approx(sk.roc_auc_score(label, p_up))
        assert found["direction"]["metrics"]["brier"]["value"] == pytest.approx(sk.brier_score_loss(label, p_up))
        actual = holdout.label("range")
        assert found["range"]["metrics"]["r2"]["value"] == pytest.approx(sk.r2_score(actual, holdout.forecast.range))
        har = baseline_forecasts(holdout, "range")["har"]
        assert found["range"]["baselines"]["har"]["r2"]["value"] == pytest.approx(sk.r2_score(actual, har))
        inside = (holdout.forecast.range_low <= actual) & (actual <= holdout.forecast.range_high)
        assert found["range"]["metrics"]["coverage"]["value"] == pytest.approx(inside.mean())

    def test_every_interval_holds_its_value(self, honest: Case) -> None:
        checked = 0

        def walk(tree: Any) -> None:
            nonlocal checked
            if isinstance(tree, dict) and set(tree) == {"value", "low", "high"}:
                if tree["low"] is not None:
                    assert tree["low"] - 1e-9 <= tree["value"] <= tree["high"] + 1e-9
                    checked += 1
            elif isinstance(tree, dict):
                for part in tree.values():
                    walk(part)

        walk(honest.evaluation["targets"])
        assert checked > 60

    def test_differences_and_gains_follow_from_the_scores(self, honest: Case) -> None:
        scores = honest.evaluation["targets"]["range"]
        for name in ("mean", "previous", "ewma", "har"):
            ours, theirs = scores["metrics"]["rmse"]["value"], scores["baselines"][name]["rmse"]["value"]
            assert scores["differences"][name]["rmse"]["value"] == pytest.approx(ours - theirs)
            assert scores["differences"][name]["gain"]["value"] == pytest.approx(1 - (ours / theirs) ** 2)
        direction = honest.evaluation["targets"]["direction"]
        ours, theirs = (
            direction["metrics"]["log_loss"]["value"],
            direction["baselines"]["majority"]["log_loss"]["value"],
        )
        assert direction["differences"]["majority"]["gain"]["value"] == pytest.approx(1 - ours / theirs)

    def test_the_best_baseline_is_the_one_of_least_loss(self, honest: Case) -> None:
        scores = honest.evaluation["targets"]["range"]
        losses = {name: part["rmse"]["value"] for name, part in scores["baselines"].items()}
        assert losses[scores["best_baseline"]] == min(losses.values())

    def test_a_lone_member_ties_with_its_ensemble(self, honest: Case) -> None:
        difference = honest.evaluation["targets"]["range"]["differences"]["xgboost"]["rmse"]
        assert difference == {"value": 0.0, "low": 0.0, "high": 0.0}

    def test_slices_cover_the_holdout(self, honest: Case) -> None:
        slices = honest.evaluation["slices"]
        rows = honest.evaluation["holdout"]["rows"]
        assert rows == len(honest.holdout.row)
        assert set(slices["symbol"]) == set(SYMBOLS)
        for parts in slices.values():
            assert sum(part["rows"] for part in parts.values()) == rows
        own = honest.holdout.symbol == "AAA"
        expected = sk.r2_score(honest.holdout.label("range")[own], honest.holdout.forecast.range[own])
        assert slices["symbol"]["AAA"]["range"]["value"] == pytest.approx(expected)


class TestParameters:
    @pytest.mark.parametrize(
        "change",
        [
            {"cost_bps": 1.0},
            {"threshold": 0.05},
            {"bootstrap": 120},
            {"block": 3},
            {"confidence": 0.8},
        ],
    )
    def test_each_changes_the_numbers(self, honest: Case, change: dict[str, float]) -> None:
        changed = judge(honest.holdout, honest.changed(**change)).evaluation
        assert changed["trading"]["metrics"]["sharpe"] != honest.evaluation["trading"]["metrics"]["sharpe"]
        auc = changed["targets"]["direction"]["metrics"]["auc"]
        assert auc["value"] == honest.evaluation["targets"]["direction"]["metrics"]["auc"]["value"]
        resampled = set(change) & {"bootstrap", "block", "confidence"}
        assert (auc != honest.evaluation["targets"]["direction"]["metrics"]["auc"]) == bool(resampled)

    def test_a_named_baseline_becomes_a_condition(self, honest: Case) -> None:
        har = honest.evaluation["targets"]["range"]["differences"]["har"]["rmse"]
        assert har["high"] >= 0  # not beaten here
        changed = judge(honest.holdout, honest.changed(range_baselines=["previous", "har"])).evaluation
        edge = changed["targets"]["range"]["edge"]
        assert not edge["proven"]
        assert edge["baseline"] == ["previous", "har"]

    def test_what_is_suspicious_decides_the_flag(self, honest: Case) -> None:
        auc = honest.evaluation["targets"]["direction"]["metrics"]["auc"]["value"]
        assert judge(honest.holdout, honest.changed(suspicious_auc=auc - 0.001)).evaluation["flags"]


def test_the_same_holdout_gives_the_same_judgement(honest: Case) -> None:
    again = judge(honest.holdout, honest.params)
    assert json.dumps(again.evaluation, allow_nan=False) == json.dumps(honest.evaluation, allow_nan=False)
    for name, table in honest.judgement.plots.items():
        assert table.equals(again.plots[name])


def test_bars_per_year() -> None:
    days = np.datetime64("2000-01-01", "us") + np.arange(1462) * np.timedelta64(1, "D")
    assert bars_per_year(np.repeat(days, 3)) == pytest.approx(365.25)
