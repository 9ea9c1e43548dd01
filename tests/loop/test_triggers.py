from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.evidences import CHAMPION, HOUR, NOW, alarm, changed, hourly, quiet
from tradeloop.config import Params, Triggers
from tradeloop.errors import ConfigError
from tradeloop.loop.triggers import available, check_all, open_triggers
from tradeloop.loop.triggers.base import Firing
from tradeloop.loop.triggers.manual import Manual
from tradeloop.monitoring.evidence import Evidence, LastTraining, RegimeNow, Request

PARAMS = hourly()
DAY = timedelta(days=1)
FIRES: dict[str, dict[str, Any]] = {
    "accuracy_drop": {"skill": alarm(500)},
    "calibration_drift": {"calibration": alarm(500)},
    "data_drift": {"drift": {"share": 0.5, "since": "2024-03-01T00:00:00+00:00"}},
    "time_based": {"last_training": LastTraining(NOW - 8 * DAY, "succeeded")},
    "regime_change": {
        "regime": RegimeNow("high", NOW - 2 * DAY, "normal"),
        "last_training": LastTraining(NOW - 2.5 * DAY, "succeeded"),
    },
    "new_data": {"new_bars": 2500},
    "manual": {"requests": (Request("r7", "ann", "I changed the costs", {"seed": 5}),)},
}
CALM = {"last_training": LastTraining(NOW - DAY, "succeeded")}


def fired(name: str, evidence: Evidence, params: Params = PARAMS) -> Firing | None:
    found = [firing for firing in check_all(open_triggers(params), evidence) if firing.trigger == name]
    assert len(found) < 2
    return found[0] if found else None


def test_every_trigger_is_found_and_has_its_parameters() -> None:
    names = list(available())
    assert (
        sorted(names) == sorted(FIRES) == sorted(set(Triggers.model_fields) - {"cooldown", "daily_budget", "patience"})
    )
    priorities = [kind.priority for kind in available().values()]
    assert priorities == sorted(set(priorities), reverse=True)
    # A lost skill does not wait for the night.
    assert available()["accuracy_drop"].priority >= PARAMS.retrain.urgent > available()["calibration_drift"].priority


def test_a_trigger_without_parameters_is_refused() -> None:
    class Whim(Manual):
        name = "whim"

    with pytest.raises(ConfigError, match=r"trigger 'whim' needs a block of parameters, triggers\.whim"):
        Whim(PARAMS)


@pytest.mark.parametrize("name", FIRES)
def test_it_fires_on_its_own_cause_under_a_key_of_its_own(name: str) -> None:
    evidence = quiet(**{**CALM, **FIRES[name]})
    firing = fired(name, evidence)
    assert firing is not None
    assert [one.trigger for one in check_all(open_triggers(PARAMS), evidence)] == [name]
    assert firing.dedupe.startswith(f"{name}:") and len(firing.dedupe) <= 128
    assert firing == fired(name, evidence)
    assert any(character.isdigit() for character in firing.reason) or name == "manual"


@pytest.mark.parametrize("name", FIRES)
def test_it_can_be_switched_off(name: str) -> None:
    params = changed(PARAMS, {f"triggers.{name}.enabled": False})
    assert fired(name, quiet(**{**CALM, **FIRES[name]}), params) is None


@pytest.mark.parametrize("name", [name for name in FIRES if name != "manual"])
def test_its_cooldown_is_a_parameter(name: str) -> None:
    evidence = quiet(**{**CALM, **FIRES[name]})
    for text, span in (("5h", timedelta(hours=5)), (None, None)):
        firing = fired(name, evidence, changed(PARAMS, {f"triggers.{name}.cooldown": text}))
        assert firing is not None and firing.cooldown == span


def test_nothing_fires_on_quiet_evidence() -> None:
    assert check_all(open_triggers(PARAMS), quiet(**CALM)) == []


def test_the_most_urgent_comes_first() -> None:
    everything = {name: part for parts in FIRES.values() for name, part in parts.items()}
    everything["last_training"] = LastTraining(NOW - 8 * DAY, "succeeded")
    found = check_all(open_triggers(PARAMS), quiet(**everything))
    assert [firing.trigger for firing in found] == [name for name in available()]


