"""The polars join against a brute-force oracle, and the numpy timeline against the join."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings

from tradeloop.state.asof_join import asof_join

START = datetime(2020, 1, 1, tzinfo=UTC)


def moment(step: int | None) -> datetime | None:
    return None if step is None else START + timedelta(minutes=step)


def rows_of(records: list[tuple[str | None, int | None, int | None]]) -> pl.DataFrame:
    """Return feature rows (key, event, created) whose value is their place."""
    keys, events, created = zip(*records, strict=True) if records else ((), (), ())
    times = pl.Datetime("us", "UTC")
    return pl.DataFrame(
        {
            "key": pl.Series(keys, dtype=pl.String),
            "event": pl.Series([moment(step) for step in events], dtype=times),
            "created": pl.Series([moment(step) for step in created], dtype=times),
            "value": pl.Series(range(len(records)), dtype=pl.Int64),
        }
    )


def entities_of(records: list[tuple[str | None, int | None]]) -> pl.DataFrame:
    keys, times = zip(*records, strict=True) if records else ((), ())
    return pl.DataFrame(
        {
            "key": pl.Series(keys, dtype=pl.String),
            "time": pl.Series([moment(step) for step in times], dtype=pl.Datetime("us", "UTC")),
        }
    )


def join(entities: pl.DataFrame, rows: pl.DataFrame, ttl: int = 0, created: str | None = "created") -> list[int | None]:
    joined = asof_join(
        entities, rows, keys=["key"], time="time", event="event", created=created, ttl=timedelta(minutes=ttl)
    )
    assert joined.height == entities.height
    return joined["value"].to_list()


def oracle(entities, rows, ttl: int, use_created: bool) -> list[int | None]:
    """Look at every row for every entity row."""
    answers = []
    for key, time in entities:
        best = None
        for place, (row_key, event, created) in enumerate(rows):
            if None in (key, time, row_key, event) or key != row_key or event > time:
                continue
            if use_created and (created is None or created > time):
                continue
            rank = (event, created if use_created else 0, place)
            if best is None or rank > best:
                best = rank
        if best is not None and ttl and best[0] + ttl < time:
            best = None
        answers.append(None if best is None else best[2])
    return answers


# Few keys and few moments, nulls now and then: most examples hold restated rows, ties and expired rows.
steps = st.integers(-1, 8).map(lambda step: None if step < 0 else step)
keys = st.sampled_from(["A", "A", "A", "B", "B", None])


@settings(deadline=None, max_examples=400)
@given(
    st.lists(st.tuples(keys, steps), min_size=4, max_size=12),
    st.lists(st.tuples(keys, steps, steps), min_size=6, max_size=16),
    st.sampled_from([0, 1, 3, 30]),
    st.booleans(),
)
def test_equals_the_brute_force_oracle(entities, rows, ttl, use_created) -> None:
    got = join(entities_of(entities), rows_of(rows), ttl, "created" if use_created else None)
    assert got == oracle(entities, rows, ttl, use_created)


def test_an_unmatched_row_is_kept_and_null() -> None:
    assert join(entities_of([("A", 0), ("B", 5), ("A", 5)]), rows_of([("A", 3, 3)])) == [None, None, 0]


def test_duplicates_and_order_are_kept() -> None:
    rows = rows_of([("A", 3, 3), ("A", 1, 1)])
    assert join(entities_of([("A", 5), ("A", 2), ("A", 5), ("A", 2)]), rows) == [0, 1, 0, 1]


def test_a_row_counts_at_its_own_time_and_to_the_end_of_its_ttl() -> None:
    rows = rows_of([("A", 3, 3)])
    assert join(entities_of([("A", 2), ("A", 3), ("A", 7), ("A", 8)]), rows, ttl=4) == [None, 0, 0, None]


def test_a_restated_row_is_hidden_until_it_was_created() -> None:
    rows = rows_of([("A", 3, 3), ("A", 3, 6)])
    assert join(entities_of([("A", 3), ("A", 5), ("A", 6), ("A", 9)]), rows) == [0, 0, 1, 1]


def test_a_late_restatement_of_an_old_bar_does_not_hide_the_newer_bar() -> None:
    rows = rows_of([("A", 3, 3), ("A", 4, 4), ("A", 3, 6)])
    assert join(entities_of([("A", 5), ("A", 6), ("A", 9)]), rows) == [1, 1, 1]


def test_the_newest_bar_late_leaves_the_older_in_force_until_then() -> None:
    rows = rows_of([("A", 4, 8), ("A", 3, 3)])
    assert join(entities_of([("A", 5), ("A", 7), ("A", 8)]), rows) == [1, 1, 0]


def test_a_newest_row_that_expired_is_not_replaced_by_an_older_one() -> None:
    rows = rows_of([("A", 1, 1), ("A", 2, 2)])
    assert join(entities_of([("A", 9)]), rows, ttl=5) == [None]


@pytest.mark.parametrize("entity_unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("row_unit", ["ms", "us", "ns"])
def test_any_unit_of_time(entity_unit, row_unit) -> None:
    entities = entities_of([("A", 2), ("A", 3), ("A", 4)]).with_columns(pl.col("time").dt.cast_time_unit(entity_unit))
    rows = rows_of([("A", 3, 3)]).with_columns(pl.col("event", "created").dt.cast_time_unit(row_unit))
    assert join(entities, rows, ttl=1) == [None, 0, 0]


def test_nanoseconds_are_exact_on_either_side() -> None:
    nanoseconds = pl.Series([1_499, 1_500, 1_501], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
    at = pl.DataFrame({"key": ["A"] * 3, "time": nanoseconds})
    event = pl.Series([1_500], dtype=pl.Int64).cast(pl.Datetime("ns", "UTC"))
    rows = pl.DataFrame({"key": ["A"], "event": event, "created": event, "value": [0]})
    assert join(at, rows) == [None, 0, 0]


def test_naive_is_utc_and_other_zones_are_converted() -> None:
    rows = rows_of([("A", 60, 60)])
    naive = pl.DataFrame({"key": ["A", "A"], "time": [datetime(2020, 1, 1, 0, 59), datetime(2020, 1, 1, 1)]})
    assert join(naive, rows) == [None, 0]
    zoned = naive.with_columns(pl.col("time").dt.replace_time_zone("UTC").dt.convert_time_zone("America/New_York"))
    assert join(zoned, rows) == [None, 0]
    assert join(entities_of([("A", 59), ("A", 60)]), rows.with_columns(pl.col("event").dt.replace_time_zone(None))) == [
        None,
        0,
    ]


def test_no_rows_and_no_entities() -> None:
    assert join(entities_of([("A", 1)]), rows_of([])) == [None]
    assert join(entities_of([]), rows_of([("A", 1, 1)])) == []


def test_many_rows_against_numpy() -> None:
    """Ten thousand bars, one key: where nothing is restated the answer is a search by event time."""
    rng = np.random.default_rng(7)
    events = np.sort(rng.choice(100_000, 10_000, replace=False))
    at = rng.integers(0, 100_000, 5_000)
    rows = rows_of([("A", int(e), int(e)) for e in events])
    expected = np.searchsorted(events, at, side="right") - 1
    got = join(entities_of([("A", int(t)) for t in at]), rows)
    assert [-1 if g is None else g for g in got] == expected.tolist()
