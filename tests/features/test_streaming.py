"""What `Streaming` gives is what batch gives, whatever the order in which bars and context arrive."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.features.conftest import ROOT, SERIES, market_bars, market_params
from tradeloop.bars import Bars, from_times, known_close, to_times
from tradeloop.config import parse_interval
from tradeloop.features import compute, registered, schema_for
from tradeloop.features.engine import schema_hash
from tradeloop.features.streaming import FeatureRow, Outcome, Streaming
from tradeloop.features.window import Series
from tradeloop.journal import Bar, Level
from tradeloop.schema import Schema
from tradeloop.sources import open_source
from tradeloop.sources.table import context_frame

NAMES = ("return_1", "return_5", "log_volatility_5", "sma_distance_10", "intraday_return", "weekday_sin",
         "sp500_return_1", "wti_return_1")  # fmt: skip
HOUR = 3_600_000_000


def small_schema() -> Schema:
    """A few columns with short lookbacks, so that few bars show much."""
    specs = {spec.name: spec for spec in registered(context=SERIES, interval=parse_interval("1h"))}
    chosen = [specs[name] for name in NAMES]
    return Schema("made", tuple(NAMES), schema_hash(chosen), "1h")


SCHEMA = small_schema()


def walk(count: int, seed: int = 0) -> list[Bar]:
    """Hourly bars of a random walk."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, count)))
    opened = close * np.exp(rng.normal(0, 0.003, count))
    high, low = np.maximum(opened, close) * 1.002, np.minimum(opened, close) * 0.998
    times = 1_600_000_000_000_000 + HOUR * np.cumsum(rng.choice([1, 1, 1, 3], count))
    volume = np.round(rng.lognormal(5, 1, count))
    columns = (times, opened, high, low, close, volume)
    return [Bar("MADE", int(t), *map(float, rest)) for t, *rest in zip(*columns, strict=True)]


def levels(bars: Sequence[Bar], seed: int = 0) -> list[Level]:
    """Values of both series, each known at or after its own time."""
    rng = np.random.default_rng(seed)
    found = []
    for bar in bars:
        for name in SERIES:
            if rng.random() < 0.6:
                found.append(
                    Level(name, bar.time, bar.time + int(rng.integers(0, 4)) * HOUR, float(rng.lognormal(3, 1)))
                )
    return found


def batch(bars: Iterable[Bar], known: Iterable[Level], schema: Schema = SCHEMA) -> dict[np.datetime64, np.ndarray]:
    """The rows that the whole of what was said gives, the last word on each bar being the one that counts."""
    last = {bar.time: bar for bar in bars}
    rows = [last[time] for time in sorted(last)]
    times, *columns = (np.array(column) for column in list(zip(*rows, strict=True))[1:7])
    stamps = times.astype("datetime64[us]")
    context = {}
    for name in SERIES:
        mine = [level for level in known if level.series == name]
        at, moments = (
            np.array([getattr(level, f) for level in mine], dtype="datetime64[us]") for f in ("time", "known")
        )
        frame = context_frame(at, moments, np.array([level.close for level in mine], dtype=float), shown=name)
        context[name] = known_close(stamps, frame)
    made = compute(Bars("MADE", stamps, *columns, context=context), schema)
    return dict(zip(stamps, made, strict=True))


def frame_of(said: Sequence[Level]) -> pd.DataFrame:
    """The context frame of values that were said in this order."""
    at, known = (
        np.array([getattr(level, name) for level in said], dtype="datetime64[us]") for name in ("time", "known")
    )
    return context_frame(at, known, np.array([level.close for level in said], dtype=float), shown="made")


def last_given(rows: Iterable[FeatureRow]) -> dict[np.datetime64, np.ndarray]:
    return {row.time: row.values for row in rows}


def assert_same(given: dict[np.datetime64, np.ndarray], expected: dict[np.datetime64, np.ndarray]) -> None:
    assert given.keys() == expected.keys()
    for time, values in expected.items():
        np.testing.assert_array_equal(given[time], values, err_msg=str(time))


def engine(late: int = 1000) -> Streaming:
    return Streaming(SCHEMA, context=SERIES, late=late)


def feed(stream: Streaming, events: Iterable[Bar | Level]) -> list[FeatureRow]:
    rows: list[FeatureRow] = []
    for event in events:
        rows += stream.observe(event).rows if isinstance(event, Level) else stream.update(event).rows
    return rows


@pytest.mark.parametrize(("market", "symbol"), [("us_daily", "IBM"), ("eurusd_hourly", "EURUSD")])
def test_every_feature_of_a_real_market_is_batch_s_bit_for_bit(market: str, symbol: str) -> None:
    params = market_params(market)
    bars, schema = market_bars(market, symbol), schema_for(params)
    source = open_source(params.active, root=ROOT, seed=0)
    stream = Streaming(schema, context=params.active.context)
    start = len(bars) - 60
    for name in params.active.context:
        stream.seed_context(name, source.read_context(name))
    stream.seed(bars[:start])
    expected = compute(bars, schema)
    for place in range(start, len(bars)):
        done = stream.update(as_bar(bars, place))
        assert done.outcome is Outcome.NEW
        (row,) = done.rows
        assert (row.symbol, row.time) == (symbol, bars.timestamp[place])
        np.testing.assert_array_equal(row.values, expected[place])


