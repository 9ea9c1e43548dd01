from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from tests.bundles import REPOSITORY
from tests.simulation.conftest import WARM_UP, parameters
from tradeloop.config import Params
from tradeloop.errors import ConfigError
from tradeloop.prediction_log import read_prediction
from tradeloop.predictor import Prediction
from tradeloop.simulation.driver import Plan, Policy, Stage, simulate
from tradeloop.simulation.looping import Looping
from tradeloop.simulation.policies import Scheduled, Static
from tradeloop.simulation.record import Record
from tradeloop.simulation.report import recovery, summary
from tradeloop.simulation.world import World, build_world

PLAN = Plan(WARM_UP)


class Spy:
    """Does nothing but look."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.seen: list[Prediction] = []

    def turn(self, stage: Stage) -> None:
        assert all(one.asked_at <= stage.clock.now() for one in stage.fresh)
        self.seen += stage.fresh


def test_every_bar_is_asked_answered_and_logged(still: tuple[Params, World], tmp_path: Path) -> None:
    params, world = still

    class Keep(Spy):
        def turn(self, stage: Stage) -> None:
            super().turn(stage)
            if stage.step == len(world.times) - 1:
                logged = read_prediction(stage.database, str(self.seen[-1].id))
                assert logged["p_up"] == self.seen[-1].p_up
                assert logged["clock"] == "virtual"
                np.testing.assert_array_equal(logged["features"], self.seen[-1].features)

    keeper: list[Keep] = []

    def keeping(stage: Stage) -> Policy:
        keeper.append(Keep(stage))
        return keeper[0]

    record = simulate(params, world, PLAN, keeping, home=tmp_path / "run")
    assert len(keeper[0].seen) == len(world.times) - WARM_UP
    answers = record.answers()
    assert len(answers) == len(world.times) - WARM_UP - 1  # the last label has not ended
    bundle = keeper[0].stage.bundle(keeper[0].seen[0].model)
    # What was asked ahead in blocks is what one row alone gives.
    for row in (0, 100, len(answers) - 1):
        alone = bundle.forecast(world.x[answers.row[row]][None, :])
        assert alone.p_up[0] == pytest.approx(answers.forecast["direction"][row], abs=1e-6)


def test_a_training_sees_nothing_that_has_not_happened(
    still: tuple[Params, World], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params, world = still
    import tradeloop.simulation.driver as driver

    real, seen = driver.train_bundle, []

    def spy(matrix, bars, *rest, **named):  # type: ignore[no-untyped-def]
        seen.append((matrix.label_end.max(), max(series.timestamp[-1] for series in bars.values())))
        return real(matrix, bars, *rest, **named)

    monkeypatch.setattr(driver, "train_bundle", spy)
    record = simulate(params, world, PLAN, lambda _: Scheduled(timedelta(hours=100)), home=tmp_path / "run")
    assert [training.step for training in record.trainings] == [WARM_UP, WARM_UP + 100, WARM_UP + 200]
    for training, (label, bar) in zip(record.trainings, seen, strict=True):
        assert label <= world.times[training.step]
        assert bar == world.times[training.step]


def _run(params: Params, world: World, home: Path, plan: Plan = PLAN) -> Record:
    return simulate(params, world, plan, Looping, home=home)


def _told(record: Record) -> list[tuple[int, str, str, str]]:
    return [(change.step, change.kind, change.version, change.reason) for change in record.changes]


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run_and_so_does_a_loop_that_is_made_anew(tmp_path: Path) -> None:
    params = parameters(bars=450, drift_after=60, accuracy=0.8, triggers=_eager())
    world = build_world(params, root=REPOSITORY)
    first = _run(params, world, tmp_path / "first")
    again = _run(params, world, tmp_path / "again")
    np.testing.assert_array_equal(first.p_up, again.p_up)
    assert _told(first) == _told(again)

    class Restarted(Looping):
        """A loop that dies now and then without a word, and is made anew from what is on disk."""

        def turn(self, stage: Stage) -> None:
            if stage.step % 37 == 0:
                self.loop = self.make(stage)
            super().turn(stage)

    broken = simulate(params, world, PLAN, Restarted, home=tmp_path / "broken")
    np.testing.assert_array_equal(first.p_up, broken.p_up)
    models = ("alarm", "stage", "promoted", "reject", "rollback")
    assert [told[:3] for told in _told(first) if told[1] in models] == [
        told[:3] for told in _told(broken) if told[1] in models
    ]
    assert [t.step for t in first.trainings] == [t.step for t in broken.trainings]


def _eager() -> dict[str, object]:
    raw = parameters(bars=1).triggers.model_dump()
    raw["accuracy_drop"] |= {"min_rows": 220}
    raw["time_based"] |= {"enabled": False}
    raw["new_data"] |= {"enabled": False}
    raw["regime_change"] |= {"enabled": False}
    return raw


@pytest.mark.slow
def test_the_loop_finds_a_drift_retrains_on_what_came_after_and_recovers(tmp_path: Path) -> None:
    drift = 150
    params = parameters(bars=800, drift_after=drift, accuracy=0.8, triggers=_eager())
    world = build_world(params, root=REPOSITORY)
    looped = _run(params, world, tmp_path / "loop")
    static = simulate(params, world, PLAN, lambda _: Static(), home=tmp_path / "static")
    at = WARM_UP + drift
    alarms = [change.step for change in looped.changes if change.kind == "alarm"]
    promoted = [change.step for change in looped.changes if change.kind == "promoted"]
    assert not [step for step in alarms if step < at]
    assert alarms[0] - at < 60
    assert len(promoted) > 1
    assert alarms[0] < promoted[1] < at + 500
    after = (at + 500, len(world.times))

    def accuracy(record: Record) -> float:
        part = record.answers().between(*after)
        return float(((part.forecast["direction"] > 0.5) == (part.actual["direction"] > 0.5)).mean())

    assert accuracy(static) < 0.35
    assert accuracy(looped) > 0.65
    told = summary(looped, params.evaluate, seed=1, drift=at)
    assert told["periods"]["before"]["direction"]["accuracy"]["value"] > 0.65
    assert {training["trigger"] for training in told["trainings"]} >= {"first", "accuracy_drop"}


def test_a_warm_up_beyond_the_world_is_refused(still: tuple[Params, World], tmp_path: Path) -> None:
    params, world = still
    with pytest.raises(ConfigError, match="warm_up must lie between 1 and"):
        simulate(params, world, Plan(10**6), lambda _: Static(), home=tmp_path / "run")


class TestRecovery:
    def test_points_lost_and_regained_and_the_bar_of_half(self) -> None:
        steps = np.arange(400)
        score = np.where(steps < 100, 0.7, np.where(steps < 250, 0.5, 0.66))
        found = recovery(steps, score, drift=100, stretch=50)
        assert found.lost == pytest.approx(0.2)
        assert found.regained == pytest.approx(0.16)
        # Half (.6) holds for the mean over 50 bars from the 37th or so before the change on.
        assert found.half_time is not None
        assert 110 <= found.half_time <= 150

    def test_never_regained(self) -> None:
        steps = np.arange(400)
        found = recovery(steps, np.where(steps < 100, 0.7, 0.5), drift=100, stretch=50)
        assert found.regained == pytest.approx(0.0)
        assert found.half_time is None
