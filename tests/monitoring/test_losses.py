"""What is shown beside the alarm: intervals that may be looked at at any time, ADWIN, a plain threshold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.streams import World, make_reference
from tradeloop.config import Degradation
from tradeloop.monitoring.losses import LOSSES, LossWatch

REFERENCE = make_reference(World(), times=20_000)
EXPECTED = {
    name: part.loss.value
    for name, part in zip(LOSSES, (REFERENCE.direction, REFERENCE.ret, REFERENCE.range), strict=True)
}


def watch(losses: np.ndarray, config: Degradation | None = None) -> LossWatch:
    found = LossWatch(REFERENCE, config or Degradation())
    for row in losses.tolist():
        found.update(row)
    return found


def draw(count: int, *, seed: int = 0, factor: float = 1.0) -> np.ndarray:
    """Losses of the right means, times `factor`, of a third of their spread."""
    rng = np.random.default_rng(seed)
    return factor * np.array(list(EXPECTED.values())) * rng.gamma(9.0, 1 / 9.0, size=(count, 3))


def test_means_are_exact_and_stand_beside_the_holdouts() -> None:
    losses = draw(700)
    found = watch(losses).evidence()
    for number, name in enumerate(LOSSES):
        assert found[name]["mean"] == pytest.approx(losses[:, number].mean(), rel=1e-12)
        assert found[name]["expected"] == EXPECTED[name]
        difference = found[name]["difference"]
        assert difference["low"] < difference["value"] < difference["high"]


def test_the_interval_holds_at_all_times_together() -> None:
    missed = 0
    for seed in range(60):
        found = LossWatch(REFERENCE, Degradation())
        outside = False
        for number, row in enumerate(draw(1_000, seed=seed).tolist()):
            found.update(row)
            if number >= 50 and number % 25 == 0:
                difference = found.evidence()["direction"]["difference"]
                outside |= not difference["low"] <= 0 <= difference["high"]
        missed += outside
    assert missed <= 6


def test_the_interval_narrows_and_leaves_out_zero_after_a_fall() -> None:
    early, late = (watch(draw(count, factor=1.2)).evidence()["direction"]["difference"] for count in (100, 2_000))
    assert late["high"] - late["low"] < 0.5 * (early["high"] - early["low"])
    assert late["low"] > 0


@pytest.mark.parametrize(("confidence", "drop", "window"), [(0.95, 0.05, 200), (0.5, 0.3, 50)])
def test_parameters(confidence: float, drop: float, window: int) -> None:
    config = Degradation(confidence=confidence, drop=drop, window=window)
    found = watch(draw(1_000, factor=1.2), config).evidence()["range"]
    assert found["threshold"]["outcomes"] == window
    assert found["threshold"]["crossed"] == (drop < 0.2)
    wide = watch(draw(1_000, factor=1.2)).evidence()["range"]["difference"]
    assert (found["difference"]["high"] - found["difference"]["low"] < wide["high"] - wide["low"]) == (confidence < 0.9)


def test_the_threshold_looks_at_the_newest_window_and_only_when_it_is_full() -> None:
    worse = draw(199, factor=2.0)
    assert watch(worse).evidence()["direction"]["threshold"] == pytest.approx(
        {"mean": worse[:, 0].mean(), "outcomes": 199, "crossed": False}, rel=1e-4
    )
    assert watch(np.vstack([worse, draw(1, factor=2.0)])).evidence()["direction"]["threshold"]["crossed"]
    recovered = watch(np.vstack([worse, draw(200)])).evidence()["direction"]["threshold"]
    assert not recovered["crossed"]


def test_adwin_cuts_where_the_loss_has_moved() -> None:
    calm = watch(draw(399)).evidence()["direction"]["adwin"]
    moved = watch(np.vstack([draw(250), draw(120, factor=2.0)])).evidence()["direction"]["adwin"]
    assert calm["cuts"] == 0 and calm["outcomes"] == 399
    assert moved["cuts"] >= 1
    assert moved["mean"] == pytest.approx(2 * EXPECTED["direction"], rel=0.1)


def test_confidence_of_adwin_is_read() -> None:
    losses = np.vstack([draw(100), draw(90, factor=1.5)])
    eager, slow = (watch(losses, Degradation(adwin=delta)).evidence()["direction"]["adwin"] for delta in (0.5, 1e-12))
    assert eager["cuts"] > slow["cuts"] == 0


@pytest.mark.parametrize("stop", [0, 19, 20, 47, 80])
def test_a_restart_changes_nothing_adwin_included(stop: int) -> None:
    config, losses = Degradation(window=20), np.vstack([draw(50), draw(45, factor=3.0)])
    through, first = LossWatch(REFERENCE, config), watch(losses[:stop], config)
    second = LossWatch(REFERENCE, config)
    second.restore(json.loads(json.dumps(first.state(), allow_nan=False)))
    for number, row in enumerate(losses.tolist()):
        through.update(row)
        through.evidence()  # which wakes ADWIN: from here on it is fed as it goes
        if number >= stop:
            second.update(row)
    assert second.evidence() == through.evidence()
    assert second.state() == through.state()


def test_nothing_yet() -> None:
    found = watch(np.empty((0, 3))).evidence()
    assert [part["mean"] for part in found.values()] == [None] * 3