class TestAccuracyDrop:
    @pytest.mark.parametrize(
        ("rows", "rung"),
        [(399, None), (400, 0), (799, 0), (800, 1), (1600, 2), (3200, 3), (6399, 3), (6400, None)],
    )
    def test_a_rung_is_reached_whenever_rows_have_doubled(self, rows: int, rung: int | None) -> None:
        firing = fired("accuracy_drop", quiet(**CALM, skill=alarm(rows)))
        assert (firing.dedupe if firing else None) == (None if rung is None else f"accuracy_drop:900:{rung}")

    def test_an_exact_power_is_not_lost_to_rounding(self) -> None:
        ladder = {"min_rows": 10, "growth": 3.0, "attempts": 9}
        params = changed(PARAMS, {f"triggers.accuracy_drop.{key}": value for key, value in ladder.items()})
        firing = fired("accuracy_drop", quiet(**CALM, skill=alarm(2430)), params)  # log(243) / log(3) is 4.999…
        assert firing is not None and firing.dedupe.endswith(":5")

    def test_it_learns_from_the_rows_since_the_change_alone(self) -> None:
        firing = fired("accuracy_drop", quiet(**CALM, skill=alarm(500)))
        assert firing is not None
        assert firing.overrides["dataset.start"] == (NOW - 500 * HOUR).isoformat()
        assert "500 rows since the change" in firing.reason and "attempt 1 of 4" in firing.reason

    @pytest.mark.parametrize(
        ("key", "value", "rungs"),
        [
            ("min_rows", 100, [0, 1, 2, 3]),
            ("growth", 4.0, [0, 0, 1, 1, 2]),
            ("attempts", 2, [0, 1, None]),
        ],
    )
    def test_its_parameters_shape_the_ladder(self, key: str, value: float, rungs: list[int | None]) -> None:
        params = changed(PARAMS, {f"triggers.accuracy_drop.{key}": value})
        least = params.triggers.accuracy_drop.min_rows
        for doubled, rung in enumerate(rungs):
            firing = fired("accuracy_drop", quiet(**CALM, skill=alarm(least * 2**doubled)), params)
            assert (firing.dedupe if firing else None) == (None if rung is None else f"accuracy_drop:900:{rung}")

    def test_leaves_shrink_as_told(self) -> None:
        params = changed(PARAMS, {"triggers.accuracy_drop.full_rows": 400, "triggers.accuracy_drop.leaves": []})
        firing = fired("accuracy_drop", quiet(**CALM, skill=alarm(500)), params)
        assert firing is not None and set(firing.overrides) == {"dataset.start", "split.holdout"}
        half = changed(PARAMS, {"triggers.accuracy_drop.full_rows": 400})
        firing = fired("accuracy_drop", quiet(**CALM, skill=alarm(400)), half)
        assert firing is not None and firing.overrides["train.random_forest.min_samples_leaf"] == 20

    def test_a_wrong_name_among_the_leaves_is_refused_at_once(self) -> None:
        params = changed(PARAMS, {"triggers.accuracy_drop.leaves": ["train.xgboost.leaf"]})
        with pytest.raises(ConfigError, match=r"train\.xgboost\.leaf"):
            open_triggers(params)

    def test_without_an_estimate_there_is_one_retraining_an_alarm(self) -> None:
        firing = fired("accuracy_drop", quiet(**CALM, skill=alarm(None)))
        assert firing is not None and (firing.dedupe, dict(firing.overrides)) == ("accuracy_drop:900:all", {})

    @given(st.lists(st.integers(0, 9000), min_size=1, max_size=30))
    @settings(deadline=None, max_examples=50)
    def test_rows_that_grow_give_every_key_once_and_no_more_than_the_attempts(self, steps: list[int]) -> None:
        keys = [
            firing.dedupe
            for rows in sorted(steps)
            if (firing := fired("accuracy_drop", quiet(**CALM, skill=alarm(rows)))) is not None
        ]
        assert keys == sorted(keys) and len(set(keys)) <= PARAMS.triggers.accuracy_drop.attempts


def test_calibration_is_left_to_online_adaptation_where_it_is_on() -> None:
    params = changed(PARAMS, {"adapt.enabled": True})
    assert fired("calibration_drift", quiet(**CALM, calibration=alarm(500)), params) is None


class TestDataDrift:
    def test_share_and_window_are_parameters(self) -> None:
        drifted = quiet(**CALM, drift={"share": 0.3, "since": "then"})
        assert fired("data_drift", drifted, changed(PARAMS, {"triggers.data_drift.share": 0.31})) is None
        firing = fired("data_drift", drifted, changed(PARAMS, {"triggers.data_drift.recent_rows": 10}))
        assert firing is not None and firing.overrides == {"dataset.start": (NOW - 9 * HOUR).isoformat()}

    def test_an_episode_has_one_key_until_it_doubles(self) -> None:
        keys = []
        for share, since in [(0.2, "a"), (0.39, "a"), (0.4, "a"), (0.2, "b")]:
            firing = fired("data_drift", quiet(**CALM, drift={"share": share, "since": since}))
            assert firing is not None
            keys.append(firing.dedupe)
        assert keys[0] == keys[1] and len(set(keys)) == 3