def as_bar(bars: Bars, place: int) -> Bar:
    time = int(bars.timestamp[place].astype("datetime64[us]").astype(np.int64))
    return Bar(bars.symbol, time, *(float(getattr(bars, n)[place]) for n in ("open", "high", "low", "close", "volume")))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), count=st.one_of(st.integers(1, 20), st.integers(62, 90)), seed=st.integers(0, 9))
def test_any_order_of_arrival_ends_in_batch_s_rows(data: st.DataObject, count: int, seed: int) -> None:
    bars = walk(count, seed)
    known = levels(bars, seed)
    again = data.draw(st.lists(st.sampled_from(bars), max_size=6))
    changed = [bar._replace(close=bar.close * 1.0005, volume=bar.volume + 1) for bar in again[::2]]
    events = data.draw(st.permutations([*bars, *again[1::2], *changed, *known]))
    given_rows = last_given(feed(engine(), events))
    assert_same(
        given_rows, batch([e for e in events if isinstance(e, Bar)], [e for e in events if isinstance(e, Level)])
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data(), late=st.integers(0, 8), seed=st.integers(0, 9))
def test_where_little_is_kept_the_newest_rows_are_batch_s(data: st.DataObject, late: int, seed: int) -> None:
    bars = walk(100, seed)
    known = levels(bars, seed)
    jitter = data.draw(st.lists(st.integers(0, 40), min_size=100, max_size=100))
    order = sorted(range(100), key=lambda place: place + jitter[place])
    stream = engine(late)
    rows = last_given(feed(stream, [*known, *(bars[place] for place in order)]))
    expected = batch(bars, known)
    newest = sorted(expected)[-late - 1 :]
    # A bar that came too late for its own row is one of the history's, the newest row is right all the same.
    assert_same({time: rows[time] for time in newest if time in rows}, {t: expected[t] for t in newest if t in rows})
    assert newest[-1] in rows


def test_a_late_bar_comes_with_every_row_that_it_changed() -> None:
    bars = walk(40)
    stream = engine()
    before = last_given(feed(stream, [*bars[:30], *bars[31:]]))
    done = stream.update(bars[30])
    assert done.outcome is Outcome.LATE
    changed = last_given(done.rows)
    assert list(changed) == sorted(changed)
    expected = batch(bars, [])
    assert {
        t for t in expected if t not in before or not np.array_equal(before[t], expected[t], equal_nan=True)
    } == set(changed)
    assert len(changed) == 1 + 9  # its own, and those of the nine bars behind it: sma_distance_10 sees ten
    assert_same(before | changed, expected)


def test_a_late_bar_has_its_own_row_also_where_an_older_one_is_dropped_for_it() -> None:
    bars = walk(100)
    stream = engine(late=5)
    before = last_given(feed(stream, [*bars[:97], *bars[98:]]))
    changed = last_given(stream.update(bars[97]).rows)
    assert list(changed) == [np.datetime64(bar.time, "us") for bar in bars[97:]]
    expected = batch(bars, [])
    assert_same({time: (before | changed)[time] for time in list(expected)[-6:]}, dict(list(expected.items())[-6:]))


def test_a_restated_bar_replaces_the_one_there() -> None:
    bars = walk(40)
    stream = engine()
    rows = last_given(feed(stream, bars))
    restated = bars[35]._replace(close=bars[35].close * 1.001)
    done = stream.update(restated)
    assert done.outcome is Outcome.RESTATED and len(done.rows) == 5
    assert_same(rows | last_given(done.rows), batch([*bars, restated], []))
    newest = stream.update(bars[-1]._replace(volume=bars[-1].volume + 1))
    assert newest.outcome is Outcome.RESTATED and not newest.rows  # no chosen feature sees the volume


def test_an_exact_duplicate_is_nothing() -> None:
    bars = walk(30)
    stream = engine()
    feed(stream, bars)
    for bar in (bars[-1], bars[3]):
        done = stream.update(bar)
        assert (done.outcome, done.rows) == (Outcome.DUPLICATE, ())
    same = levels(bars)[0]
    assert stream.observe(same).news and not stream.observe(same).news


def test_a_bar_older_than_all_that_is_kept_is_refused() -> None:
    bars = walk(80)
    stream = engine(late=5)
    feed(stream, bars[1:])
    rows = stream.newest(["MADE"])
    done = stream.update(bars[0])
    assert (done.outcome, done.rows) == (Outcome.TOO_OLD, ())
    np.testing.assert_array_equal(stream.newest(["MADE"])[0].values, rows[0].values)


