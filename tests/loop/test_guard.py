from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from tradeloop.config import Adapt
from tradeloop.loop.guard import Guard, Verdict
from tradeloop.loop.track import Adwin, interval_bound, interval_loss, log_bound, log_loss

START = datetime(2020, 1, 1, tzinfo=UTC)
CONFIG = Adapt(enabled=True)


def go(guard: Guard, differences: list[float], first: int = 0, bound: float = 1.0) -> list[tuple[int, Verdict]]:
    """Return where the guard said what, an outcome a bar."""
    found = []
    for number, difference in enumerate(differences):
        verdict = guard.step(START + timedelta(hours=first + number), difference, bound)
        if verdict:
            found.append((number, verdict))
    return found


def coin(rng: np.random.Generator, mean: float, count: int) -> list[float]:
    """Return outcomes ±.5 with a mean."""
    return (np.where(rng.random(count) < 0.5 + mean, 0.5, -0.5)).tolist()


def test_what_is_better_is_applied_and_what_turns_worse_is_taken_back_and_rests() -> None:
    rng = np.random.default_rng(0)
    guard = Guard(CONFIG.model_copy(update={"pause": 40}), horizon=1)
    better = go(guard, coin(rng, 0.2, 300))
    assert [verdict for _, verdict in better] == ["proven"]
    assert guard.phase == "applied"
    worse = go(guard, coin(rng, -0.2, 400), first=300)
    assert worse[0][1] == "worse"
    assert guard.phase in ("paused", "proving")
    taken = worse[0][0]
    quiet = Guard(CONFIG.model_copy(update={"pause": 40}), horizon=1)
    quiet.restart("paused")
    go(quiet, [0.5] * 40)
    assert quiet.phase == "paused"
    go(quiet, [0.5] * 2, first=40)
    assert quiet.phase == "proving"
    assert taken < 150


def test_what_is_no_better_is_applied_in_error_no_more_often_than_said() -> None:
    rng = np.random.default_rng(1)
    applied = sum(bool(go(Guard(CONFIG, horizon=1), coin(rng, 0.0, 1000))) for _ in range(150))
    assert applied / 150 <= 0.05 + 2 * (0.05 * 0.95 / 150) ** 0.5


def test_small_gains_and_rare_large_losses_of_mean_zero_are_no_gain() -> None:
    """As of an interval that is too narrow: clipping the losses would find a gain in nearly every run."""
    rng = np.random.default_rng(2)
    applied = 0
    for _ in range(100):
        missed = rng.random(800) < 0.05
        applied += bool(go(Guard(CONFIG, horizon=1), np.where(missed, -0.95, 0.05).tolist()))
    assert applied <= 10


def test_the_symbols_of_one_bar_count_once() -> None:
    one, many = Guard(CONFIG, horizon=1), Guard(CONFIG, horizon=1)
    rng = np.random.default_rng(3)
    for number, difference in enumerate(coin(rng, 0.1, 60)):
        bar = START + timedelta(hours=number)
        one.step(bar, difference, 1.0)
        for _ in range(4):
            many.step(bar, difference, 1.0)
    assert many.better == pytest.approx(one.better)
    assert many.bars == one.bars == 59


def test_not_worse_applies_after_its_bars_unless_it_is_proven_worse() -> None:
    config = CONFIG.model_copy(update={"apply": "not_worse", "min_bars": 30})
    assert go(Guard(config, horizon=1), [0.0] * 40) == [(30, "proven")]
    rng = np.random.default_rng(4)
    guard = Guard(config.model_copy(update={"min_bars": 500}), horizon=1)
    assert go(guard, coin(rng, -0.3, 200))[0][1] == "worse"


def test_the_probability_of_an_error_counts() -> None:
    differences = coin(np.random.default_rng(5), 0.15, 600)
    early = go(Guard(CONFIG.model_copy(update={"prove": 0.2}), horizon=1), differences)[0][0]
    late = go(Guard(CONFIG.model_copy(update={"prove": 0.001}), horizon=1), differences)[0][0]
    assert early < late


def test_longer_labels_take_turns() -> None:
    differences = coin(np.random.default_rng(6), 0.2, 400)
    one, three = Guard(CONFIG, horizon=1), Guard(CONFIG, horizon=3)
    assert go(one, differences)[0][0] < go(three, differences)[0][0]


def test_a_restored_guard_goes_on_exactly() -> None:
    differences = coin(np.random.default_rng(7), 0.1, 200)
    one, other = Guard(CONFIG, horizon=2), Guard(CONFIG, horizon=2)
    go(one, differences[:90])
    other.restore(json.loads(json.dumps(one.state())))
    go(one, differences[90:], first=90)
    go(other, differences[90:], first=90)
    assert one.state() == other.state()


def test_losses_by_hand_and_their_bounds_hold_for_any_label() -> None:
    assert log_loss(0.7, 1.0) == pytest.approx(-np.log(0.7))
    assert log_loss(0.7, 0.0) == pytest.approx(-np.log(0.3))
    assert log_loss(0.0, 1.0) == pytest.approx(-np.log(1e-3))
    assert interval_loss(0.5, (0.0, -1.0, 1.0), unit=1.0, coverage=0.9) == pytest.approx(0.25 + 0.5)
    assert interval_loss(1.5, (0.0, -1.0, 1.0), unit=1.0, coverage=0.9) == pytest.approx(2.25 + 0.25 * (2 + 20 * 0.5))
    rng = np.random.default_rng(0)
    for _ in range(3000):
        one, other = ((c, c - a, c + b) for c, a, b in rng.uniform(0.1, 2.0, (2, 3)))
        label = float(rng.normal(1.0, 3.0))
        losses = [interval_loss(label, said, unit=0.7, coverage=0.9) for said in (one, other)]
        assert abs(losses[0] - losses[1]) <= interval_bound(one, other, unit=0.7, coverage=0.9) + 1e-9
        p, q = rng.random(2)
        up = float(rng.random() < 0.5)
        assert abs(log_loss(p, up) - log_loss(q, up)) <= log_bound(p, q) + 1e-12


def test_adwin_tells_a_rise_from_a_fall_and_survives_json() -> None:
    rng = np.random.default_rng(0)
    calm, loud = (rng.uniform(0, 0.2, 400).tolist(), rng.uniform(0.5, 0.9, 200).tolist())
    rising, falling = Adwin(0.002), Adwin(0.002)
    assert not any([rising.rose(value) for value in calm])
    assert any([rising.rose(value) for value in loud])
    assert not any([falling.rose(value) for value in [*loud, *calm]])
    one, other = Adwin(0.002), Adwin(0.002)
    for value in calm[:300]:
        one.rose(value)
    other.restore(json.loads(json.dumps(one.state())))
    rest = [*calm[300:], *loud, *rng.uniform(0.5, 0.9, 500).tolist()]
    assert [one.rose(value) for value in rest] == [other.rose(value) for value in rest]
    assert len(one.state()) <= 500


def test_adwins_level_counts() -> None:
    rng = np.random.default_rng(1)
    values = [*rng.uniform(0, 0.5, 300).tolist(), *rng.uniform(0.15, 0.65, 150).tolist()]

    def first(delta: float) -> int | None:
        detector = Adwin(delta)
        found = [number for number, value in enumerate(values) if detector.rose(value)]
        return found[0] if found else None

    early = first(0.1)
    assert early is not None
    assert first(1e-9) is None or first(1e-9) > early  # type: ignore[operator]
