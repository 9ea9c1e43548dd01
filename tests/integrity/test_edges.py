"""The files between stages: what breaks a schema is named with file, row, column and rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.raw_bars import look, real, series
from tradeloop.bars import COLUMNS
from tradeloop.errors import DataError
from tradeloop.integrity import mark_table, require
from tradeloop.integrity.days import day_table

LATE = pd.Timestamp("2030-01-01", tz="UTC")


def spoilt(column: str, value: Any, *rows: int) -> pd.DataFrame:
    frame = series()
    frame.loc[list(rows), column] = value
    return frame


def test_good_frames_pass_as_they_are() -> None:
    frame = series()
    for edge in ("raw", "clean"):
        pd.testing.assert_frame_equal(require(edge, frame, shown="F"), frame)
    days, marks = day_table([look(frame)], 80), mark_table([real("btc_15m", "BTCUSD")])
    pd.testing.assert_frame_equal(require("days", days, shown="F"), days)
    pd.testing.assert_frame_equal(require("marks", marks, shown="F"), marks)
    assert require("marks", marks[:0], shown="F").empty


def test_other_columns_are_left_out_and_rows_counted_from_nought() -> None:
    frame = series().assign(extra=1)
    frame.index = pd.RangeIndex(1, len(frame) + 1, name="row")
    pd.testing.assert_frame_equal(require("raw", frame, shown="F"), series())


@pytest.mark.parametrize(
    ("edge", "frame", "message"),
    [
        ("raw", series().drop(columns="close"), "F: column 'close' is missing"),
        ("raw", series().assign(close="1"), "F: close must be float64, got object"),
        ("raw", spoilt("timestamp", pd.NaT, 7), "F row 7: timestamp must not be missing; 1 such rows"),
        ("clean", spoilt("timestamp", LATE, 3, 4), "F row 4: timestamp must increase strictly; 2 such rows"),
        ("clean", spoilt("close", np.nan, 5, 6), "F row 5: close must be finite; 2 such rows"),
        ("clean", spoilt("high", np.inf, 5), "F row 5: high must be finite; 1 such rows"),
        ("clean", spoilt("volume", -1.0, 5), "F row 5: volume must not be negative; 1 such rows"),
        ("clean", spoilt("high", 1.0, 5, 9), "F row 5: open and close must lie within low to high; 2 such rows"),
        ("clean", spoilt("low", 0.0, 5), "F row 5: low must be positive; 1 such rows"),
        ("days", day_table([look(series())], 80).assign(score=101.0), "F row 0: score must be from 0 to 100; 17 such"),
        ("days", day_table([look(series())], 80).assign(admitted=1), "F: admitted must be bool, got int64"),
        ("marks", mark_table([real("btc_15m", "BTCUSD")]).assign(rule="odd"), "F row 0: rule must be one of"),
    ],
)
def test_a_breach_is_one_line(edge: Any, frame: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataError) as caught:
        require(edge, frame, shown="F")
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


def test_raw_bars_may_hold_what_the_rules_are_there_to_find() -> None:
    frame = spoilt("close", np.nan, 3)
    frame.loc[5, list(COLUMNS[1:])] = -1.0
    twice = pd.concat([frame, frame])
    pd.testing.assert_frame_equal(require("raw", twice, shown="F"), twice.reset_index(drop=True))