class TestTimeBased:
    @pytest.mark.parametrize(
        ("regime", "key", "default"),
        [("high", "high", 3), ("normal", "normal", 7), ("unknown", "normal", 7), ("low", "low", 14)],
    )
    def test_the_regime_says_how_long(self, regime: str, key: str, default: int) -> None:
        def at(age: timedelta, params: Params = PARAMS) -> Firing | None:
            evidence = quiet(last_training=LastTraining(NOW - age, "succeeded"), regime=RegimeNow(regime))
            return fired("time_based", evidence, params)

        assert at(default * DAY - timedelta(seconds=1)) is None
        assert at(default * DAY) is not None
        assert at(HOUR, changed(PARAMS, {f"triggers.time_based.{key}": "1h"})) is not None

    def test_a_training_that_failed_is_asked_for_again_a_period_later(self) -> None:
        keys = set()
        for age in (7, 8, 13, 14, 20, 21):
            firing = fired("time_based", quiet(last_training=LastTraining(NOW - age * DAY, "failed")))
            assert firing is not None
            keys.add(firing.dedupe.rpartition(":")[2])
        assert keys == {"1", "2", "3"}

    def test_before_any_training_the_promotion_counts(self) -> None:
        assert fired("time_based", quiet()) is not None  # promoted 20 days ago
        assert fired("time_based", quiet(champion=None)) is None

    def test_a_clock_that_was_set_back_does_not_fire(self) -> None:
        assert fired("time_based", quiet(last_training=LastTraining(NOW + 30 * DAY, "succeeded"))) is None


class TestRegimeChange:
    @pytest.mark.parametrize(
        ("regime", "fires"),
        [
            (RegimeNow("high", NOW - 2 * DAY, "normal"), True),
            (RegimeNow("high", NOW - 23 * HOUR, "normal"), False),  # it has not settled
            (RegimeNow("normal", NOW - 2 * DAY, "high"), False),  # not one of those that count
            (RegimeNow("high", NOW - 2 * DAY, "unknown"), False),  # nothing has changed, it became known
            (RegimeNow("high", NOW - 2 * DAY, None), False),
            (RegimeNow("high", None, "normal"), False),
        ],
    )
    def test_only_a_change_into_a_regime_that_lasts(self, regime: RegimeNow, fires: bool) -> None:
        assert (fired("regime_change", quiet(regime=regime)) is not None) is fires

    def test_a_training_since_has_seen_it(self) -> None:
        since = RegimeNow("high", NOW - 2 * DAY, "normal")
        assert fired("regime_change", quiet(regime=since, last_training=LastTraining(NOW - DAY, "running"))) is None

    def test_regimes_and_settling_are_parameters(self) -> None:
        back = quiet(regime=RegimeNow("normal", NOW - 2 * DAY, "high"))
        assert fired("regime_change", back, changed(PARAMS, {"triggers.regime_change.regimes": ["normal"]})) is not None
        early = quiet(regime=RegimeNow("high", NOW - HOUR, "normal"))
        assert fired("regime_change", early, changed(PARAMS, {"triggers.regime_change.settled": "30m"})) is not None


def test_new_data_fires_once_for_every_so_many_bars() -> None:
    keys = []
    for bars in (1999, 2000, 3999, 4000):
        firing = fired("new_data", quiet(**CALM, new_bars=bars))
        keys.append(firing.dedupe if firing else None)
    assert keys == [None, f"new_data:{CHAMPION.hash[:16]}:1", f"new_data:{CHAMPION.hash[:16]}:1", keys[3]]
    assert keys[3] != keys[2]
    assert fired("new_data", quiet(**CALM, new_bars=10), changed(PARAMS, {"triggers.new_data.bars": 10})) is not None


def test_a_person_is_named_and_not_held_up() -> None:
    firing = fired("manual", quiet(**CALM, **FIRES["manual"]))
    assert firing is not None and firing.unbounded
    assert (firing.dedupe, firing.reason) == ("manual:r7", "ann asked: I changed the costs")
    assert firing.overrides == {"seed": 5}
