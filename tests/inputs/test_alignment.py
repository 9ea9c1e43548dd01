from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.inputs.conftest import GOOD, aligned, at, rows, same
from tradeloop.bars import Times, to_times
from tradeloop.inputs.alignment import FURTHEST, align, order_flow, trade_side
from tradeloop.inputs.contract import KINDS

NAN = float("nan")
CLOSES = at("10:00", "10:05", "10:10", "10:15")
MINUTES = timedelta(minutes=1)


def test_a_state_is_the_newest_value_that_was_known() -> None:
    # Of 10:04 but known at 10:06: not for the bar that closed at 10:05. Known exactly at the close: for that bar.
    frame = rows("funding", at("09:58", "10:04", "10:10"), at("09:58", "10:06", "10:10"), rate=[0.1, 0.2, 0.3])
    assert aligned("funding", frame, CLOSES)["rate"] == [0.1, 0.1, 0.3, 0.3]


def test_what_was_published_after_something_newer_is_never_the_newest() -> None:
    frame = rows("funding", at("10:01", "09:50"), at("10:01", "10:07"), rate=[0.1, 0.9])
    assert same(aligned("funding", frame, CLOSES)["rate"], [NAN, 0.1, 0.1, 0.1])


def test_a_correction_replaces_the_value_from_when_it_was_known() -> None:
    frame = rows("funding", at("10:01", "10:01"), at("10:01", "10:07"), rate=[0.1, 0.2])
    assert same(aligned("funding", frame, CLOSES)["rate"], [NAN, 0.1, 0.2, 0.2])


def test_a_flow_is_the_sum_of_what_became_known_in_the_bar() -> None:
    known = at("09:59", "10:00", "10:00:01", "10:05", "10:05:01", "10:14")
    frame = rows("liquidations", at(*["09:50"] * 6), known, long=[1, 2, 4, 8, 16, 32], short=[3, 0, 0, 0, 0, 5])
    found = aligned("liquidations", frame, CLOSES)
    assert same(found["long"], [NAN, 12, 16, 32])  # the first bar's begin is not given
    assert same(found["short"], [NAN, 0, 0, 5])


def test_a_bar_that_began_before_the_data_has_no_flow() -> None:
    frame = rows("liquidations", at("10:02", "10:07"), long=[1, 2])
    assert same(aligned("liquidations", frame, CLOSES, since=at("09:55")[0])["long"], [NAN, NAN, 2, 0])
    frame = rows("liquidations", at("09:55", "10:07"), long=[1, 2])
    assert same(aligned("liquidations", frame, CLOSES, since=at("09:55")[0])["long"], [0, 0, 2, 0])


def test_after_a_long_silence_nothing_is_known() -> None:
    frame = rows("book", at("09:54", "10:02"))
    found = aligned("book", frame, CLOSES, since=at("09:55")[0], max_age=8 * MINUTES)
    assert same(found["bid_price"], [99, 99, 99, NAN])  # at 10:10 the row of 10:02 is 8 minutes old: just known
    assert same(found["updates"], [0, 1, 0, NAN])
    assert aligned("book", frame, CLOSES, since=at("09:55")[0])["updates"] == [0, 1, 0, 0]


def test_order_flow_by_hand() -> None:
    """Cont, Kukanov, Stoikov (2014), equation 1, each case once."""
    frame = rows(
        "book",
        at("10:01", "10:02", "10:03", "10:04", "10:06", "10:07", "10:08"),
        bid_price=[99, 99, 100, 99, 99, 99, 99],
        bid_size=[2, 5, 1, 4, 4, 4, 4],
        ask_price=[102, 102, 102, 102, 102, 101, 103],
        ask_size=[3, 3, 3, 3, 1, 7, 2],
        bid_depth=9,
        ask_depth=9,
    )
    # bid grows by 3; bid rises (+1); bid falls (−1); ask shrinks by 2 (+2); ask falls (−7); ask rises (+7)
    assert order_flow(frame).tolist() == [0, 3, 1, -1, 2, -7, 7]
    found = aligned("book", frame, CLOSES)
    assert same(found["order_flow"], [NAN, NAN, 2, 0])
    assert same(found["updates"], [NAN, NAN, 3, 0])


def test_a_late_quote_neither_moves_the_book_nor_counts() -> None:
    late = rows("book", at("10:01", "10:06", "10:02"), at("10:01", "10:06", "10:07"), bid_size=[2, 3, 99], bid_depth=99)
    never = rows("book", at("10:01", "10:06"), bid_size=[2, 3], bid_depth=99)
    assert same(*(aligned("book", frame, CLOSES)["order_flow"] for frame in (late, never)))
    assert aligned("book", late, CLOSES)["updates"][2] == 1
    assert aligned("book", late, CLOSES)["bid_size"][2:] == [3, 3]


def test_trades_by_side_and_by_tick_test() -> None:
    frame = rows(
        "trades",
        at("09:59", "10:01", "10:02", "10:03", "10:06", "10:07"),
        price=[100, 100, 101, 101, 100, 100],
        size=[1, 2, 4, 8, 16, 32],
        side=[0, 0, 0, 0, 0, 1],
    )
    # No move yet: not known, half on either side. Then up, still up, down; what the file says stands.
    assert trade_side(frame).tolist() == [0, 0, 1, 1, -1, 1]
    found = aligned("trades", frame, CLOSES)
    assert same(found["buy_volume"], [NAN, 13, 32, 0])
    assert same(found["sell_volume"], [NAN, 1, 16, 0])
    assert same(found["count"], [NAN, 3, 2, 0])