def test_a_bar_too_late_for_its_own_row_still_corrects_the_newest() -> None:
    bars = walk(80)
    stream = engine(late=2)
    place = 80 - stream.lookback + 1
    feed(stream, [*bars[:place], *bars[place + 1 :]])
    done = stream.update(bars[place])
    assert done.outcome is Outcome.LATE
    assert {row.time for row in done.rows} <= set(sorted(batch(bars, []))[-3:])
    np.testing.assert_array_equal(stream.newest(["MADE"])[0].values, list(batch(bars, []).values())[-1])


def test_a_context_value_changes_the_rows_from_when_it_was_known() -> None:
    bars = walk(90)
    known = [Level("SP500", bars[k].time, bars[k].time, 50.0 + k) for k in range(90)]
    stream = engine()
    rows = last_given(feed(stream, [*known, *bars]))
    restated = Level("SP500", bars[87].time, bars[88].time, 47.0)
    changed = stream.observe(restated).rows
    # Bar 88 knows 88's own value already, which is newer: what is published after a newer one is never seen.
    assert not changed
    corrected = Level("SP500", bars[87].time, bars[87].time, 47.0)
    changed = stream.observe(corrected).rows
    assert {row.time for row in changed} == {np.datetime64(bars[k].time, "us") for k in (87, 88)}
    assert_same(rows | last_given(changed), batch(bars, [*known, restated, corrected]))


def test_inputs_come_with_their_bar() -> None:
    bars = [bar._replace(inputs={"book.spread": float(k)}) for k, bar in enumerate(walk(20))]
    stream = Streaming(SCHEMA, context=SERIES, inputs=["book.spread", "book.depth"])
    feed(stream, [*bars[:7], *bars[8:]])
    stream.update(bars[7])
    kept = stream.bars("MADE")
    np.testing.assert_array_equal(kept.inputs["book.spread"], np.arange(20.0))
    assert np.isnan(kept.inputs["book.depth"]).all()
    assert stream.update(bars[5]._replace(inputs={"book.spread": 9.0})).outcome is Outcome.RESTATED


def test_without_rows_the_state_is_the_same() -> None:
    bars = walk(50)
    order = [*bars[:20], *bars[25:], *bars[20:25]]
    quiet, loud = engine(), engine()
    assert not any(quiet.update(bar, rows=False).rows for bar in order)
    feed(loud, order)
    np.testing.assert_array_equal(quiet.newest(["MADE"])[0].values, loud.newest(["MADE"])[0].values)
    assert quiet.newest(["NOBODY"]) == []


@settings(max_examples=60, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 4), st.integers(1, 5)), max_size=25),
    cut=st.integers(0, 25),
)
def test_a_series_is_known_as_in_batch(pairs: list[tuple[int, int, int]], cut: int) -> None:
    said = [Level("SP500", time, time + delay, float(close)) for time, delay, close in pairs]
    times = np.arange(18).astype("datetime64[us]")
    expected = known_close(times, frame_of(said))
    begun = Series(frame_of(said[:cut]))
    for level in said[cut:]:
        begun.add(level)
    np.testing.assert_array_equal(begun.known(times), expected)
    np.testing.assert_array_equal([begun.at(t) for t in range(18)], expected)


def test_history_and_stream_meet_at_any_bar() -> None:
    bars = walk(90)
    expected = batch(bars, [])
    stamps = np.array([bar.time for bar in bars]).astype("datetime64[us]")
    columns = [np.array(column) for column in list(zip(*bars, strict=True))[2:7]]
    whole = Bars("MADE", stamps, *columns)
    for start in (1, 9, 70, 89):
        stream = engine(late=4)
        stream.seed(whole[:start])
        assert_same(last_given(feed(stream, bars[start:])), {t: v for t, v in expected.items() if t >= stamps[start]})


def test_a_frame_s_context_is_taken_as_it_is() -> None:
    bars = walk(30)
    known = [Level("SP500", bar.time, bar.time, 40.0 + k) for k, bar in enumerate(bars)]
    times = np.array([level.time for level in known]).astype("datetime64[us]")
    frame = pd.DataFrame({"timestamp": from_times(times), "known_at": from_times(times)})
    frame["close"] = [level.close for level in known]
    assert (to_times(frame["known_at"]) == times).all()
    stream = engine()
    stream.seed_context("SP500", frame)
    assert_same(last_given(feed(stream, bars)), batch(bars, known))


def test_the_kept_arrays_are_made_once() -> None:
    stream = engine(late=3)
    bars = walk(300)
    feed(stream, bars[:50])
    before = stream.bars("MADE").close.base
    feed(stream, bars[50:])
    assert stream.bars("MADE").close.base is before
    assert len(stream.bars("MADE")) == stream.lookback + 3
