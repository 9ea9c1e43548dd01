"""Which rows are held back: against a loop over every day and mark, and at the edges of days."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.admissions import write_admission
from tradeloop.admission import held_back
from tradeloop.errors import DataError
from tradeloop.layout import Layout

START = pd.Timestamp("2024-01-01", tz="UTC")


def at(hours: float) -> pd.Timestamp:
    return START + pd.Timedelta(hours=hours)


def rows(*spans: tuple[str, float, float | None]) -> pd.DataFrame:
    frame = pd.DataFrame(
        [(symbol, at(begin), pd.NaT if end is None else at(end)) for symbol, begin, end in spans],
        columns=["symbol", "timestamp", "label_end"],
    )
    for name in ("timestamp", "label_end"):
        frame[name] = pd.to_datetime(frame[name], utc=True).dt.as_unit("us")
    return frame


def test_a_day_holds_what_closes_after_its_start_up_to_its_end(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_admission(layout, held=[("X", str(at(24)), str(at(48)))])
    spans = [("X", 20, 24), ("X", 24, 25), ("X", 24, None), ("X", 25, None), ("X", 48, 49), ("X", 49, 50), ("X", 1, 99)]
    held = held_back(layout, rows(*spans, ("Y", 30, 31)), exclude_marked=[])
    assert held["quarantined"].tolist() == [False, True, False, True, True, False, True, False]
    assert not held["marked"].any()


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_as_a_loop_over_all_days_and_marks_would_say(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    layout = Layout(tmp_path_factory.mktemp("held"))
    names, hour = st.sampled_from(["X", "Y"]), st.integers(0, 100)
    days = {name: sorted(data.draw(st.sets(st.integers(0, 9), max_size=6))) for name in ("X", "Y")}
    held = [(name, 10 * day, 10 * day + 10) for name, mine in days.items() for day in mine]
    marks = data.draw(st.lists(st.tuples(names, hour, st.sampled_from(["jump", "stale"])), max_size=6))
    spans = data.draw(st.lists(st.tuples(names, hour, st.none() | st.integers(0, 40)), min_size=1, max_size=12))
    spans = [(name, begin, None if length is None else begin + length) for name, begin, length in spans]
    write_admission(
        layout,
        held=[(name, str(at(begin)), str(at(end))) for name, begin, end in held],
        marks=[(name, str(at(time)), rule) for name, time, rule in marks],
    )
    found = held_back(layout, rows(*spans), exclude_marked=["jump"])
    for row, (name, begin, end) in enumerate(spans):
        last = begin if end is None else end
        # Hours are enough: every end is one.
        hours = np.arange(begin, last + 1)
        bad = any(name == whose and ((hours > first) & (hours <= final)).any() for whose, first, final in held)
        odd = any(name == whose and begin <= time <= last and rule == "jump" for whose, time, rule in marks)
        assert (bool(found["quarantined"][row]), bool(found["marked"][row])) == (bad, odd)


def test_the_check_must_have_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"clean/days.parquet is missing: run `python -m stages.check` first"):
        held_back(Layout(tmp_path), rows(("X", 1, 2)), exclude_marked=[])
