from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from tests.bundles import NAMES, tiny_bundle
from tests.loop.outcomes import resolved, stream
from tradeloop.adaptation import NEUTRAL, Adaptation
from tradeloop.bundle import Bundle
from tradeloop.config import Adapt
from tradeloop.errors import AdaptationError, StoreError
from tradeloop.loop.adapt import Adapter
from tradeloop.loop.snapshots import Snapshot, append, logged_features
from tradeloop.prediction_log import PredictionLog
from tradeloop.predictor import Prediction
from tradeloop.state.adaptations import AdaptationStore
from tradeloop.state.database import Database

ON = Adapt(enabled=True)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "one")


def run(bundle: Bundle, config: Adapt, count: int, **planted: Any) -> tuple[Adapter, list[Snapshot]]:
    adapter = Adapter(bundle, config)
    outcomes, x, forecast = stream(bundle, count, **planted)
    return adapter, adapter.update(outcomes, x, forecast)


def test_switched_off_it_learns_nothing(bundle: Bundle) -> None:
    adapter, snapshots = run(bundle, Adapt(), 300, slope=-1.0)
    assert snapshots == []
    assert Adaptation.parse(adapter.served).neutral


def test_a_bundle_that_is_right_is_served_as_it_was_packaged(bundle: Bundle) -> None:
    adapter, snapshots = run(bundle, ON, 800)
    assert snapshots == []
    assert {part["phase"] for part in adapter.summary().values()} == {"proving"}


def test_a_bundle_that_is_too_sure_is_recalibrated_once_that_is_proven(bundle: Bundle) -> None:
    adapter, snapshots = run(bundle, ON, 1500, slope=0.2)
    assert "direction: forecasts better" in snapshots[0].reason
    assert adapter.summary()["direction"]["phase"] == "applied"
    later, x, forecast = stream(bundle, 2000, seed=9, slope=0.2)
    moved = Adaptation.parse(adapter.served, spec=bundle.ensemble.spec).apply(forecast, x)
    up = np.array([one.outcome.direction for one in later])

    def loss(p: Any) -> float:
        return float(-np.log(np.where(up > 0.5, p, 1 - p)).mean())

    assert loss(moved.p_up) < loss(forecast.p_up) - 0.015
    assert np.array_equal(moved.range, forecast.range)


def test_intervals_that_are_too_narrow_are_widened_to_their_nominal_coverage(bundle: Bundle) -> None:
    adapter, _ = run(bundle, ON, 1000, spread=2.0)
    later, x, forecast = stream(bundle, 2000, seed=9, spread=2.0)
    moved = Adaptation.parse(adapter.served).apply(forecast, x)

    def coverage(name: str, low: Any, high: Any) -> float:
        label = np.array([getattr(one.outcome, name) for one in later])
        return float(((label >= low) & (label <= high)).mean())

    assert coverage("ret", forecast.ret_low, forecast.ret_high) < 0.65
    assert 0.86 < coverage("ret", moved.ret_low, moved.ret_high) < 0.94
    assert 0.86 < coverage("range", moved.range_low, moved.range_high) < 0.94


def test_a_level_of_volatility_that_has_moved_is_followed(bundle: Bundle) -> None:
    adapter, _ = run(bundle, ON, 800, shift=0.8)
    later, x, forecast = stream(bundle, 1000, seed=9, shift=0.8)
    moved = Adaptation.parse(adapter.served).apply(forecast, x)
    label = np.array([one.outcome.range for one in later])
    half = (forecast.range_high - forecast.range_low) / 2
    assert abs(((label - moved.range) / half).mean()) < 0.15 < abs(((label - forecast.range) / half).mean())


