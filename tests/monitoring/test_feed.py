from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.outcomes import HandClock, closes, random_bars
from tradeloop.bars import Bars, from_times
from tradeloop.config import Params, load_params
from tradeloop.layout import Layout
from tradeloop.monitoring.feed import ArrayFeed, SourceFeed, Version

ROOT = Path(__file__).resolve().parents[2]


class TestArrayFeed:
    def test_shows_bars_that_are_closed_and_copies_nothing(self) -> None:
        bars = random_bars("AAA", 50)
        feed = ArrayFeed({"AAA": bars}, clock := HandClock(closes(9)))
        assert feed.version("AAA") == Version(0, 10) and len(feed.bars("AAA")) == 10
        assert np.shares_memory(feed.bars("AAA").close, bars.close)
        clock.time = closes(10) - timedelta(microseconds=1)
        assert feed.version("AAA").bars == 10
        clock.time = closes(10)
        assert feed.version("AAA").bars == 11
        clock.time = closes(3)
        assert feed.bars("AAA").timestamp[-1] == np.datetime64(closes(3).replace(tzinfo=None), "us")

    def test_an_unknown_symbol_has_no_bars(self) -> None:
        feed = ArrayFeed({}, HandClock(closes(0)))
        assert feed.version("AAA") == Version(0, 0) and len(feed.bars("AAA")) == 0 and feed.symbols == ()

    def test_tells_added_bars_from_restated_ones(self) -> None:
        bars = random_bars("AAA", 50)
        feed = ArrayFeed({"AAA": bars[:20]}, HandClock(closes(100)))
        feed.put(bars)
        assert feed.version("AAA") == Version(0, 50)
        feed.put(replace(bars, volume=bars.volume + 1))
        assert feed.version("AAA") == Version(1, 50)
        feed.put(bars[:49])
        assert feed.version("AAA") == Version(2, 49)

    def test_leaves_context_out(self) -> None:
        bars = random_bars("AAA", 5)
        feed = ArrayFeed({"AAA": replace(bars, context={"SP500": bars.close})}, HandClock(closes(9)))
        assert feed.bars("AAA").context == {}


class TestSourceFeed:
    @pytest.fixture
    def params(self) -> Params:
        raw = load_params(Layout(ROOT).params).model_dump()
        market = {"source": "files", "symbols": ["AAA", "BBB"], "calendar": "24/7", "interval": "1h", "clock": "live"}
        raw |= {"market": "mine", "markets": {"mine": market | {"files": {"path": "bars"}}}}
        raw["check"] = {"min_bars": 20}
        return Params.model_validate(raw)

    @staticmethod
    def write(folder: Path, bars: Bars) -> None:
        folder.mkdir(exist_ok=True)
        columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")}
        frame = pd.DataFrame({"timestamp": from_times(bars.timestamp), **columns})
        frame.to_csv(folder / f"{bars.symbol}.csv", index=False)

    def test_reads_again_only_what_changed(
        self, tmp_path: Path, params: Params, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bars = {symbol: random_bars(symbol, 60) for symbol in ("AAA", "BBB")}
        for series in bars.values():
            self.write(tmp_path / "bars", series[:40])
        feed = SourceFeed(Layout(tmp_path), params, HandClock(closes(100)))
        read: list[str] = []
        real = feed._source.read
        monkeypatch.setattr(feed._source, "read", lambda symbol: read.append(symbol) or real(symbol))
        for _ in range(3):
            assert [feed.version(symbol) for symbol in feed.symbols] == [Version(0, 40)] * 2
        self.write(tmp_path / "bars", bars["BBB"])
        assert [feed.version(symbol) for symbol in feed.symbols] == [Version(0, 40), Version(0, 60)]
        assert read == ["AAA", "BBB", "BBB"]
        np.testing.assert_allclose(feed.bars("BBB").close, bars["BBB"].close)

    def test_a_series_that_fails_is_reported_and_the_last_good_one_stays(self, tmp_path: Path, params: Params) -> None:
        bars = random_bars("AAA", 60)
        self.write(tmp_path / "bars", bars[:40])
        feed = SourceFeed(Layout(tmp_path), params, HandClock(closes(100)))
        assert feed.version("AAA") == Version(0, 40) and len(feed.bars("BBB")) == 0
        assert set(feed.problems) == {"BBB"} and "BBB" in feed.problems["BBB"]
        broken = bars.high.copy()
        broken[50] = 1.0
        self.write(tmp_path / "bars", replace(bars, high=broken))
        assert feed.version("AAA") == Version(0, 40) and "broken_ohlc" in feed.problems["AAA"]
        self.write(tmp_path / "bars", bars)
        assert feed.version("AAA") == Version(0, 60) and set(feed.problems) == {"BBB"}
        other = bars.close.copy()
        other[30] = bars.low[30]
        self.write(tmp_path / "bars", replace(bars, close=other))
        assert feed.version("AAA") == Version(1, 60)

    def test_a_source_that_never_changes_is_read_once(self, tmp_path: Path) -> None:
        raw = load_params(Layout(ROOT).params).model_dump() | {"market": "synthetic"}
        raw["markets"]["synthetic"]["synthetic"]["bars"] = 400
        synthetic = Params.model_validate(raw)
        start = synthetic.active.synthetic.start
        feed = SourceFeed(Layout(tmp_path), synthetic, HandClock(start + timedelta(hours=350)))
        first = feed.bars("SYN")
        assert len(first) == 350 and np.shares_memory(first.close, feed.bars("SYN").close)
