"""A market in files, of which the newest bars are still to be streamed: real daily bars, few families of features."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tests.conftest import ROOT
from tradeloop.bars import Bars, known_close, to_times
from tradeloop.config import FileMarket, Params, load_params
from tradeloop.features import compute, schema_for
from tradeloop.journal import Commit, Journal
from tradeloop.layout import Layout
from tradeloop.schema import Schema
from tradeloop.sources import open_source
from tradeloop.state.online import OnlineStore
from tradeloop.stream.consumer import Consumer, Message

SYMBOLS, SERIES = ("AAPL", "IBM"), "SP500"
ROWS, HELD_BACK = 700, 120
REDIS = "127.0.0.1:16379"


@cache
def real() -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Real bars of both symbols, and the context series."""
    source = open_source(load_params(ROOT / "params.yaml").markets["us_daily"], root=ROOT, seed=1)
    bars = {symbol: source.read(symbol).tail(ROWS).reset_index(drop=True) for symbol in SYMBOLS}
    context = source.read_context(SERIES)
    times = bars[SYMBOLS[0]]["timestamp"]
    return bars, context[context["timestamp"].between(times.iloc[0], times.iloc[-1])].reset_index(drop=True)


def line(symbol: str, row: Any, **changes: Any) -> dict[str, Any]:
    """Return a bar as a message has it."""
    bar = {"symbol": symbol, "timestamp": row.timestamp.isoformat()}
    return bar | {name: getattr(row, name) for name in ("open", "high", "low", "close", "volume")} | changes


def held_back() -> list[dict[str, Any]]:
    """The bars that the files lack, by time, and before each day's the context value of that day."""
    bars, context = real()
    start = bars[SYMBOLS[0]]["timestamp"].iloc[-HELD_BACK]
    found = [(row.timestamp, 1, line(symbol, row)) for symbol in SYMBOLS
             for row in bars[symbol].iloc[-HELD_BACK:].itertuples()]  # fmt: skip
    for row in context[context["known_at"] >= start].itertuples():
        level = {"series": SERIES, "timestamp": row.timestamp.isoformat(), "close": row.close}
        found.append((row.known_at, 0, level | {"known_at": row.known_at.isoformat()}))
    return [message for _, _, message in sorted(found, key=lambda item: item[:2])]


@dataclass
class Market:
    """The files, and what one may ask of them."""

    layout: Layout
    params: Params

    @property
    def schema(self) -> Schema:
        return schema_for(self.params)

    @property
    def journal(self) -> Journal:
        return Journal(self.layout.streamed(self.params.market))

    @property
    def refused(self) -> Path:
        return self.layout.live / "stream" / "mine.refused.jsonl"

    def commits(self) -> list[Commit]:
        return self.journal.read()[0]

    def said(self) -> list[Any]:
        """Every bar in the journal."""
        return [bar for commit in self.commits() for bar in commit.bars]

    def consumer(self, store: OnlineStore | None = None) -> Consumer:
        made = Consumer(self.layout, self.params, store=store)
        made.start()
        return made

    def batch(self, symbol: str) -> tuple[np.datetime64, np.ndarray]:
        """Time and values of the newest row, from the source with what was streamed in it, as the pipeline makes it."""
        source = open_source(self.params.active, root=self.layout.root, seed=1, streamed=self.layout.streamed("mine"))
        frame = source.read(symbol)
        context = {SERIES: source.read_context(SERIES)}
        return to_times(frame["timestamp"])[-1], compute(Bars.from_frame(symbol, frame, context), self.schema)[-1]

    def assert_online(self, store: OnlineStore) -> None:
        """The online store has the newest row of each symbol, bit for bit."""
        rows = store.read(SYMBOLS, self.schema)
        for place, symbol in enumerate(SYMBOLS):
            time, values = self.batch(symbol)
            assert rows.feature_time[place] == time
            np.testing.assert_array_equal(rows.vectors[place], values)

    def assert_whole(self) -> None:
        """The source with what was streamed in it is the real series again."""
        source = open_source(self.params.active, root=self.layout.root, seed=1, streamed=self.layout.streamed("mine"))
        bars, context = real()
        for symbol in SYMBOLS:
            pd.testing.assert_frame_equal(source.read(symbol), bars[symbol])
        times = to_times(bars[SYMBOLS[0]]["timestamp"])
        known = known_close(times, source.read_context(SERIES))
        np.testing.assert_array_equal(known, known_close(times, context))


def params_of(*, redis_url: str | None = None, **stream: Any) -> Params:
    """Return the market's parameters; `stream` changes the block of that name."""
    params = load_params(ROOT / "params.yaml")
    files = FileMarket(path="bars", context_path="bars")
    changes = {"source": "files", "symbols": list(SYMBOLS), "context": [SERIES], "files": files, "clock": "live"}
    mine = params.markets["us_daily"].model_copy(update=changes)
    features = params.features.model_copy(update={"families": ["price_action", "context"]})
    online = {"online_store": "redis", "redis_url": redis_url} if redis_url else {"online_store": "sqlite"}
    update = {"market": "mine", "markets": {"mine": mine}, "features": features}
    update |= {"serving": params.serving.model_copy(update=online), "stream": params.stream.model_copy(update=stream)}
    return params.model_copy(update=update)


def make_market(root: Path, **changes: Any) -> Market:
    """Write the files without the newest bars; `changes` as for `params_of`."""
    bars, context = real()
    (root / "bars").mkdir(parents=True)
    start = bars[SYMBOLS[0]]["timestamp"].iloc[-HELD_BACK]
    for symbol, frame in bars.items():
        frame.iloc[:-HELD_BACK].to_parquet(root / "bars" / f"{symbol}.parquet")
    context[context["known_at"] < start].to_parquet(root / "bars" / f"{SERIES}.parquet")
    return Market(Layout(root), params_of(**changes))


def messages(content: Iterable[Any], origin: str = "test") -> list[Message]:
    """Messages that can be read again, their positions counted from 1."""
    return [Message(json.dumps(one), origin, str(place)) for place, one in enumerate(content, start=1)]


def statuses(taken: Sequence[Any]) -> list[str]:
    return [one.status for one in taken]