def test_what_is_worse_is_taken_back_forgotten_and_pauses(bundle: Bundle) -> None:
    """A recalibration that says one half of everything, from which it cannot learn away: only the guard can help."""
    config = ON.model_copy(update={"apply": "not_worse", "min_bars": 20, "drift": 1e-12, "max_step": 1e-9, "pause": 50})
    adapter = Adapter(bundle, config)
    state = adapter.state()
    state["tracks"]["direction"]["learner"]["recalibration"]["slope"] = 0.0
    adapter.restore(state)
    outcomes, x, forecast = stream(bundle, 800, slope=1.5)
    snapshots = adapter.update(outcomes, x, forecast)
    first = Adaptation.parse(snapshots[0].content).content.targets.direction
    assert first.slope < 0.01
    (taken,) = [snapshot for snapshot in snapshots if "direction: forecasts worse" in snapshot.reason]
    assert Adaptation.parse(taken.content).content.targets.direction == NEUTRAL.targets.direction
    after = [one for one in snapshots if taken.outcome_seq < one.outcome_seq <= taken.outcome_seq + 60]
    assert all(Adaptation.parse(one.content).content.targets.direction.slope == 1.0 for one in after)
    assert adapter.summary()["direction"]["slope"] == pytest.approx(1.0, abs=1e-5)


def test_not_worse_applies_without_proof(bundle: Bundle) -> None:
    config = ON.model_copy(update={"apply": "not_worse", "min_bars": 60})
    adapter, snapshots = run(bundle, config, 300)
    assert snapshots
    assert snapshots[0].outcome_seq <= 100
    phases = {part["phase"] for part in adapter.summary().values()}
    assert "applied" in phases


def test_snapshots_come_every_so_many_outcomes(bundle: Bundle) -> None:
    for every in (25, 60):
        config = ON.model_copy(update={"apply": "not_worse", "min_bars": 1, "every": every})
        _, snapshots = run(bundle, config, 300)
        by_count = [one.outcome_seq for one in snapshots if one.reason.startswith("after")]
        assert by_count
        assert all(seq % every == 0 for seq in by_count)


def test_a_rise_of_the_loss_makes_a_target_forget(bundle: Bundle) -> None:
    adapter = Adapter(bundle, ON.model_copy(update={"apply": "not_worse", "min_bars": 20, "prove": 1e-9}))
    calm, x, forecast = stream(bundle, 400, shift=0.6)
    adapter.update(calm, x, forecast)
    assert adapter.summary()["range"]["intercept"] > 0.4
    wild, x, forecast = stream(bundle, 200, seed=7, shift=-2.0, spread=4.0)
    wild = [
        replace(
            one,
            prediction=replace(
                one.prediction,
                asked_at=one.prediction.asked_at + timedelta(hours=400),
                feature_time=one.prediction.asked_at + timedelta(hours=400),
            ),
            outcome=replace(one.outcome, seq=one.seq + 400, resolved_at=one.outcome.resolved_at + timedelta(hours=400)),
        )
        for one in wild
    ]
    snapshots = adapter.update(wild, x, forecast)
    assert any("range: the loss has risen; what was learned is forgotten" in one.reason for one in snapshots)


def test_no_number_moves_further_than_max_step_an_outcome(bundle: Bundle) -> None:
    config = ON.model_copy(update={"max_step": 0.01, "width_step": 0.01})
    adapter = Adapter(bundle, config)
    outcomes, x, _ = stream(bundle, 200, slope=-2.0, shift=2.0, spread=4.0)
    before = adapter.summary()
    for i, one in enumerate(outcomes):
        adapter.update([one], x[i : i + 1])
        after = adapter.summary()
        for target, part in after.items():
            was = before[target]
            for name in ("slope", "intercept"):
                if name in part:
                    assert abs(part[name] - was[name]) <= 0.01 + 1e-12
            moved = sum(abs(weight - was["weights"][name]) for name, weight in part["weights"].items())
            assert moved <= 0.01 + 1e-12
        before = after


