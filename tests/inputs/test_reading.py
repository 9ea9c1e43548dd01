"""From a market's own files to features: the stages, and the feed of a running loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from stages.check import check
from stages.features import features
from stages.ingest import ingest
from tests.conftest import ROOT
from tests.inputs.conftest import at, rows, same, sample_bars, sample_quotes, sample_trades
from tradeloop.atomic import write_parquet
from tradeloop.bars import COLUMNS, Bars, from_times, to_times
from tradeloop.config import InputFiles, Market, Params, load_params
from tradeloop.errors import ConfigError, DataError
from tradeloop.features import compute, schema_for
from tradeloop.inputs.reading import InputFeed, join, read_inputs, read_sources
from tradeloop.layout import Layout

FILES = InputFiles(path="in")


def market(*symbols: str, **inputs: InputFiles) -> Market:
    return Market(source="synthetic", symbols=list(symbols), calendar="24/7", interval="1h", inputs=inputs)


def put(path: Path, frame: pd.DataFrame, *, second: int = 0) -> None:
    """Write a file whose time of writing is `second`, whatever the file system's resolution."""
    write_parquet(path, frame)
    os.utime(path, ns=(second * 10**9, second * 10**9))


def news(*clock: str) -> pd.DataFrame:
    return rows("news", at(*clock))


CLOSES = at("10:00", "11:00", "12:00")


def test_a_feed_reads_again_what_has_changed(tmp_path: Path) -> None:
    put(tmp_path / "in" / "X.parquet", news("09:30", "10:30"), second=1)
    feed = InputFeed(market("X", news=FILES), tmp_path)
    assert feed.refresh() == {} and same(feed.known("X", CLOSES)["news.count"], [np.nan, 1, 0])
    before = feed.version("X")
    assert feed.refresh() == {} and feed.version("X") == before
    put(tmp_path / "in" / "X.parquet", news("09:30", "10:30", "11:30"), second=2)
    assert feed.refresh() == {} and feed.version("X") != before
    assert same(feed.known("X", CLOSES)["news.count"], [np.nan, 1, 1])
    assert same(feed.known("X", CLOSES[1:], since=CLOSES[0])["news.count"], [1, 1])


def test_a_file_that_is_broken_stays_as_it_was(tmp_path: Path) -> None:
    feed = InputFeed(market("X", news=FILES), tmp_path)
    (tmp_path / "in").mkdir()
    (problem,) = feed.refresh().values()
    assert problem.startswith("inputs.news: in must hold one of X.parquet")
    assert same(feed.known("X", CLOSES)["news.count"], [np.nan] * 3)
    put(tmp_path / "in" / "X.parquet", news("09:30"), second=1)
    assert feed.refresh() == {}
    version, good = feed.version("X"), feed.known("X", CLOSES)
    put(tmp_path / "in" / "X.parquet", news("09:30", "10:30").assign(count=[1.0, -1.0]), second=2)
    assert feed.refresh() == {
        "X news": "in/X.parquet row 2 at 2024-03-04 10:30:00+00:00: "
        "count must be a whole number, 0 or more, got count = -1.0"
    }
    assert feed.version("X") == version and same(feed.known("X", CLOSES)["news.count"], good["news.count"])
    put(tmp_path / "in" / "X.parquet", news("09:30", "11:30"), second=3)
    assert feed.refresh() == {} and same(feed.known("X", CLOSES)["news.count"], [np.nan, 0, 1])


def test_one_file_may_be_of_all_symbols(tmp_path: Path) -> None:
    put(tmp_path / "calendar.parquet", rows("events", at("12:30"), at("00:00")))
    frames = read_sources(market("X", "Y", events=InputFiles(path="calendar.parquet")), tmp_path)
    pd.testing.assert_frame_equal(frames["events"]["X"], frames["events"]["Y"])


def test_max_age_is_the_market_s_or_else_the_kind_s() -> None:
    frames = {"book": rows("book", at("09:50"))}
    bids = [
        join(market("X", book=InputFiles(path="x", max_age=age)), frames, CLOSES)["book.bid_price"].tolist()
        for age in (None, "70m", "5m")
    ]
    assert same(bids[0], [99, np.nan, np.nan])  # 15 minutes
    assert same(bids[1], [99, 99, np.nan]) and same(bids[2], [np.nan] * 3)


