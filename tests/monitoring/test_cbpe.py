"""Expected skill before outcomes: right under covariate shift, blind to concept drift."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.streams import World, make_reference
from tradeloop.metrics import METRICS
from tradeloop.monitoring.cbpe import ASSUMPTION, expected_skill

CALM = World(intercept=0.1, slope=0.8)
REFERENCE = make_reference(CALM, times=40_000)


def realised(world: World, count: int, seed: int) -> tuple[np.ndarray, dict[str, float]]:
    columns = {name: values.ravel() for name, values in world.draw(count, seed).items()}
    p, up = columns["p_up"], columns["up"]
    names = ("accuracy", "log_loss", "auc")
    return p, {name: float(METRICS[name](up, p)) for name in names}


@pytest.mark.parametrize("spread", [0.1, 0.4, 0.8, 1.6])
def test_follows_covariate_shift(spread: float) -> None:
    """The market moves to where the champion is less, or more, sure; what follows from the features stays the same."""
    p, truth = realised(replace(CALM, spread=spread), 100_000, 5)
    found = expected_skill(p, REFERENCE)
    assert found["predictions"] == 100_000
    for name, value in truth.items():
        assert found[name]["value"] == pytest.approx(value, abs=0.012), name
        assert found[name]["low"] < value < found[name]["high"], name


def test_few_predictions_have_wide_intervals_within_their_scale() -> None:
    found = expected_skill(np.array([0.51, 0.48]), REFERENCE)
    assert (found["accuracy"]["low"], found["accuracy"]["high"]) == (0.0, 1.0)
    assert 0 <= found["log_loss"]["low"] < found["log_loss"]["value"] < found["log_loss"]["high"]


def test_is_blind_to_concept_drift_and_says_so() -> None:
    p, truth = realised(replace(CALM, slope=-0.8), 50_000, 5)
    found = expected_skill(p, REFERENCE)
    assert found["accuracy"]["value"] == pytest.approx(REFERENCE.direction.accuracy.value, abs=0.01)
    assert truth["accuracy"] < found["accuracy"]["low"] - 0.15
    assert found["assumption"] == ASSUMPTION and "changes of what follows from them are not" in ASSUMPTION


@pytest.mark.parametrize("name", ["accuracy", "log_loss", "auc"])
def test_intervals_hold_what_comes(name: str) -> None:
    inside = []
    for seed in range(150):
        p, truth = realised(CALM, 120, seed)
        found = expected_skill(p, REFERENCE, confidence=0.8)[name]
        inside.append(found["low"] <= truth[name] <= found["high"])
    assert np.mean(inside) == pytest.approx(0.8, abs=0.1)


def test_intervals_know_how_little_a_short_holdout_says() -> None:
    p, _ = realised(CALM, 50_000, 5)
    widths = []
    for reference in (REFERENCE, make_reference(CALM, times=200)):
        accuracy = expected_skill(p, reference)["accuracy"]
        widths.append(accuracy["high"] - accuracy["low"])
    assert widths[1] > 3 * widths[0]


def test_auc_is_the_mean_over_all_labels() -> None:
    p = np.array([0.2, 0.5, 0.5, 0.7, 0.9])
    line, slope = REFERENCE.direction.intercept.value, REFERENCE.direction.slope.value
    up = 1 / (1 + np.exp(-(line + slope * np.log(p / (1 - p)))))
    pairs = wins = 0.0
    for i in range(5):
        for j in range(5):
            if i != j:
                weight = up[i] * (1 - up[j])
                pairs += weight
                wins += weight * (1.0 if p[i] > p[j] else 0.5 if p[i] == p[j] else 0.0)
    assert expected_skill(p, REFERENCE)["auc"]["value"] == pytest.approx(wins / pairs)


def test_of_nothing_and_of_equal_forecasts() -> None:
    empty = expected_skill(np.array([np.nan]), REFERENCE)
    assert (empty["predictions"], empty["accuracy"], empty["auc"]) == (0, None, None)
    equal = expected_skill(np.full(5, 0.6), REFERENCE)
    assert equal["auc"] is None and equal["accuracy"]["value"] > 0.5
    json.dumps([empty, equal, expected_skill(np.array([0.0, 1.0]), REFERENCE)], allow_nan=False)
