"""Data beyond bars in a market whose bars are streamed: what is online, and the parity monitor's second look at it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from datetime import UTC
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.monitoring.test_parity import NOW, compared, log, monitor
from tests.stream.market import SERIES, SYMBOLS, Market, held_back, make_market, messages, real
from tradeloop.bars import Bars
from tradeloop.config import InputFiles
from tradeloop.features import compute
from tradeloop.inputs.reading import join
from tradeloop.state.database import Database, database_url
from tradeloop.state.online import OnlineStore


@pytest.fixture
def market(tmp_path: Path) -> Market:
    """The streamed market, with news in files."""
    made = make_market(tmp_path)
    mine = made.params.active.model_copy(update={"inputs": {"news": InputFiles(path="news")}})
    chosen = made.params.features.model_copy(update={"families": ["price_action", "events"]})
    changes = {"markets": {"mine": mine}, "features": chosen}
    (tmp_path / "news").mkdir()
    for symbol in SYMBOLS:
        told(symbol).to_parquet(tmp_path / "news" / f"{symbol}.parquet")
    return Market(made.layout, made.params.model_copy(update=changes))


def told(symbol: str) -> pd.DataFrame:
    """Some news of each day, as canonical rows."""
    start, end = (real()[0][symbol]["timestamp"].iloc[place] for place in (0, -1))
    times = pd.date_range(start, end, freq="5h" if symbol == "IBM" else "7h").astype("datetime64[us, UTC]")
    count = np.random.default_rng(len(times)).poisson(2, len(times)).astype(float)
    return pd.DataFrame({"timestamp": times, "known_at": times, "count": count})


def whole(market: Market, symbol: str) -> tuple[Bars, np.ndarray]:
    """Return all bars of a symbol with their news, and their rows."""
    bars = Bars.from_frame(symbol, real()[0][symbol], {SERIES: real()[1]})
    bars = replace(bars, inputs=join(market.params.active, {"news": told(symbol)}, bars.timestamp))
    return bars, compute(bars, market.schema)


def test_a_streamed_bar_s_row_has_what_the_market_s_files_say(market: Market) -> None:
    with closing(OnlineStore(market.layout, market.params)) as store:
        market.consumer(store).take(messages(held_back()))
        rows = store.read(SYMBOLS, market.schema)
    for place, symbol in enumerate(SYMBOLS):
        np.testing.assert_array_equal(rows.vectors[place], whole(market, symbol)[1][-1])
    assert np.isfinite(rows.vectors).all() and "news_count_24" in market.schema.names


def test_the_parity_monitor_computes_the_same_rows(market: Market) -> None:
    market.consumer().take(messages(held_back()))
    rows = []
    for symbol in SYMBOLS:
        bars, values = whole(market, symbol)
        for place in (-1, -40):
            rows.append((symbol, bars.timestamp[place].item().replace(tzinfo=UTC), values[place]))
    with closing(Database.open(database_url(market.layout, market.params))) as database:
        log(database, market, *rows)
        found = compared(monitor(market, database).step(NOW))
    assert (found.compared, found.different) == (4, [])