def test_hours_to_the_next_funding() -> None:
    # Paid at 08:00, every 8 hours: at 10:00 there are 6 to go. From 10:06 a rate for 12:00, every 4 hours, is known.
    frame = rows("funding", at("08:00", "12:00"), at("08:00", "10:06"), hours=[8, 4])
    found = aligned("funding", frame, at("08:00", "10:00", "10:10", "12:00", "13:00"))
    assert found["hours_to_next"] == [0, 6, pytest.approx(11 / 6), 0, 3]
    assert found["hours"] == [8, 8, 4, 4, 4]


def test_events_until_and_since() -> None:
    frame = rows("events", at("10:10", "10:12"), at("10:01", "10:02"), id=[1, 2], importance=[3, 1])
    found = aligned("events", frame, CLOSES)
    assert same(found["hours_until"], [NAN, 5 / 60, 2 / 60, FURTHEST])
    assert same(found["hours_since"], [NAN, FURTHEST, 0, 3 / 60])
    assert same(found["importance_next"], [NAN, 3, 1, 0])


def test_an_event_that_is_moved_or_called_off_stands_where_it_stood_until_then() -> None:
    moved = rows("events", at("10:06", "10:14"), at("09:00", "10:02"), id=[1, 1])
    assert aligned("events", moved, CLOSES)["hours_until"] == pytest.approx([0.1, 9 / 60, 4 / 60, FURTHEST])
    off = rows("events", at("10:14", "10:14"), at("09:00", "10:07"), id=[1, 1], importance=[3, 0])
    found = aligned("events", off, CLOSES)
    assert found["hours_until"] == pytest.approx([14 / 60, 9 / 60, FURTHEST, FURTHEST])
    assert found["importance_next"] == [3, 3, 0, 0] and found["hours_since"] == [FURTHEST] * 4


def test_of_two_events_at_one_time_the_more_important_counts() -> None:
    frame = rows("events", at("11:00", "11:00"), at("09:00", "09:00"), id=[1, 2], importance=[1, 3])
    assert aligned("events", frame, CLOSES)["importance_next"] == [3] * 4


def test_an_event_is_seen_thirty_days_ahead_and_behind() -> None:
    due = np.array(["2024-05-01T00:00"], dtype="datetime64[us]")
    closes = due + np.array([-721, -720, -1, 0, 719, 720, 721]) * np.timedelta64(1, "h")
    found = aligned("events", rows("events", due, at("00:00")), closes)
    assert found["hours_until"] == [FURTHEST, FURTHEST, 1, *[FURTHEST] * 4]
    assert found["hours_since"] == [*[FURTHEST] * 3, 0, 719, FURTHEST, FURTHEST]
    assert found["importance_next"] == [0, 0, 3, 0, 0, 0, 0]


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, pd.DataFrame, Times]:
    """Rows of some kind on a coarse grid of times, so that many fall together; and closes among them."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size, minute = draw(st.integers(1, 30)), np.timedelta64(1, "m")
    times = at("10:00")[0] + rng.integers(0, 40, size) * minute
    early = KINDS[kind].ahead
    known = times + rng.integers(-20 if early else 0, 5, size) * minute
    made = {name: np.full(size, good) * rng.choice([0.5, 1, 1, 2], size) for name, good in GOOD[kind].items()}
    for name, values in (("side", [-1, 0, 1]), ("id", [1, 2, 3]), ("importance", [0, 1, 3]), ("count", [0, 1, 2])):
        if name in made:
            made[name] = rng.choice(values, size)
    if kind == "book":
        made["bid_price"], made["ask_price"] = rng.choice([98, 99], size), rng.choice([100, 101], size)
        made["bid_depth"], made["ask_depth"] = np.full(size, 50), np.full(size, 50)
    closes = at("10:00")[0] + np.unique(rng.integers(-5, 50, 12)) * minute
    return kind, rows(kind, times, known, **made), closes


@settings(max_examples=40, deadline=None)
@given(case=cases(), age=st.sampled_from([None, 5 * MINUTES]))
def test_later_rows_change_nothing_and_an_earlier_begin_neither(case: tuple, age: timedelta | None) -> None:
    kind, frame, closes = case
    full = align(kind, frame, closes, since=None, max_age=age)
    for stop in range(1, len(closes) + 1):
        then = frame[to_times(frame["known_at"]) <= closes[stop - 1]]
        if not len(then):
            continue
        known = align(kind, then, closes[:stop], since=None, max_age=age)
        assert all(same(known[name], full[name][:stop]) for name in full), kind
    for start in range(1, len(closes)):
        tail = align(kind, frame, closes[start:], since=closes[start - 1], max_age=age)
        assert all(same(tail[name], full[name][start:]) for name in full), kind


@settings(max_examples=100, deadline=None)
@given(case=cases())
def test_states_and_flows_equal_a_loop_over_all_rows(case: tuple) -> None:
    kind, frame, closes = case
    found = align(kind, frame, closes, since=None, max_age=None)
    known, happened = to_times(frame["known_at"]), to_times(frame["timestamp"])
    for name, output in KINDS[kind].outputs.items():
        if (name not in frame and name != "updates") or kind == "events":
            continue
        for i, close in enumerate(closes):
            there = np.flatnonzero(known <= close)
            expected = NAN
            if output.flow and i and len(there) and closes[i - 1] >= known[0]:
                fresh = there[known[there] > closes[i - 1]]
                in_order = [r for r in fresh if happened[r] >= happened[: r + 1].max()]
                expected = len(in_order) if name == "updates" else frame[name].to_numpy()[fresh].sum()
            elif not output.flow and len(there):
                newest = max(there, key=lambda row: (happened[row], row))
                expected = frame[name].iloc[newest]
            assert found[f"{kind}.{name}"][i] == pytest.approx(expected, nan_ok=True), (kind, name, i)
