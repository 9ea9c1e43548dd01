"""Each control passes on a clean run, and fails once what it guards against is done on purpose."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.holdouts import Case
from tradeloop import robustness
from tradeloop.bars import Bars
from tradeloop.evaluate import controls
from tradeloop.evaluate.controls import run_controls
from tradeloop.evaluate.holdout import Holdout
from tradeloop.evaluate.scores import resampler

NAMES = ["shuffled_labels", "planted_leak", "planted_leak_score", "feature_contract", "labels"]


def failing(case: Case, holdout: Holdout | None = None, **evaluate: Any) -> list[str]:
    config = case.changed(**evaluate).evaluate
    judged = holdout or case.holdout
    found = run_controls(judged, resampler(judged.timestamp, config, 1), config, 1)
    assert [control["name"] for control in found] == NAMES
    return [control["name"] for control in found if not control["passed"]]


def test_clean_runs_pass(honest: Case, skilled: Case) -> None:
    for case in (honest, skilled):
        assert [control["name"] for control in case.evaluation["controls"]] == NAMES
        assert all(control["passed"] for control in case.evaluation["controls"])


def test_labels_that_are_not_shuffled_are_noticed(skilled: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "permute_timestamps", lambda _timestamp, label, **_: label)
    assert failing(skilled) == ["shuffled_labels"]


def test_a_blind_contract_is_noticed(honest: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(robustness, "leak_findings", lambda *_, **__: ["finite: bar 3 is NaN"])
    assert failing(honest) == ["planted_leak"]


def test_a_leak_below_what_is_suspicious_is_noticed(honest: Case) -> None:
    assert failing(honest, suspicious_auc=1.0) == ["planted_leak_score"]


def test_features_that_look_ahead_are_noticed(honest: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    honest_rows = controls.compute

    def leaky(bars: Bars, schema: Any) -> Any:
        rows = honest_rows(bars, schema)
        rows[:-1, 0] = np.diff(np.log(bars.close))
        return rows

    monkeypatch.setattr(controls, "compute", leaky)
    assert failing(honest) == ["feature_contract"]


def test_labels_of_another_bar_are_noticed(honest: Case) -> None:
    sample = honest.holdout.sample
    shifted = {target: np.roll(values, 2) for target, values in sample.y.items()}
    moved = replace(honest.holdout, sample=replace(sample, y=shifted))
    assert "labels" in failing(honest, moved)


def test_a_row_without_a_bar_is_noticed(honest: Case) -> None:
    gone = {name: bars[: len(bars) - 5] for name, bars in honest.holdout.bars.items()}
    assert "labels" in failing(honest, replace(honest.holdout, bars=gone))


def test_too_few_bars_to_check_the_features_fail(honest: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "schema_lookback", lambda *_: 10_000)
    assert failing(honest) == ["feature_contract"]
