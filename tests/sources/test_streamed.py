"""A source with what was streamed in it: each bar at its place, the last word counting."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import ROOT
from tradeloop.bars import COLUMNS, from_times
from tradeloop.config import Market, load_params
from tradeloop.errors import DataError
from tradeloop.journal import BEGINNING, Bar, Commit, Journal, Level
from tradeloop.sources import open_source, registered
from tradeloop.sources.base import Source
from tradeloop.sources.streamed import Streamed


class Held(Source):
    """A source in memory; each bar's close is its time."""

    name = "held"

    def __init__(self, market: Market, times: list[int]) -> None:
        super().__init__(market, root=ROOT, seed=0)
        self.times = np.array(times, dtype="datetime64[us]")

    def read(self, symbol: str) -> pd.DataFrame:
        del symbol
        frame = pd.DataFrame({"timestamp": from_times(self.times)})
        frame[list(COLUMNS[1:])] = np.repeat(self.times.view(np.int64).astype(float)[:, None], 5, axis=1)
        return frame

    def read_context(self, name: str) -> pd.DataFrame:
        del name
        times = from_times(self.times)
        return pd.DataFrame({"timestamp": times, "known_at": times, "close": self.times.view(np.int64) * 1.0})


def market() -> Market:
    return load_params(ROOT / "params.yaml").markets["us_daily"]


def append(folder: Path, *commits: Commit) -> None:
    journal = Journal(folder, folder.parent / "lock")
    mark = journal.read()[1]
    for commit in commits:
        with journal.sole_writer():
            mark = journal.append(commit, mark)


def bar(time: int, close: float, symbol: str = "A") -> Bar:
    return Bar(symbol, time, close, close, close, close, 1.0)


@settings(max_examples=30, deadline=None)
@given(
    have=st.lists(st.integers(0, 12), min_size=1, unique=True).map(sorted),
    said=st.lists(st.tuples(st.integers(0, 15), st.integers(20, 29)), max_size=12),
)
def test_it_is_as_if_the_source_had_the_last_word_on_each_bar(
    have: list[int], said: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("streamed") / "journal"
    append(folder, *(Commit([bar(time, close), bar(time, 1.0, "B")]) for time, close in said))
    frame = Streamed(Held(market(), have), folder).read("A")
    expected = {time: float(time) for time in have} | {time: float(close) for time, close in said}
    times = frame["timestamp"].dt.tz_localize(None).to_numpy("datetime64[us]").view(np.int64)
    assert dict(zip(times.tolist(), frame["close"], strict=True)) == expected
    assert times.tolist() == sorted(expected)
    assert list(frame.columns) == list(COLUMNS) and frame["timestamp"].dtype == "datetime64[us, UTC]"


def test_what_the_source_has_out_of_order_stays_for_check_to_find(tmp_path: Path) -> None:
    append(tmp_path / "journal", Commit([bar(4, 40.0)]))
    frame = Streamed(Held(market(), [1, 5, 2, 2, 6]), tmp_path / "journal").read("A")
    assert frame["close"].tolist() == [1.0, 40.0, 5.0, 2.0, 2.0, 6.0]


def test_a_context_value_counts_from_when_it_was_known(tmp_path: Path) -> None:
    append(tmp_path / "journal", Commit(levels=[Level("X", 3, 5, 30.0), Level("X", 2, 9, 20.0), Level("Y", 1, 1, 1.0)]))
    frame = Streamed(Held(market(), [1, 4]), tmp_path / "journal").read_context("X")
    # What was published after a newer value is at no time the newest known.
    assert frame["close"].tolist() == [1.0, 4.0]
    append(tmp_path / "journal", Commit(levels=[Level("X", 4, 6, 44.0)]))
    frame = Streamed(Held(market(), [1, 4]), tmp_path / "journal").read_context("X")
    assert frame["close"].tolist() == [1.0, 4.0, 44.0]


def test_the_version_changes_with_what_is_streamed_of_the_series(tmp_path: Path) -> None:
    source = Streamed(Held(market(), [1]), tmp_path / "journal")
    before = source.version("A"), source.version("B"), source.context_version("X")
    append(tmp_path / "journal", Commit([bar(2, 2.0)], [Level("X", 2, 2, 2.0)]))
    after = source.version("A"), source.version("B"), source.context_version("X")
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]
    assert len(source.read("A")) == 2 and len(source.read("B")) == 1


def test_it_is_opened_where_a_journal_is_named(tmp_path: Path) -> None:
    assert "streamed" not in registered()
    opened = open_source(market(), root=ROOT, seed=0, streamed=tmp_path)
    pd.testing.assert_frame_equal(opened.read("IBM"), open_source(market(), root=ROOT, seed=0).read("IBM"))
    pd.testing.assert_frame_equal(
        opened.read_context("WTI"), open_source(market(), root=ROOT, seed=0).read_context("WTI")
    )
    with pytest.raises(DataError):
        opened.read_context("NOPE")
    assert Journal(tmp_path).size() == BEGINNING