def test_only_what_the_market_has_is_joined() -> None:
    files = InputFiles(path="x", without=["far_iv"])
    found = join(market("X", options=files), {"options": rows("options", at("09:50"))}, CLOSES)
    assert "options.atm_iv" in found and "options.far_iv" not in found


def test_a_wrong_name_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"inputs\.news\.without may name"):
        read_sources(market("X", news=InputFiles(path="nowhere", without=["mood"])), tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> tuple[Layout, Params]:
    """The real order book as a market of one-minute bars in files."""
    bars = sample_bars(60)
    frame = pd.DataFrame({name: getattr(bars, name) for name in COLUMNS}).assign(timestamp=from_times(bars.timestamp))
    for folder, table in (("bars", frame), ("book", sample_quotes()), ("trades", sample_trades())):
        write_parquet(tmp_path / folder / "BTC.parquet", table)
    raw: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    raw |= {"market": "book"}
    raw["markets"]["book"] = {
        "source": "files",
        "symbols": ["BTC"],
        "calendar": "24/7",
        "interval": "1m",
        "files": {"path": "bars"},
        "inputs": {"book": {"path": "book"}, "trades": {"path": "trades"}},
    }
    raw["check"] |= {"min_bars": 20, "min_score": 1}
    raw["features"] |= {"families": ["momentum", "microstructure", "events"]}
    layout = Layout(tmp_path)
    layout.params.write_text(yaml.safe_dump(raw))
    return layout, load_params(layout.params)


def test_the_stages_carry_the_book_from_files_to_features(project: tuple[Layout, Params]) -> None:
    layout, params = project
    for stage in (ingest, check, features):
        stage(layout, params)
    schema = schema_for(params)
    assert "depth_imbalance" in schema.names and "vpin_60" in schema.names
    assert not {"news_count_24", "time_until_event"} & set(schema.names), "this market has no events"
    bars = sample_bars(60)
    inputs = read_inputs(layout, params, "BTC", bars.timestamp)
    assert set(inputs) == set(bars.inputs)
    assert all(same(values[1:], bars.inputs[name][1:]) for name, values in inputs.items())
    assert np.isnan(inputs["trades.count"][0]), "before the first bar there is none to begin it"
    written = pd.concat([pd.read_parquet(path) for path in sorted(layout.features.rglob("*.parquet"))])
    expected = compute(Bars("BTC", *(getattr(bars, name) for name in COLUMNS), inputs=inputs), schema)
    np.testing.assert_array_equal(written[list(schema.names)].to_numpy(), expected)
    imbalance = expected[:, schema.names.index("depth_imbalance")]
    assert np.isfinite(imbalance).all() and len(np.unique(imbalance)) > 20


def test_ingest_refuses_a_broken_file_and_check_one_that_was_changed(project: tuple[Layout, Params]) -> None:
    layout, params = project
    ingest(layout, params)
    stored = layout.raw / "inputs" / "book" / "BTC.parquet"
    frame = pd.read_parquet(stored)
    frame.loc[7, "ask_price"] = frame.loc[7, "bid_price"]
    write_parquet(stored, frame)
    with pytest.raises(DataError, match=r"^data/raw/inputs/book/BTC\.parquet row 7 at .*: ask_price must be above bid"):
        check(layout, params)
    assert not (layout.clean / "inputs").exists()
    write_parquet(layout.root / "book" / "BTC.parquet", frame)
    with pytest.raises(DataError, match=r"^book/BTC\.parquet row 8 at"):
        ingest(layout, params)


def test_the_feed_of_a_running_loop_gives_what_the_pipeline_has(project: tuple[Layout, Params]) -> None:
    """The feed's tail equals the whole: flows of its oldest bar begin at the close before it."""
    layout, params = project
    for stage in (ingest, check):
        stage(layout, params)
    times = to_times(pd.read_parquet(layout.clean / "bars" / "BTC.parquet")["timestamp"])
    feed = InputFeed(params.active, layout.root)
    assert feed.refresh() == {}
    whole, tail = read_inputs(layout, params, "BTC", times), feed.known("BTC", times[-5:], since=times[-6])
    assert set(whole) == set(tail) and all(same(tail[name], whole[name][-5:]) for name in whole)
