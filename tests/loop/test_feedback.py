from __future__ import annotations

import json

import numpy as np
import pytest

from tradeloop.config import Evaluate
from tradeloop.config import Feedback as FeedbackConfig
from tradeloop.loop.feedback import Feedback, robust_mean

CONFIG, EVALUATE = FeedbackConfig(), Evaluate(cost_bps=5.0, threshold=0.02)


def fills(cost: float, count: int = 300, seed: int = 0) -> list[float]:
    """Return costs with a true mean: a fee of one basis point, and slippage of either sign."""
    rng = np.random.default_rng(seed)
    return (1.0 + rng.normal(cost - 1.0, 3.0, count)).tolist()


def feedback(**changes: float) -> Feedback:
    return Feedback(CONFIG.model_copy(update=changes), EVALUATE)


def test_the_interval_covers_the_true_cost_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(400):
        found = robust_mean(fills(6.0, 60, seed), confidence=0.9)
        covered += found.low <= 6.0 <= found.high
    assert 0.86 < covered / 400 < 0.94


def test_a_few_absurd_fills_do_not_move_the_estimate() -> None:
    clean = fills(5.0)
    absurd = [*clean[:-5], 5_000.0, -3_000.0, 900.0, 1e6, 2_000.0]
    one, other = (robust_mean(values, confidence=0.95) for values in (clean, absurd))
    assert abs(one.value - other.value) < 0.3
    with pytest.raises(ValueError, match="at least 5 finite values, got 4"):
        robust_mean([1.0] * 4, confidence=0.95)


def test_with_too_few_fills_nothing_is_concluded() -> None:
    advice = feedback().update(fills(50.0, 29), assumed=5.0)
    assert (advice.decision, advice.hurdle_bps, advice.overrides, advice.evidence) == ("wait", None, {}, {})
    assert advice.reason == "29 fills, 30 are needed"
    assert feedback(min_fills=10).update(fills(50.0, 29), assumed=5.0).decision == "raise"


def test_costs_as_assumed_change_nothing() -> None:
    advice = feedback().update(fills(5.0), assumed=5.0)
    assert (advice.decision, advice.hurdle_bps, advice.overrides) == ("keep", None, {})
    assert advice.evidence["low"] < 5.0 < advice.evidence["high"]
    assert advice.evidence["assumed"] == 5.0


def test_higher_costs_raise_the_hurdle_at_once_and_the_cost_of_the_next_retraining() -> None:
    advice = feedback().update(fills(8.0), assumed=5.0)
    assert advice.decision == "raise"
    assert advice.hurdle_bps == pytest.approx(8.0, abs=0.6)
    assert advice.overrides == {"evaluate.cost_bps": pytest.approx(8.0, abs=0.6)}
    assert "raise; for the next retraining evaluate.cost_bps" in advice.reason


def test_lower_costs_never_lower_the_hurdle_below_the_champions_and_propose_with_caution() -> None:
    advice = feedback().update(fills(3.5), assumed=5.0)
    assert advice.decision == "lower"
    assert advice.hurdle_bps is None
    assert advice.overrides["evaluate.cost_bps"] == pytest.approx(advice.evidence["high"], abs=0.01)


def test_one_retraining_changes_the_cost_by_a_bounded_factor() -> None:
    assert feedback().update(fills(40.0), assumed=5.0).overrides == {"evaluate.cost_bps": 10.0}
    assert feedback().update(fills(1.0), assumed=5.0).overrides == {"evaluate.cost_bps": 2.5}
    assert feedback(max_factor=4.0).update(fills(40.0), assumed=5.0).overrides == {"evaluate.cost_bps": 20.0}
    assert feedback(max_cost_bps=25.0).update(fills(40.0), assumed=5.0).hurdle_bps == 25.0


def test_the_hurdle_stands_until_fills_prove_otherwise_and_then_comes_down() -> None:
    ours = feedback()
    raised = ours.update(fills(8.0), assumed=5.0).hurdle_bps
    assert ours.update(fills(8.0, seed=1), assumed=5.0).hurdle_bps == raised
    lower = ours.update(fills(6.5, seed=2), assumed=5.0).hurdle_bps
    assert lower == pytest.approx(6.5, abs=0.6)
    assert ours.update(fills(5.0, seed=3), assumed=5.0).hurdle_bps is None
    # A new champion that assumes the higher cost itself needs no hurdle.
    ours.update(fills(8.0), assumed=5.0)
    assert ours.update(fills(8.0), assumed=8.0).hurdle_bps is None


def test_only_the_newest_fills_count() -> None:
    newest_first = [*fills(5.0, 100), *fills(50.0, 400)]
    assert feedback(window=100).update(newest_first, assumed=5.0).decision == "keep"


def test_trades_proven_to_lose_ask_for_a_larger_threshold() -> None:
    rng = np.random.default_rng(0)
    losing, paying = (rng.normal(mean, 30.0, 400).tolist() for mean in (-10.0, 1.0))
    advice = feedback().update(fills(5.0), losing, assumed=5.0)
    assert advice.overrides == {"evaluate.threshold": 0.04}
    assert advice.evidence["net_high"] < 0
    assert feedback(max_threshold=0.03).update(fills(5.0), losing, assumed=5.0).overrides == {
        "evaluate.threshold": 0.03
    }
    assert feedback().update(fills(5.0), paying, assumed=5.0).overrides == {}
    assert feedback().update(fills(5.0), losing[:20], assumed=5.0).overrides == {}


def test_the_hurdle_survives_a_restart() -> None:
    ours, again = feedback(), feedback()
    ours.update(fills(8.0), assumed=5.0)
    again.restore(json.loads(json.dumps(ours.state())))
    wide = fills(8.0, 31, seed=4)
    assert again.update(wide, assumed=5.0) == ours.update(wide, assumed=5.0)
    assert again.hurdle_bps is not None
