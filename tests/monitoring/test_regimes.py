from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.outcomes import random_bars
from tradeloop.bars import Bars
from tradeloop.config import Regimes
from tradeloop.monitoring.regimes import REGIMES, RegimeTracker, regime_at, regime_codes

CONFIG = Regimes(bars=5, history=40, warm_up=10, low=0.25, high=0.75)


def of_ranges(ranges: list[float]) -> Bars:
    """Return bars of which each has this range, ln(H/L)."""
    size = len(ranges)
    low, high = np.full(size, 100.0), 100 * np.exp(np.array(ranges))
    times = np.datetime64("2020-01-01", "us") + np.arange(size) * np.timedelta64(1, "h")
    return Bars("AAA", times, low, high, low, high, np.ones(size))


def by_hand(bars: Bars, config: Regimes) -> list[str]:
    """Tell the regimes with loops and lists."""
    squared = [float(np.log(h / low) ** 2) for h, low in zip(bars.high, bars.low, strict=True)]
    level = [
        None if i + 1 < config.bars else float(np.mean(squared[i + 1 - config.bars : i + 1]))
        for i in range(len(squared))
    ]
    found = []
    for i, own in enumerate(level):
        before = [it for it in level[max(0, i - config.history) : i] if it is not None]
        if own is None or len(before) < config.warm_up:
            found.append("unknown")
            continue
        place = sum((it < own) + 0.5 * (it == own) for it in before) / len(before)
        found.append("low" if place < config.low else "high" if place >= config.high else "normal")
    return found


def test_codes_are_what_the_definition_says() -> None:
    bars = random_bars("AAA", 150)
    assert [REGIMES[code] for code in regime_codes(bars, CONFIG)] == by_hand(bars, CONFIG)


def test_all_regimes_occur_where_they_should() -> None:
    calm, wild = [0.01 + 1e-5 * (i % 7) for i in range(60)], [0.03 + 1e-5 * (i % 5) for i in range(20)]
    codes = [REGIMES[code] for code in regime_codes(of_ranges(calm + wild + calm), CONFIG)]
    assert set(codes[:14]) == {"unknown"} and "unknown" not in codes[14:]
    assert set(codes[60:75]) == {"high"}  # until the wild bars are most of what is remembered
    assert codes[85] == "low"


def test_bars_without_any_difference_are_normal() -> None:
    assert {REGIMES[code] for code in regime_codes(of_ranges([0.01] * 60), CONFIG)[20:]} == {"normal"}


@settings(max_examples=30, deadline=None)
@given(
    ranges=st.lists(st.sampled_from([0.0, 0.001, 0.01, 0.01, 0.02, 0.05]), min_size=1, max_size=120),
    data=st.data(),
)
def test_later_bars_change_nothing_and_any_way_to_ask_gives_the_same(ranges: list[float], data: st.DataObject) -> None:
    bars = of_ranges(ranges)
    whole = regime_codes(bars, CONFIG)
    cut = data.draw(st.integers(1, len(ranges)))
    assert np.array_equal(regime_codes(bars[:cut], CONFIG), whole[:cut])
    assert regime_at(bars, cut - 1, CONFIG) == REGIMES[whole[cut - 1]]
    tracker, first = RegimeTracker(CONFIG), 0
    while first < len(ranges):
        last = min(first + data.draw(st.integers(0, 20)), len(ranges) - 1)
        back = data.draw(st.integers(0, first))
        assert np.array_equal(tracker.codes(bars[: last + 1], back, last), whole[back : last + 1])
        first = last + 1


def test_bar_by_bar_is_as_all_at_once() -> None:
    bars, tracker = random_bars("AAA", 600), RegimeTracker(CONFIG)
    found = [int(tracker.codes(bars[: i + 1], i, i)[0]) for i in range(len(bars))]
    assert found == regime_codes(bars, CONFIG).tolist()


@pytest.mark.parametrize(
    "change",
    [{"bars": 8}, {"history": 20}, {"warm_up": 30}, {"low": 0.4}, {"high": 0.6}],
    ids=lambda it: next(iter(it)),
)
def test_every_parameter_changes_the_result(change: dict[str, float]) -> None:
    bars = random_bars("AAA", 300)
    other = Regimes.model_validate(CONFIG.model_dump() | change)
    assert not np.array_equal(regime_codes(bars, CONFIG), regime_codes(bars, other))


def test_shares_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"regimes.low must be below regimes.high = 0.3, got 0.5"):
        Regimes(low=0.5, high=0.3)
    with pytest.raises(ValidationError, match=r"regimes.warm_up must be at most regimes.history = 50, got 60"):
        Regimes(history=50, warm_up=60)
