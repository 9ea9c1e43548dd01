from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradeloop.bars import COLUMNS, TIME, Bars, from_times, known_close, to_times, validate_bars
from tradeloop.errors import DataError

DAY = np.timedelta64(1, "D")
START = np.datetime64("2024-01-01", "us")


def frame(n: int = 5) -> pd.DataFrame:
    close = np.arange(n) + 10.0
    columns = {"open": close - 0.5, "high": close + 1, "low": close - 1, "close": close, "volume": close * 100}
    return pd.DataFrame({"timestamp": from_times(START + np.arange(n) * DAY), **columns})


def context(known: list[int], close: list[float]) -> pd.DataFrame:
    at = from_times(START + np.array(known) * DAY)
    return pd.DataFrame({"timestamp": at, "known_at": at, "close": close})


def test_good_bars_pass_with_their_columns_in_order() -> None:
    good = frame()
    shuffled = good[list(COLUMNS)[::-1]].assign(other=1).set_index(pd.Index(range(5, 10)))
    pd.testing.assert_frame_equal(validate_bars(shuffled, name="X"), good)


@pytest.mark.parametrize(
    ("row", "column", "value", "rule"),
    [
        (2, "timestamp", pd.Timestamp("2024-01-02", tz="UTC"), "timestamps must increase strictly"),
        (2, "timestamp", pd.Timestamp("2023-01-02", tz="UTC"), "timestamps must increase strictly"),
        (1, "close", np.nan, "prices must be finite"),
        (1, "high", np.inf, "prices must be finite"),
        (1, "low", 0.0, "prices must be positive"),
        (1, "open", -1.0, "prices must be positive"),
        (1, "open", 50.0, "no price may lie above the high"),
        (1, "close", 9.9, "no price may lie below the low"),
        (1, "volume", -1.0, "volume must be finite and not negative"),
        (1, "volume", np.nan, "volume must be finite and not negative"),
    ],
)
def test_a_broken_bar_is_named(row: int, column: str, value: Any, rule: str) -> None:
    broken = frame()
    broken.loc[row, column] = value
    with pytest.raises(DataError, match=rule) as caught:
        validate_bars(broken, name="X")
    assert str(caught.value).startswith(f"X at {broken['timestamp'][row]}: ")
    assert str(caught.value).endswith("; 1 such bars")


def test_missing_columns_and_foreign_times_are_named() -> None:
    with pytest.raises(DataError, match=r"X: a bar frame needs .*\['close'\] are missing"):
        validate_bars(frame().drop(columns="close"), name="X")
    with pytest.raises(DataError, match="X: timestamp must be datetime64"):
        validate_bars(frame().assign(timestamp=START), name="X")


def test_times_make_the_round_trip_from_any_zone() -> None:
    times = START + np.arange(3) * DAY
    column = from_times(times)
    assert str(column.dtype) == TIME
    np.testing.assert_array_equal(to_times(column), times)
    np.testing.assert_array_equal(to_times(column.dt.tz_convert("Asia/Tokyo")), times)


def test_bars_join_context_and_slice_together() -> None:
    bars = Bars.from_frame("X", frame(), {"C": context([1, 3], [7.0, 8.0])})
    np.testing.assert_array_equal(bars.context["C"], [np.nan, 7, 7, 8, 8])
    part = bars[1:4]
    assert (
        len(part) == 3 and part.close.tolist() == [11.0, 12.0, 13.0] and part.context["C"].tolist() == [7.0, 7.0, 8.0]
    )
    assert part.timestamp.dtype == "datetime64[us]"


def test_context_out_of_order_is_refused() -> None:
    with pytest.raises(DataError, match="known_at must not decrease"):
        known_close(START + np.arange(3) * DAY, context([3, 1], [1.0, 2.0]))


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(0, 30), min_size=0, max_size=12), st.lists(st.integers(0, 30), min_size=1, max_size=12))
def test_known_close_is_the_newest_known(known: list[int], at: list[int]) -> None:
    """Against a walk over all rows, ties included: of values known at one moment the last counts."""
    known = sorted(known)
    series = context(known, [float(i) for i in range(len(known))])
    result = known_close(START + np.array(at) * DAY, series)
    for moment, value in zip(at, result, strict=True):
        visible = [i for i, k in enumerate(known) if k <= moment]
        assert value == visible[-1] if visible else np.isnan(value)
