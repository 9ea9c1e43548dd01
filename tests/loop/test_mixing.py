from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.config import Adapt
from tradeloop.loop.mixing import Recalibration, Shift, Weights, Width

CONFIG = Adapt(enabled=True)


def with_(**changes: float) -> Adapt:
    return CONFIG.model_copy(update=changes)


def learned(config: Adapt, gradients: dict[str, float], steps: int = 200) -> dict[str, float]:
    weights = Weights(list(gradients), config)
    for _ in range(steps):
        weights.step(gradients)
    return weights.members


def test_weight_flows_to_the_member_that_lowers_the_loss() -> None:
    members = learned(CONFIG, {"good": -1.0, "bad": 1.0})
    assert members["good"] > 0.4 > 10 * members["bad"]


def test_where_nothing_speaks_for_any_member_a_tenth_at_most_is_moved() -> None:
    rng = np.random.default_rng(0)
    weights = Weights(["a", "b"], CONFIG)
    for _ in range(5000):
        weights.step({"a": float(rng.standard_normal()), "b": float(rng.standard_normal())})
    assert sum(weights.members.values()) < 0.5
    still = learned(with_(share=0.02), {"a": 0.0, "b": 0.0}, 2000)
    assert sum(still.values()) == pytest.approx(0.1, abs=1e-6)


def test_the_step_of_exponentiated_gradient_by_hand() -> None:
    config = with_(rate=0.2, share=0.0, max_step=1.0, max_weight=1.0)
    weights = Weights(["a", "b"], config)
    weights.restore({"members": {"a": 0.3, "b": 0.2}, "power": 0.0, "seen": 0})
    weights.step({"a": 0.6, "b": -0.8})
    size = math.sqrt((0.36 + 0.64) / 2)
    grown = {"a": 0.3 * math.exp(-0.2 * 0.6 / size), "b": 0.2 * math.exp(0.2 * 0.8 / size)}
    whole = sum(grown.values()) + 0.5
    assert weights.members == pytest.approx({name: weight / whole for name, weight in grown.items()})


def test_a_change_is_followed_because_no_weight_is_ever_lost() -> None:
    config = with_(rate=0.2)
    weights = Weights(["a", "b"], config)
    for _ in range(2000):
        weights.step({"a": -1.0, "b": 1.0})
    for _ in range(100):
        weights.step({"a": 1.0, "b": -1.0})
    assert weights.members["b"] > weights.members["a"]


@pytest.mark.parametrize(("name", "value"), [("rate", 0.1), ("share", 0.05), ("max_step", 0.001), ("max_weight", 0.2)])
def test_each_parameter_of_the_weights_counts(name: str, value: float) -> None:
    assert learned(with_(**{name: value}), {"a": -1.0, "b": 0.5}) != learned(CONFIG, {"a": -1.0, "b": 0.5})


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=1, max_size=60),
    st.floats(0.01, 1.0),
    st.floats(0.001, 0.5),
)
def test_weights_keep_their_bounds_whatever_comes(
    gradients: list[tuple[float, float]], most: float, step: float
) -> None:
    weights = Weights(["a", "b"], with_(max_weight=most, max_step=step, rate=2.0, share=0.2))
    for a, b in gradients:
        before = dict(weights.members)
        weights.step({"a": a, "b": b})
        assert all(weight >= 0 for weight in weights.members.values())
        assert sum(weights.members.values()) <= most * (1 + 1e-9)
        assert sum(abs(weights.members[name] - before[name]) for name in before) <= step * (1 + 1e-9)


def recalibrated(config: Adapt, truth: tuple[float, float], count: int = 3000, seed: int = 0) -> Recalibration:
    rng = np.random.default_rng(seed)
    found = Recalibration(config)
    for z in rng.normal(0.0, 1.0, count):
        p = 1.0 / (1.0 + math.exp(-(truth[0] * z + truth[1])))
        found.step(float(z), float(rng.random() < p))
    return found