def test_however_outcomes_are_grouped_the_result_is_the_same(bundle: Bundle) -> None:
    outcomes, x, forecast = stream(bundle, 400, slope=0.2, spread=2.0)
    whole, parts = Adapter(bundle, ON), Adapter(bundle, ON)
    at_once = whole.update(outcomes, x, forecast)
    by_parts: list[Snapshot] = []
    for first in range(0, 400, 7):
        rows = slice(first, first + 7)
        by_parts += parts.update(outcomes[rows], x[rows])
    assert at_once
    assert len(at_once) == len(by_parts)
    assert [one.outcome_seq for one in at_once] == [one.outcome_seq for one in by_parts]
    one, other = (Adaptation.parse(content).content.targets.ret.low for content in (whole.served, parts.served))
    assert one == pytest.approx(other, abs=1e-5)


def test_a_restored_adapter_goes_on_exactly_as_if_nothing_had_happened(bundle: Bundle) -> None:
    outcomes, x, _ = stream(bundle, 400, slope=0.2, spread=2.0)
    steady, killed = Adapter(bundle, ON), Adapter(bundle, ON)
    for adapter in (steady, killed):
        adapter.update(outcomes[:250], x[:250])
    text = json.dumps(killed.state(), allow_nan=False)
    again = Adapter(bundle, ON)
    again.restore(json.loads(text))
    assert again.state() == steady.state()
    # Outcomes that the checkpoint knows are handed over once more, as after a crash.
    assert again.update(outcomes[200:], x[200:]) == steady.update(outcomes[250:], x[250:])
    assert again.state() == steady.state()


def test_the_state_of_another_model_is_refused(bundle: Bundle) -> None:
    state = Adapter(bundle, ON).state() | {"model": "f" * 64}
    with pytest.raises(AdaptationError, match="of model ffffffffffff, not"):
        Adapter(bundle, ON).restore(state)


def test_each_question_teaches_once(bundle: Bundle) -> None:
    outcomes, x, forecast = stream(bundle, 60)
    plain, noisy = Adapter(bundle, ON), Adapter(bundle, ON)
    plain.update(outcomes, x, forecast)
    for i, one in enumerate(outcomes):
        asked_again = replace(one, outcome=replace(one.outcome, seq=one.seq * 10 + 1))
        restated = resolved(one.seq * 10 + 2, bundle.hash, bar=one.seq + 1000, revision=1)
        foreign = resolved(one.seq * 10 + 3, "f" * 64, bar=one.seq + 1000)
        first = replace(one, outcome=replace(one.outcome, seq=one.seq * 10))
        noisy.update([first, asked_again, restated, foreign], np.repeat(x[i : i + 1], 4, axis=0))
    ours, theirs = plain.summary(), noisy.summary()
    assert ours["range"]["intercept"] == pytest.approx(theirs["range"]["intercept"], abs=1e-6)
    assert noisy.state()["seen"] == plain.state()["seen"] == 60


def test_a_forecast_is_judged_by_the_snapshot_that_was_known_when_it_was_asked_for(bundle: Bundle) -> None:
    """All of these were asked before any outcome was known: nothing that they teach can be tried on them."""
    outcomes, x, forecast = stream(bundle, 300, spread=3.0)
    late = [
        replace(one, outcome=replace(one.outcome, resolved_at=one.outcome.resolved_at + timedelta(days=365)))
        for one in outcomes
    ]
    adapter = Adapter(bundle, ON)
    assert adapter.update(late, x, forecast) == []
    assert {track["guard"]["bars"] for track in adapter.state()["tracks"].values()} == {0}
    assert adapter.summary()["return"]["high"] > 1.2
    assert Adapter(bundle, ON).update(outcomes, x, forecast) != []


