from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.conftest import ROOT
from tradeloop.bars import Bars, to_times
from tradeloop.clock import VirtualClock
from tradeloop.config import FileMarket, InputFiles, Params, load_params
from tradeloop.errors import StoreError
from tradeloop.features import compute, schema_for
from tradeloop.inputs.reading import join
from tradeloop.integrity import admit, inspect
from tradeloop.layout import Layout
from tradeloop.loop.refresh import Refresher
from tradeloop.monitoring.feed import SourceFeed
from tradeloop.schema import Schema
from tradeloop.sources import open_source
from tradeloop.state.online import OnlineStore

SYMBOLS, CONTEXT, ROWS = ["AAPL", "IBM"], ["SP500"], 700
LAST = datetime(2013, 3, 2, tzinfo=UTC)


@dataclass
class Live:
    """A market in files that grow: real daily bars, of which the newest have not come yet."""

    layout: Layout
    params: Params
    clock: VirtualClock
    bars: dict[str, pd.DataFrame]
    context: pd.DataFrame
    store: OnlineStore
    feed: SourceFeed
    refresher: Refresher

    @property
    def schema(self) -> Schema:
        return schema_for(self.params)

    def put(self, symbol: str, frame: pd.DataFrame) -> None:
        path = self.layout.root / "bars" / f"{symbol}.parquet"
        before = path.stat().st_mtime_ns if path.exists() else 0
        frame.to_parquet(path)
        os.utime(path, ns=(before + 10**9, before + 10**9))  # whatever the file system's resolution

    def batch(self, symbol: str, frame: pd.DataFrame) -> tuple[np.datetime64, np.ndarray]:
        """Return time and values of the newest row as check and features would make it."""
        report = inspect(symbol, frame, calendar="XNYS", interval=pd.Timedelta("1d"), config=self.params.check)
        clean = admit(report, self.params.check, file="x")
        rows = compute(Bars.from_frame(symbol, clean, {CONTEXT[0]: self.context}), self.schema)
        return to_times(clean["timestamp"])[-1], rows[-1]

    def assert_stored(self, symbol: str, frame: pd.DataFrame) -> None:
        time, values = self.batch(symbol, frame)
        rows = self.store.read([symbol], self.schema)
        assert rows.feature_time[0] == time
        np.testing.assert_allclose(rows.vectors[0], values, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def history() -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    params = load_params(ROOT / "params.yaml")
    source = open_source(params.markets["us_daily"], root=ROOT, seed=1)
    return {symbol: source.read(symbol).tail(ROWS) for symbol in SYMBOLS}, source.read_context(CONTEXT[0])


@pytest.fixture
def live(tmp_path: Path, history: tuple[dict[str, pd.DataFrame], pd.DataFrame]) -> Iterator[Live]:
    params = load_params(ROOT / "params.yaml")
    files = FileMarket(path="bars", context_path="bars")
    changes = {"source": "files", "symbols": SYMBOLS, "context": CONTEXT, "files": files, "clock": "live"}
    market = params.markets["us_daily"].model_copy(update=changes)
    params = params.model_copy(update={"market": "mine", "markets": {"mine": market}})
    layout, clock = Layout(tmp_path), VirtualClock(LAST)
    (tmp_path / "bars").mkdir()
    feed, store = SourceFeed(layout, params, clock), OnlineStore(layout, params)
    made = Live(layout, params, clock, *history, store, feed, Refresher(layout, params, feed, store))
    for symbol, frame in made.bars.items():
        made.put(symbol, frame.iloc[:-3])
    made.put(CONTEXT[0], made.context)
    yield made
    store.close()


def test_rows_follow_new_bars_and_equal_the_pipelines(live: Live) -> None:
    first = live.refresher.refresh()
    assert list(first.written.values()) == [SYMBOLS] and first.problems == {}
    for symbol in SYMBOLS:
        live.assert_stored(symbol, live.bars[symbol].iloc[:-3])
    live.put("AAPL", live.bars["AAPL"].iloc[:-1])
    second = live.refresher.refresh()
    assert list(second.written.values()) == [["AAPL"]]
    assert second.newest == to_times(live.bars["AAPL"]["timestamp"])[-2]
    live.assert_stored("AAPL", live.bars["AAPL"].iloc[:-1])
    live.assert_stored("IBM", live.bars["IBM"].iloc[:-3])


def test_nothing_new_costs_no_write_and_no_computing(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    live.refresher.refresh()

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("there is nothing to do")

    for owner, name in [(live.store, "write"), (live.feed, "bars")]:
        monkeypatch.setattr(owner, name, refuse)
    done = live.refresher.refresh()
    assert done.written == {} and np.isnat(done.newest)


def test_the_pipelines_own_files_are_left_alone(live: Live) -> None:
    live.refresher.refresh()
    assert [path.name for path in live.layout.data.iterdir()] == ["live"]


def test_a_restated_bar_and_a_late_context_replace_the_row(live: Live) -> None:
    live.refresher.refresh()
    restated = live.bars["IBM"].iloc[:-3].copy()
    restated.loc[restated.index[-1], "volume"] *= 2
    live.put("IBM", restated)
    assert list(live.refresher.refresh().written.values()) == [["IBM"]]
    live.assert_stored("IBM", restated)
    live.context = live.context.assign(close=live.context["close"] * np.linspace(1, 1.1, len(live.context)))
    live.put(CONTEXT[0], live.context)
    assert list(live.refresher.refresh().written.values()) == [SYMBOLS]
    live.assert_stored("IBM", restated)


def test_a_bar_that_has_not_closed_is_not_there_yet(live: Live) -> None:
    frame = live.bars["AAPL"]
    close = frame["timestamp"].iloc[-1].to_pydatetime()
    live.clock = VirtualClock(close - timedelta(seconds=1))
    feed = SourceFeed(live.layout, live.params, live.clock)
    refresher = Refresher(live.layout, live.params, feed, live.store)
    live.put("AAPL", frame)
    refresher.refresh()
    live.assert_stored("AAPL", frame.iloc[:-1])
    live.clock.advance(close)
    assert list(refresher.refresh().written.values()) == [["AAPL"]]
    live.assert_stored("AAPL", frame)


def test_dirty_bars_are_cleaned_as_the_pipeline_cleans_them(live: Live) -> None:
    frame = live.bars["AAPL"].iloc[:-3]
    doubled = pd.concat([frame, frame.tail(2)])
    doubled.iloc[-3, doubled.columns.get_loc("close")] *= 1.001  # the first copy of the last bar was read too early
    live.put("AAPL", doubled)
    live.refresher.refresh()
    live.assert_stored("AAPL", doubled)


def test_a_broken_series_stays_as_it_was_and_the_others_go_on(live: Live) -> None:
    live.refresher.refresh()
    broken = live.bars["AAPL"].iloc[:-2].copy()
    broken.loc[broken.index[-1], "low"] = -1.0
    live.put("AAPL", broken)
    live.put("IBM", live.bars["IBM"])
    assert list(live.refresher.refresh().written.values()) == [["IBM"]]
    assert "AAPL" in live.feed.problems
    live.assert_stored("AAPL", live.bars["AAPL"].iloc[:-3])


def test_a_broken_context_is_told_and_stays_as_it_was(live: Live) -> None:
    live.refresher.refresh()
    (live.layout.root / "bars" / "SP500.parquet").unlink()
    done = live.refresher.refresh()
    assert done.written == {} and "SP500" in done.problems["SP500"]


def test_data_beyond_bars_come_with_the_row_and_replace_it(live: Live) -> None:
    """Features of news: made from the market's file as it stands, whatever is wrong with it meanwhile."""
    market = live.params.active.model_copy(update={"inputs": {"news": InputFiles(path="news")}})
    chosen = live.params.features.model_copy(update={"families": ["trend", "events"]})
    live.params = live.params.model_copy(update={"markets": {"mine": market}, "features": chosen})
    times = pd.date_range("2010-06-01", "2013-02-25", freq="9h", tz="UTC").astype("datetime64[us, UTC]")
    told = pd.DataFrame({"timestamp": times, "known_at": times, "count": 1.0})

    def put(frame: pd.DataFrame, second: int) -> None:
        for symbol in SYMBOLS:
            path = live.layout.root / "news" / f"{symbol}.parquet"
            path.parent.mkdir(exist_ok=True)
            frame.to_parquet(path)
            os.utime(path, ns=(second * 10**9, second * 10**9))

    def expected(frame: pd.DataFrame) -> np.ndarray:
        bars = Bars.from_frame("IBM", live.bars["IBM"].iloc[:-3], {CONTEXT[0]: live.context})
        return compute(replace(bars, inputs=join(market, {"news": frame}, bars.timestamp)), live.schema)[-1]

    put(told, 1)
    with closing(OnlineStore(live.layout, live.params)) as store:
        refresher = Refresher(live.layout, live.params, live.feed, store)
        assert list(refresher.refresh().written.values()) == [SYMBOLS]
        np.testing.assert_array_equal(store.read(["IBM"], live.schema).vectors[0], expected(told))
        more = pd.concat([told, told.tail(20)], ignore_index=True)
        put(more, 2)
        assert list(refresher.refresh().written.values()) == [SYMBOLS]
        assert not np.array_equal(expected(more), expected(told))
        np.testing.assert_array_equal(store.read(["IBM"], live.schema).vectors[0], expected(more))
        put(more.assign(count=-1.0), 3)
        done = refresher.refresh()
        assert done.written == {} and sorted(done.problems) == ["AAPL news", "IBM news"]


def test_a_schema_that_this_code_cannot_make_is_told(live: Live) -> None:
    other = Schema("mine", live.schema.names, "0" * 64)
    done = live.refresher.refresh([other, live.schema])
    assert list(done.written) == [live.schema.hash] and list(done.problems) == [other.hash]


def test_a_store_that_was_away_gets_the_row_later(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any) -> int:
        raise StoreError("the online store does not answer")

    monkeypatch.setattr(live.store, "write", away)
    with pytest.raises(StoreError):
        live.refresher.refresh()
    monkeypatch.undo()
    assert list(live.refresher.refresh().written.values()) == [SYMBOLS]