def test_slope_and_intercept_are_found() -> None:
    found = recalibrated(with_(memory=2000), (0.4, 0.3))
    assert found.slope == pytest.approx(0.4, abs=0.15)
    assert found.intercept == pytest.approx(0.3, abs=0.12)


def test_log_odds_that_say_nothing_stay_as_they_are() -> None:
    rng = np.random.default_rng(0)
    found = Recalibration(CONFIG)
    for z in rng.normal(0.0, 0.02, 2000):
        found.step(float(z), float(rng.random() < 0.5))
    assert found.slope == pytest.approx(1.0, abs=0.1)


def test_a_stack_that_ranks_worse_than_chance_is_not_turned_round() -> None:
    assert recalibrated(CONFIG, (-2.0, 0.0)).slope == 0.0


def test_what_is_forgotten_goes_back_to_the_prior() -> None:
    found = recalibrated(with_(memory=50), (0.2, 0.0))
    for _ in range(2000):
        found.step(0.0, 0.5)
    assert found.slope == pytest.approx(1.0, abs=0.01)


def test_memory_and_bounds_of_recalibration_count() -> None:
    assert recalibrated(with_(memory=20), (0.2, 0.0)).slope != recalibrated(CONFIG, (0.2, 0.0)).slope
    found = Recalibration(with_(max_step=0.01))
    found.step(4.0, 0.0)
    assert found.slope == pytest.approx(0.99)


def test_a_shift_is_the_mean_of_residuals_with_the_priors_weight() -> None:
    shift = Shift(with_(memory=10**6, max_step=1.0), sure=4.0)
    for _ in range(12):
        shift.step(0.5)
    assert shift.value == pytest.approx(0.5 * 12 / 16, abs=1e-4)
    slow = Shift(with_(max_step=0.001), sure=4.0)
    slow.step(3.0)
    assert slow.value == 0.001
    for _ in range(10_000):
        shift.step(50.0)
    assert shift.value == 1.5


@pytest.mark.parametrize(("scale", "coverage"), [(1.0, 0.9), (2.5, 0.9), (0.5, 0.8)])
def test_a_side_is_missed_as_often_as_it_should_be_in_the_long_run(scale: float, coverage: float) -> None:
    """The errors are `scale` times as large as the interval was made for."""
    rng = np.random.default_rng(1)
    width, tail = Width(CONFIG, tail=(1 - coverage) / 2), (1 - coverage) / 2
    quantile = 1.2815515655446004 if coverage == 0.8 else 1.6448536269514722
    missed = 0
    for number, error in enumerate(scale * rng.standard_normal(12_000)):
        miss = bool(error > quantile * width.value)
        width.step(missed=miss)
        missed += miss and number >= 2000
    assert missed / 10_000 == pytest.approx(tail, abs=0.01)


def test_a_width_keeps_its_bounds() -> None:
    width = Width(with_(max_width=1.5, width_step=0.1), tail=0.05)
    for _ in range(100):
        width.step(missed=True)
    assert width.value == pytest.approx(1.5)
    for _ in range(10_000):
        width.step(missed=False)
    assert width.value == pytest.approx(1 / 1.5)


def test_each_part_survives_json_and_forgets() -> None:
    rng = np.random.default_rng(0)
    weights, again = Weights(["a"], CONFIG), Weights(["a"], CONFIG)
    parts = [(Recalibration(CONFIG), Recalibration(CONFIG)), (Shift(CONFIG, sure=4.0), Shift(CONFIG, sure=4.0))]
    for _ in range(50):
        weights.step({"a": float(rng.standard_normal())})
        parts[0][0].step(float(rng.standard_normal()), 1.0)
        parts[1][0].step(float(rng.standard_normal()))
    for one, other in [(weights, again), *parts]:
        other.restore(json.loads(json.dumps(one.state())))
        assert other.state() == one.state()
    for part in (weights, parts[0][0], parts[1][0]):
        part.forget()
    assert weights.members == {"a": 0.0}
    assert (parts[0][0].slope, parts[0][0].intercept, parts[1][0].value) == (1.0, 0.0, 0.0)
