from __future__ import annotations

import math

import numpy as np
import pytest

from tests.features.conftest import hand_bars
from tradeloop.features import events as e

NAN = float("nan")
AHEAD = [NAN, 720, 168, 84, 24, 1, 0]


def test_time_to_and_from_events() -> None:
    bars = hand_bars(7, events__hours_until=AHEAD, events__hours_since=AHEAD)
    for function in (e.time_until_event, e.time_since_event):
        np.testing.assert_array_equal(function(bars), [NAN, 1, 1, 0.5, 1 / 7, 1 / 168, 0])


def test_flags_near_events() -> None:
    bars = hand_bars(7, events__hours_until=AHEAD, events__hours_since=AHEAD, events__importance_next=[NAN, *[2.0] * 6])
    for function in (e.event_within_hours, e.event_past_hours):
        np.testing.assert_array_equal(function(bars, 24), [NAN, 0, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(function(bars, 1), [NAN, 0, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(e.event_weight_24(bars), [NAN, 0, 0, 0, 2 / 3, 2 / 3, 2 / 3])


def test_news_against_what_is_usual() -> None:
    bars = hand_bars(5, news__count=[1, 3, 1, 3, 0])
    assert e.news_intensity(bars, 4)[3:].tolist() == pytest.approx(
        [math.log((3 / 2 + 0.01) / 1.01), math.log(0.01 / 1.01)]
    )
    assert e.news_count(bars, 4)[3:].tolist() == pytest.approx(np.log([9, 8]))


def test_a_burst_of_news_stands_out_from_the_bars_before_it() -> None:
    # Mean 2 and standard deviation 2/√3 of 1, 3, 1, 3: the limit is 5.46 news.
    assert [e.news_burst(hand_bars(5, news__count=[1, 3, 1, 3, n]), 4)[-1] for n in (5, 6)] == [0, 1]
    assert not e.news_burst(hand_bars(80, news__count=1), 60)[60:].any()
    assert e.news_burst(hand_bars(62, news__count=[0] * 61 + [1]), 60)[-1] == 1
