"""The watch over skill: quick where there is a fall, silent where there is none, the same after a restart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.streams import HOUR, START, World, batches, make_content, make_reference
from tradeloop.config import Degradation
from tradeloop.config.degradation import Weights
from tradeloop.errors import ConfigError
from tradeloop.monitoring.degradation import Alarm, SkillMonitor
from tradeloop.monitoring.records import Resolved
from tradeloop.reference import Reference

CALM = World()
REFERENCE = make_reference(CALM)
DEFAULT = Degradation()


def only(target: str, **change: Any) -> Degradation:
    weights = {"direction": 0.0, "ret": 0.0, "range": 0.0, target: 1.0}
    return Degradation(weights=Weights(**weights), **change)


def run(monitor: SkillMonitor, stream: Iterable[tuple[Resolved, ...]]) -> int | None:
    """Feed until there is an alarm; return the number of times until then."""
    for number, batch in enumerate(stream, start=1):
        monitor.update(batch)
        if monitor.alarm is not None:
            return number
    return None


def delays(world: World, *, seeds: int = 12, config: Degradation = DEFAULT, times: int = 1_500) -> list[float]:
    """Return the delays to the alarm after 100 calm times."""
    found = []
    for seed in range(seeds):
        monitor = SkillMonitor(REFERENCE, config)
        assert run(monitor, batches(CALM, 100, seed=500 + seed)) is None
        found.append(run(monitor, batches(world, times, seed=900 + seed, first=100)) or math.inf)
    return found


def changed(resolved: Resolved, **outcome: Any) -> Resolved:
    return replace(resolved, outcome=replace(resolved.outcome, **outcome))


class TestDetection:
    @pytest.mark.parametrize("world", [replace(CALM, slope=-1.0), replace(CALM, slope=0.0)])
    def test_of_a_lost_edge_is_near_the_information_limit(self, world: World) -> None:
        x = CALM.spread * np.random.default_rng(0).standard_normal(200_000)
        before, after = (1 / (1 + np.exp(-slope * x)) for slope in (CALM.slope, world.slope))
        nats = after * np.log(after / before) + (1 - after) * np.log((1 - after) / (1 - before))
        limit = math.log(10_000) / float(nats.mean())
        assert np.mean(delays(world)) < 1.5 * limit

    def test_of_a_jump_in_volatility_is_a_matter_of_few_outcomes(self) -> None:
        assert np.mean(delays(replace(CALM, bias=1.1))) <= 4

    @pytest.mark.parametrize("world", [replace(CALM, bias=0.4), replace(CALM, bias=-0.5), replace(CALM, noise=0.6)])
    def test_of_a_worse_range_forecast(self, world: World) -> None:
        found = delays(world)
        assert np.mean(found) < 100

    def test_of_shifted_base_rates(self) -> None:
        assert np.mean(delays(replace(CALM, intercept=0.8), seeds=6)) < 250

    def test_all_symbols_together_find_it_sooner(self) -> None:
        four = replace(CALM, symbols=4, slope=-1.0)
        monitor = SkillMonitor(make_reference(replace(CALM, symbols=4), times=2_000), DEFAULT)
        assert (run(monitor, batches(four, 500, seed=3)) or 500) * 2 < float(np.mean(delays(replace(CALM, slope=-1.0))))

    def test_more_skill_is_no_fall(self) -> None:
        better = replace(CALM, slope=1.6, noise=0.2)
        monitor = SkillMonitor(REFERENCE, DEFAULT)
        assert run(monitor, batches(better, 2_000)) is None
        assert monitor.statistic < 5


class TestFalseAlarms:
    @pytest.mark.parametrize(
        ("world", "times"),
        [
            (CALM, 10_000),
            (replace(CALM, memory=0.6), 10_000),
            (replace(CALM, tails=3), 10_000),
            (replace(CALM, symbols=4, common=0.8), 2_500),
        ],
        ids=["independent", "persistent errors", "heavy tails", "dependent symbols"],
    )
    def test_are_as_rare_as_promised(self, world: World, times: int) -> None:
        config = Degradation(run_length=200)
        monitor = SkillMonitor(make_reference(world, times=20_000), config)
        alarms = 0
        for batch in batches(world, times, seed=77):
            monitor.update(batch)
            if monitor.alarm is not None:
                alarms += 1
                monitor.reset("false alarm")
        assert alarms <= 10_000 / 200

    def test_dependent_symbols_would_break_the_promise_if_taken_as_independent(self) -> None:
        # What the design effect is for: the same stream against the reference of independent symbols.
        world = replace(CALM, symbols=4, common=0.8)
        monitor = SkillMonitor(make_reference(replace(CALM, symbols=4), times=8_000), Degradation(run_length=200))
        alarms = 0
        for batch in batches(world, 2_500, seed=77):
            monitor.update(batch)
            if monitor.alarm is not None:
                alarms += 1
                monitor.reset("false alarm")
        assert alarms > 10_000 / 200

    def test_a_short_holdout_makes_no_more_of_them(self) -> None:
        alarms = 0
        for seed in range(20):
            monitor = SkillMonitor(make_reference(CALM, times=400, seed=seed), Degradation(run_length=200))
            for batch in batches(CALM, 500, seed=2_000 + seed):
                monitor.update(batch)
                if monitor.alarm is not None:
                    alarms += 1
                    monitor.reset("false alarm")
        assert alarms <= 20 * 500 / 200

    def test_a_biased_stretch_within_the_tolerance_is_none(self) -> None:
        assert (
            run(SkillMonitor(REFERENCE, only("range")), batches(replace(CALM, bias=0.25 * CALM.noise), 3_000)) is None
        )
        biased = replace(CALM, bias=0.8 * CALM.noise)
        strict, lenient = (
            np.mean(delays(biased, seeds=4, config=only("range", tolerance=tolerance))) for tolerance in (0.0, 0.5)
        )
        assert 1.5 * strict < lenient


class TestAlarm:
    def monitor(self) -> tuple[SkillMonitor, Alarm]:
        monitor = SkillMonitor(REFERENCE, DEFAULT)
        assert run(monitor, batches(CALM, 300)) is None
        run(monitor, batches(replace(CALM, slope=-1.0), 300, seed=8, first=300))
        assert monitor.alarm is not None
        return monitor, monitor.alarm

    def test_says_what_changed_and_when(self) -> None:
        _, alarm = self.monitor()
        assert alarm.alternative == "direction: edge turned round"
        assert alarm.targets["direction"] > 0.8 and sum(alarm.targets.values()) == pytest.approx(1.0)
        assert abs(alarm.change - (START + 300 * HOUR)) < 20 * HOUR
        assert alarm.outcomes == alarm.seq - (alarm.change - START) / HOUR
        assert alarm.time == START + alarm.seq * HOUR
        assert alarm.statistic >= alarm.threshold == pytest.approx(math.log(10_000))

    def test_estimates_the_skill_since(self) -> None:
        _, alarm = self.monitor()
        expected = REFERENCE.direction.accuracy.value
        accuracy, loss = alarm.skill["accuracy"], alarm.skill["log_loss"]
        assert accuracy["low"] < 1 - expected < accuracy["high"] < expected == accuracy["expected"]
        assert loss["expected"] < loss["low"] < loss["value"] < loss["high"]
        assert alarm.skill["range_mse"]["low"] < REFERENCE.range.loss.value < alarm.skill["range_mse"]["high"]

    def test_stays_until_a_reset(self) -> None:
        monitor, alarm = self.monitor()
        for batch in batches(CALM, 300, first=600):
            monitor.update(batch)
        assert monitor.alarm == alarm
        monitor.reset("rolled back")
        evidence = monitor.evidence()
        assert monitor.alarm is None and evidence["alarm"] is None and evidence["statistic"] is None
        assert evidence["resets"] == [{"reason": "rolled back", "outcomes": evidence["outcomes"]}]
        assert evidence["loss"]["direction"]["mean"] is None
        assert run(monitor, batches(CALM, 300, first=900)) is None

    def test_is_written_and_read_as_json(self) -> None:
        _, alarm = self.monitor()
        assert Alarm.parse(json.loads(json.dumps(alarm.as_dict(), allow_nan=False))) == alarm


class TestInput:
    def test_restated_outcomes_are_counted_and_left_out(self) -> None:
        plain, restated = (SkillMonitor(REFERENCE, DEFAULT) for _ in range(2))
        for batch in batches(CALM, 50):
            plain.update(batch)
            restated.update(batch)
            restated.update((changed(batch[0], revision=1, direction=1 - (batch[0].outcome.direction or 0.0)),))
        assert restated.evidence() == plain.evidence() | {"restated": 50}

    @pytest.mark.parametrize("broken", [{"direction": None}, {"ret": math.nan}, {"range": math.inf}])
    def test_an_outcome_without_numbers_is_counted_and_left_out(self, broken: dict[str, Any]) -> None:
        plain, gaps = (SkillMonitor(REFERENCE, DEFAULT) for _ in range(2))
        for batch in batches(CALM, 20):
            plain.update(batch)
            gaps.update((changed(batch[0], **broken), *batch))
        assert gaps.evidence() == plain.evidence() | {"unusable": 20}

    def test_forecasts_of_certainty_stay_finite(self) -> None:
        monitor = SkillMonitor(REFERENCE, DEFAULT)
        for number, batch in enumerate(batches(CALM, 200)):
            sure = replace(batch[0].prediction, p_up=float(number % 2))
            monitor.update((replace(batch[0], prediction=sure),))
        json.dumps([monitor.evidence(), monitor.state()], allow_nan=False)

    def test_a_late_error_is_taken_by_itself(self) -> None:
        world = World(memory=0.9)
        monitor = SkillMonitor(make_reference(world), only("range"))
        stream = list(batches(world, 40))
        for batch in stream:
            monitor.update(batch)
        before = monitor.state()["bets"]
        monitor.update(stream[3])
        assert monitor.state()["bets"] == before

    def test_returns_of_zero_say_nothing_about_the_return(self) -> None:
        monitor = SkillMonitor(REFERENCE, only("ret"))
        for batch in batches(CALM, 30):
            monitor.update((changed(batch[0], ret=0.0, direction=0.0),))
        # Nothing but the count has been added.
        assert monitor.statistic == pytest.approx(math.log(30))

    def test_nothing_at_all(self) -> None:
        monitor = SkillMonitor(REFERENCE, DEFAULT)
        monitor.update(())
        assert monitor.evidence()["outcomes"] == 0 and monitor.evidence()["statistic"] is None


class TestInformation:
    def test_a_target_without_proven_edge_takes_no_part(self) -> None:
        monitor = SkillMonitor(make_reference(World(slope=0.0)), DEFAULT)
        watched = monitor.evidence()["watched"]
        assert watched["direction"] == 0.0
        assert sum(watched.values()) == pytest.approx(1.0) and watched["range"] > DEFAULT.weights.range
        assert run(monitor, batches(World(slope=-1.0), 1_000)) is None

    def test_a_holdout_of_few_rows_proves_no_edge(self) -> None:
        assert SkillMonitor(make_reference(CALM, times=4), DEFAULT).evidence()["watched"]["direction"] == 0.0

    def test_nothing_to_watch(self) -> None:
        monitor = SkillMonitor(make_reference(World(slope=0.0)), only("direction"))
        assert run(monitor, batches(World(slope=-1.0), 200)) is None
        json.dumps([monitor.evidence(), monitor.state()], allow_nan=False)
        assert set(monitor.evidence()["watched"].values()) == {0.0}


class TestParameters:
    def statistic(self, config: Degradation, world: World = CALM) -> float:
        monitor = SkillMonitor(REFERENCE, config)
        for batch in batches(world, 60, seed=4):
            monitor.update(batch)
        return monitor.statistic

    def test_run_length_is_the_threshold(self) -> None:
        slow, quick = (only("direction", run_length=length) for length in (1e6, 200.0))
        world = replace(CALM, slope=-1.0)
        assert np.mean(delays(world, config=quick, seeds=4)) < np.mean(delays(world, config=slow, seeds=4))

    @pytest.mark.parametrize(
        "change",
        [{"margin": 3.0}, {"tolerance": 0.6}, {"weights": Weights(direction=0.2, ret=0.2, range=0.6)}],
    )
    def test_each_changes_the_statistic(self, change: dict[str, Any]) -> None:
        assert self.statistic(Degradation(**change)) != self.statistic(DEFAULT)

    def test_within_the_margin_of_a_short_holdout_less_skill_is_no_fall(self) -> None:
        reference = make_reference(CALM, times=600)
        slope = reference.direction.slope
        less = replace(CALM, slope=slope.value - 4 * slope.se, intercept=reference.direction.intercept.value)
        strict, lenient = (SkillMonitor(reference, only("direction", margin=margin)) for margin in (0.0, 3.5))
        assert run(strict, batches(less, 1_500)) is not None
        assert run(lenient, batches(less, 1_500)) is None

    def test_one_weight_must_be_above_zero(self) -> None:
        with pytest.raises(ValueError, match="one of the weights must be above 0"):
            Weights(direction=0, ret=0, range=0)
        assert issubclass(ConfigError, Exception)


class TestState:
    WORLD = World(symbols=2, memory=0.4)
    HOLDOUT = Reference.parse(make_content(WORLD, times=2_000))

    @settings(deadline=None, max_examples=15)
    @given(stop=st.integers(0, 120), looks=st.sets(st.integers(0, 120), max_size=4))
    def test_a_restart_anywhere_changes_nothing(self, stop: int, looks: set[int]) -> None:
        config = Degradation(window=20)
        through, first = SkillMonitor(self.HOLDOUT, config), SkillMonitor(self.HOLDOUT, config)
        stream = list(batches(replace(self.WORLD, slope=-1.0), 120))
        second = None
        for number, batch in enumerate(stream):
            if number == stop:
                second = SkillMonitor(self.HOLDOUT, config)
                second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
            through.update(batch)
            (second or first).update(batch)
            if number in looks:
                through.evidence()
        last = second or first
        assert last.state() == through.state()
        assert last.evidence() == through.evidence()
        assert last.alarm == through.alarm

    def test_stays_small(self) -> None:
        monitor = SkillMonitor(REFERENCE, DEFAULT)
        for batch in batches(CALM, 1_000):
            monitor.update(batch)
        assert len(json.dumps(monitor.state())) < 15_000

    def test_of_another_champion_is_refused(self) -> None:
        other = SkillMonitor(make_reference(World(slope=0.0)), DEFAULT)
        with pytest.raises(ValueError, match="bets"):
            other.restore(SkillMonitor(REFERENCE, DEFAULT).state())


def test_an_outcome_of_a_later_time_follows_from_hours() -> None:
    # The stream's own clock, which the change points above rely on.
    first, second = list(batches(CALM, 2))
    assert second[0].outcome.resolved_at - first[0].outcome.resolved_at == timedelta(hours=1)
