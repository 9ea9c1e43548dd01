"""Asking a source again for gaps: flaky sources, files that changed, and what cannot be asked."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.raw_bars import PARAMS, counts, look, series
from tradeloop.bars import from_times, to_times
from tradeloop.config import Check, FileMarket, Market
from tradeloop.errors import DataError
from tradeloop.integrity import examine, restatements
from tradeloop.integrity.refill import refill
from tradeloop.sources import open_source
from tradeloop.sources.base import Source

MARKET = Market(source="files", symbols=["X"], calendar="24/7", interval="1h", files=FileMarket(path="in"), context=[])


class Flaky(Source):
    """Has all bars of `frame`, and fails so many times before each answer."""

    name = "flaky"

    def __init__(self, frame: pd.DataFrame, failures: int = 0) -> None:
        super().__init__(MARKET, root=Path(), seed=0)
        self.frame = frame
        self.failures = failures
        self.left = failures
        self.asked: list[tuple[str, str]] = []
        self.slept: list[float] = []

    def read(self, symbol: str) -> pd.DataFrame:
        raise AssertionError(f"the whole of {symbol} was read for a gap")

    def fetch(self, symbol: str, start: np.datetime64, end: np.datetime64) -> pd.DataFrame:
        if self.left:
            self.left -= 1
            raise DataError(f"{symbol}: the line is down")
        self.left = self.failures
        self.asked.append((str(start)[5:16], str(end)[5:16]))
        times = to_times(self.frame["timestamp"])
        return self.frame[(times >= start) & (times <= end)].reset_index(drop=True)

    def again(self, symbol: str, start: np.datetime64, end: np.datetime64) -> pd.DataFrame:
        return self.refetch(symbol, start, end, attempts=3, backoff=0.5, sleep=self.slept.append)


def without(*rows: int) -> pd.DataFrame:
    return series().drop(index=list(rows)).reset_index(drop=True)


def examined(frame: pd.DataFrame, source: Flaky, **check: Any) -> Any:
    return examine({"X": frame}, MARKET, Check(**check), fetch=source.again)


def test_what_the_source_has_fills_the_gaps_in_place() -> None:
    source = Flaky(series())
    found = examined(without(10, 11, 12, 50), source)
    pd.testing.assert_frame_equal(found.reports[0].clean(), series())
    assert counts(found.reports[0]) == {}
    # Each gap is asked for with the bars on either side.
    assert source.asked == [("01-01T10:00", "01-01T14:00"), ("01-03T02:00", "01-03T04:00")]
    assert list(found.notes()) == ["X: asked again for 2 gaps: 4 of 4 missing bars came"]
    assert found.summary()["X"]["refetched"] == {"gaps": 2, "missing": 4, "came": 4}
    assert source.slept == []


def test_a_series_without_gaps_is_not_asked_for() -> None:
    source = Flaky(series())
    found = examined(series(), source)
    assert source.asked == [] and "refetched" not in found.summary()["X"] and list(found.notes()) == []


def test_a_flaky_source_is_asked_again_with_growing_pauses() -> None:
    source = Flaky(series(), failures=2)
    found = examined(without(10, 50), source)
    assert found.reports[0].count("gap") == 0 and source.slept == [0.5, 1.0, 0.5, 1.0]


def test_a_source_that_stays_down_leaves_the_gaps_and_says_so() -> None:
    source = Flaky(series(), failures=3)
    found = examined(without(10, 50), source)
    assert counts(found.reports[0]) == {"gap": 2}
    assert source.slept == [0.5, 1.0] and source.asked == []  # the second gap is not asked for
    assert list(found.notes()) == ["X: the source did not answer for its gaps: X: the line is down"]


def test_only_the_longest_gaps_are_asked_for() -> None:
    source = Flaky(series())
    found = examined(without(10, 20, 21, 30, 31, 32), source, refetch={"gaps": 2})
    assert found.reports[0].count("gap") == 1
    assert [start for start, _ in source.asked] == ["01-01T20:00", "01-02T06:00"]  # in order of time


def test_a_bar_beside_the_gap_that_changed_is_a_restatement_and_the_newer_one_stays() -> None:
    now = series()
    now.loc[9, "volume"] = 77.0
    source = Flaky(now)
    found = examined(without(10, 11), source)
    report = found.reports[0]
    assert counts(report) == {"duplicate": 1, "restated": 1}
    assert list(found.notes()) == ["X: asked again for 1 gap: 2 of 2 missing bars came, 1 beside them had changed"]
    pd.testing.assert_frame_equal(report.clean(), now)


def test_what_comes_is_held_to_the_rules_like_the_rest() -> None:
    bad = series()
    bad.loc[11, "low"] = -1.0
    report = examined(without(10, 11), Flaky(bad)).reports[0]
    assert report.blocking == ["non_positive_price"]


def test_a_series_with_errors_is_not_asked_for() -> None:
    frame = without(10)
    frame.loc[5, "close"] = np.nan
    source = Flaky(series())
    assert refill(look(frame), source.again, gaps=5).asked == 0 and source.asked == []


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_whatever_comes_stands_in_order_and_nothing_is_lost(data: st.DataObject) -> None:
    """A source that has any part of what is missing: each bar once, in place."""
    whole = series(120)
    missing = data.draw(st.sets(st.integers(1, 118), min_size=1, max_size=40))
    has = data.draw(st.sets(st.sampled_from(sorted(missing))))
    raw = whole.drop(index=list(missing)).reset_index(drop=True)
    source = Flaky(whole.drop(index=list(missing - has)).reset_index(drop=True))
    result = refill(look(raw), source.again, gaps=100)
    pd.testing.assert_frame_equal(result.frame, source.frame)
    assert (result.missing, result.came, result.restated) == (len(missing), len(has), 0)


def test_a_source_without_an_own_fetch_cuts_what_it_reads_and_reads_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(PARAMS.markets["synthetic"], root=Path(), seed=1)
    whole, reads = source.read("SYN"), []
    monkeypatch.setattr(source, "read", lambda symbol: reads.append(symbol) or whole)
    times = to_times(whole["timestamp"])
    for first, last in ((3, 7), (100, 100)):
        part = source.refetch("SYN", times[first], times[last])
        pd.testing.assert_frame_equal(part, whole[first : last + 1].reset_index(drop=True))
    assert reads == ["SYN"]


def test_a_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    source = open_source(MARKET, root=tmp_path, seed=0)
    path = tmp_path / "in" / "X.parquet"
    path.parent.mkdir()
    without(10).to_parquet(path)
    times = to_times(series()["timestamp"])
    assert len(source.refetch("X", times[9], times[11])) == 2
    series().to_parquet(path)
    pd.testing.assert_frame_equal(source.refetch("X", times[9], times[11]), series()[9:12].reset_index(drop=True))
    path.unlink()
    slept: list[float] = []
    with pytest.raises(DataError, match=r"holds none of X\.parquet"):
        source.refetch("X", times[9], times[11], attempts=4, backoff=2, sleep=slept.append)
    assert slept == [2, 4, 8]


def test_packages_have_nothing_to_ask_for_again() -> None:
    source = open_source(PARAMS.markets["btc_15m"], root=Path(), seed=0)
    frame = source.read("BTCUSD")
    again = source.refetch("BTCUSD", *to_times(frame["timestamp"])[[0, 100]])
    assert source.fixed and again.empty and again.dtypes.to_dict() == frame.dtypes.to_dict()


def test_no_attempts_are_none() -> None:
    source = Flaky(series())
    assert source.refetch("X", *to_times(series()["timestamp"])[[0, 9]], attempts=0).empty and source.asked == []


def test_restatements_name_what_became_of_a_bar() -> None:
    after = series(12)
    before = after[:10].copy()
    assert restatements(before, after) == []
    after.loc[3, "close"], after.loc[3, "volume"], after.loc[7, "open"] = 1.5, 2.5, np.nan
    found = restatements(before, after)
    assert [str(time) for time, _ in found] == ["2024-01-01T04:00:00.000000", "2024-01-01T08:00:00.000000"]
    close, volume = float(before.loc[3, "close"]), float(before.loc[3, "volume"])
    assert found[0][1] == f"close {close!r} became 1.5; volume {volume!r} became 2.5"
    assert restatements(after, after) == []  # a missing value that stays missing
    shuffled = after.sample(frac=1, random_state=0)
    assert restatements(before, shuffled) == found


def test_of_copies_the_last_one_counts() -> None:
    frame = series(5)
    early = frame.iloc[[2]].assign(close=1.0)
    assert restatements(frame, pd.concat([early, frame], ignore_index=True)) == []
    assert len(restatements(frame, pd.concat([frame, early], ignore_index=True))) == 1


def test_a_gap_of_an_exchange_is_asked_for_over_the_night() -> None:
    times = from_times(np.array(["2024-03-05T21", "2024-03-06T21", "2024-03-08T21"], dtype="datetime64[us]"))
    frame = series(3).assign(timestamp=times)
    report = look(frame, calendar="XNYS", hours=24)
    asked: list[Any] = []
    refill(report, lambda s, a, b: asked.append((s, str(a)[:16], str(b)[:16])) or frame[:0], gaps=5)
    assert asked == [("X", "2024-03-06T21:00", "2024-03-08T21:00")]
    assert report.series.interval == timedelta(days=1)
