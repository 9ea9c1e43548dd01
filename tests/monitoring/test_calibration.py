"""Calibration drift: found in probability and intervals, with its size, and not cried out where there is none."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from tests.streams import HOUR, START, World, batches, make_content, make_reference
from tradeloop.config import Degradation
from tradeloop.monitoring.calibration import CalibrationMonitor
from tradeloop.monitoring.records import Resolved
from tradeloop.reference import Reference

CALM = World()
REFERENCE = make_reference(CALM)
DEFAULT = Degradation()


def run(monitor: CalibrationMonitor, stream: Iterable[tuple[Resolved, ...]]) -> int | None:
    for number, batch in enumerate(stream, start=1):
        monitor.update(batch)
        if monitor.alarm is not None:
            return number
    return None


def after(world: World, times: int = 2_000, **config: Any) -> dict[str, Any]:
    """Return the alarm on `world` after 200 calm times, with its delay."""
    monitor = CalibrationMonitor(REFERENCE, Degradation(**config))
    assert run(monitor, batches(CALM, 200)) is None
    delay = run(monitor, batches(world, times, seed=6, first=200))
    assert delay is not None and monitor.alarm is not None
    return monitor.alarm | {"delay": delay}


@pytest.mark.parametrize(
    ("change", "alternative"),
    [
        ({"slope": 0.3}, "p_up: without meaning|p_up: too sure"),
        ({"slope": 2.2}, "p_up: not sure enough"),
        ({"intercept": 0.6}, "p_up: too low"),
        ({"intercept": -0.6}, "p_up: too high"),
        ({"noise": 0.8}, "range: far too narrow"),
        ({"noise": 0.42}, "range: too narrow|range: far too narrow"),
        ({"noise": 0.05}, "range: too wide"),
    ],
)
def test_each_drift_is_found_and_named(change: dict[str, float], alternative: str) -> None:
    alarm = after(replace(CALM, **change))
    assert alarm["alternative"] in alternative.split("|")
    assert alarm["delay"] < 600
    assert max(alarm["targets"], key=alarm["targets"].__getitem__) == alarm["alternative"].partition(":")[0]


def test_the_alarm_says_since_when() -> None:
    alarm = after(replace(CALM, intercept=1.0))
    before = alarm["seq"] - alarm["outcomes"]
    assert 60 <= before <= 230
    assert alarm["change"] == (START + before * HOUR).isoformat()


def test_no_alarm_without_a_drift() -> None:
    monitor, alarms = CalibrationMonitor(REFERENCE, Degradation(run_length=200)), 0
    for batch in batches(replace(CALM, symbols=2), 5_000, seed=3):
        monitor.update(batch)
        if monitor.alarm is not None:
            alarms += 1
            monitor.reset()
    assert alarms <= 10_000 / 200


def test_a_market_that_is_harder_but_said_to_be_so_is_calibrated() -> None:
    # Forecasts of less conviction come true as often as they say: skill is lower, calibration is not.
    monitor = CalibrationMonitor(REFERENCE, DEFAULT)
    assert run(monitor, batches(replace(CALM, spread=0.2), 3_000)) is None


def test_effect_sizes_are_those_of_the_window() -> None:
    monitor = CalibrationMonitor(REFERENCE, Degradation(window=1_000))
    for batch in batches(CALM, 1_000):
        monitor.update(batch)
    for batch in batches(replace(CALM, slope=0.4, intercept=0.5, noise=0.6), 1_000, first=1_000):
        monitor.update(batch)
    window = monitor.evidence()["window"]
    assert window["outcomes"] == 1_000
    for name, truth in (("slope", 0.4), ("intercept", 0.5), ("range_coverage", 2 * 0.7977 - 1)):
        assert window[name]["low"] < truth < window[name]["high"], name
        assert window[name]["high"] < window[name]["expected"] or name == "intercept"
    assert window["ret_coverage"]["value"] == pytest.approx(REFERENCE.ret.coverage.value, abs=0.04)
    assert window["ece"] > 0.08


def test_run_length_margin_and_confidence_are_read() -> None:
    world = replace(CALM, intercept=0.6)
    assert after(world, run_length=1_000.0)["delay"] < after(world, run_length=1e6)["delay"]
    assert after(world, margin=0.0)["delay"] < after(world, margin=6.0)["delay"]
    widths = []
    for confidence in (0.5, 0.99):
        monitor = CalibrationMonitor(REFERENCE, Degradation(confidence=confidence))
        for batch in batches(CALM, 100):
            monitor.update(batch)
        slope = monitor.evidence()["window"]["slope"]
        widths.append(slope["high"] - slope["low"])
    assert widths[0] < 0.5 * widths[1]


def test_restated_and_incomplete_outcomes_are_left_out() -> None:
    plain, other = (CalibrationMonitor(REFERENCE, DEFAULT) for _ in range(2))
    for batch in batches(CALM, 40):
        plain.update(batch)
        other.update(batch)
        first = batch[0]
        restated = replace(first, outcome=replace(first.outcome, revision=1))
        without = replace(first, prediction=replace(first.prediction, range_low=None))
        unknown = replace(first, prediction=replace(first.prediction, ret_high=math.nan))
        other.update((restated, without, unknown))
    assert other.evidence() == plain.evidence()


def test_intervals_that_always_held_are_no_certainty() -> None:
    holdout = Reference.parse(make_content(replace(CALM, noise=0.01), times=500))
    assert holdout.range.coverage.value == 1.0
    monitor = CalibrationMonitor(holdout, DEFAULT)
    assert run(monitor, batches(replace(CALM, noise=0.01), 1_000)) is None
    assert run(monitor, batches(replace(CALM, noise=0.5), 100, first=1_000)) is not None


def test_without_an_edge_only_the_level_is_tested() -> None:
    monitor = CalibrationMonitor(make_reference(World(slope=0.0)), DEFAULT)
    assert run(monitor, batches(World(slope=0.0, intercept=0.8), 1_000)) is not None


def test_a_restart_changes_nothing() -> None:
    stream = list(batches(replace(CALM, slope=-1.0, symbols=2), 80))
    through, first, second = (CalibrationMonitor(REFERENCE, Degradation(window=30)) for _ in range(3))
    for number, batch in enumerate(stream):
        through.update(batch)
        if number < 41:
            first.update(batch)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    for batch in stream[41:]:
        second.update(batch)
    assert second.state() == through.state()
    assert second.evidence() == through.evidence()
    through.reset()
    assert through.alarm is None and through.evidence()["window"] is None