def test_realised_costs_reach_the_snapshot_with_or_without_learning(bundle: Bundle) -> None:
    adapter = Adapter(bundle, Adapt())
    when = resolved(7, bundle.hash).outcome.resolved_at
    snapshot = adapter.set_cost(9.0, outcome_seq=7, market_time=when, reason="fills cost more")
    assert snapshot is not None
    assert snapshot.kind == "snapshot"
    assert Adaptation.parse(snapshot.content).cost_bps == 9.0
    assert adapter.set_cost(9.0, outcome_seq=8, market_time=when, reason="again") is None
    again = Adapter(bundle, Adapt())
    again.restore(json.loads(json.dumps(adapter.state())))
    back = again.set_cost(None, outcome_seq=9, market_time=when, reason="fills cost what was assumed")
    assert back is not None
    assert back.kind == "rollback"
    assert back.content == {"to": None}


def test_a_snapshot_keeps_the_cost(bundle: Bundle) -> None:
    adapter = Adapter(bundle, ON)
    outcomes, x, forecast = stream(bundle, 400, spread=3.0)
    adapter.set_cost(9.0, outcome_seq=0, market_time=outcomes[0].outcome.resolved_at, reason="x")
    snapshots = adapter.update(outcomes, x, forecast)
    assert snapshots
    assert {snapshot.content["cost_bps"] for snapshot in snapshots} == {9.0}


def test_snapshots_are_appended_once(bundle: Bundle, database: Database) -> None:
    store = AdaptationStore(database, "us_daily")
    _, snapshots = run(bundle, ON, 400, spread=3.0)
    append(store, bundle.hash, snapshots)
    version = store.version()
    append(store, bundle.hash, snapshots)
    assert store.version() == version
    newest = store.newest(bundle.hash)
    assert newest is not None
    assert newest[1] == snapshots[-1].content


def test_features_come_back_from_the_log_in_the_order_asked_for(database: Database) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    at = resolved(1, "a" * 64).prediction.asked_at
    ids = [f"{i:036d}" for i in range(3)]
    rows = [
        Prediction(
            id=ids[i],
            market="us_daily",
            symbol="AAPL",
            status="ok",
            asked_at=at,
            feature_time=at,
            max_age=1.0,
            clock="replay",
            model="a" * 64,
            version="a" * 12,
            schema_hash="s",
            features=x[i],
            verdict="abstain",
            reasons=(),
        )
        for i in range(3)
    ]
    with PredictionLog(database) as log:
        log.append(rows).result()
    assert np.array_equal(logged_features(database, [ids[2], ids[0], ids[2]]), x[[2, 0, 2]])
    with pytest.raises(StoreError, match="no prediction has the id 'nope'"):
        logged_features(database, [ids[0], "nope"])


def test_the_linear_member_is_exported_as_river_computes_it(bundle: Bundle) -> None:
    from tradeloop.ensemble import logit
    from tradeloop.loop.online_member import OnlineMember

    member = OnlineMember(NAMES, ON.model_copy(update={"learning_rate": 0.3}))
    outcomes, x, forecast = stream(bundle, 400, slope=-1.0)
    z = logit(forecast.p_up)
    half = (forecast.range_high - forecast.range_low) / 2
    for i, one in enumerate(outcomes):
        row = x[i].astype(np.float64)
        residual = (float(one.outcome.range or 0) - forecast.range[i]) / half[i]
        truths: Any = {"direction": (z[i], one.outcome.direction), "return": (0.0, 0.1), "range": (0.0, residual)}
        member.learn(row, member.features(row), truths)
    assert member.linear("direction")["tilt"] < -0.2  # type: ignore[index]
    parts = {target: {"weights": {"online": 0.5}, "online": member.linear(target)} for target in ("direction", "range")}
    moved = Adaptation.parse({"scaler": member.scaler(), "targets": parts}).apply(forecast, x)
    for i in (3, 77):
        features = member.features(x[i].astype(np.float64))
        apart = np.clip(member.apart("direction", features, float(z[i])), -1, 1)
        assert logit(moved.p_up[i : i + 1])[0] == pytest.approx(z[i] + 0.5 * apart, abs=1e-6)
        apart = np.clip(member.apart("range", features, 0.0), -1, 1)
        assert moved.range[i] == pytest.approx(forecast.range[i] + 0.5 * half[i] * apart, abs=1e-6)
