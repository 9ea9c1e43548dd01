"""Small frames of each kind, made by hand, and the real order-book sample."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tradeloop.bars import Bars, Floats, Times, from_times
from tradeloop.config import InputFiles, Market
from tradeloop.config.inputs import InputKind
from tradeloop.inputs.alignment import align
from tradeloop.inputs.contract import KINDS
from tradeloop.inputs.files import canonical
from tradeloop.inputs.order_book import quote_bars, replay_orders
from tradeloop.inputs.reading import join

DAY = "2024-03-04"
GOOD: dict[InputKind, dict[str, float]] = {
    "book": {
        **{"bid_price": 99.0, "bid_size": 2.0, "ask_price": 101.0, "ask_size": 3.0},
        **{"bid_depth": 5.0, "ask_depth": 6.0},
    },
    "trades": {"price": 100.0, "size": 2.0, "side": 1.0},
    "funding": {"rate": 0.0001, "hours": 8.0},
    "liquidations": {"long": 1000.0, "short": 0.0},
    "options": {
        **{"atm_iv": 0.5, "far_iv": 0.55, "put_iv": 0.6, "call_iv": 0.52},
        **{"put_volume": 10.0, "call_volume": 20.0, "put_open_interest": 100.0, "call_open_interest": 150.0},
    },
    "events": {"id": 1.0, "importance": 3.0},
    "news": {"count": 1.0},
}
SAMPLE = {
    "orders.csv.gz": "880501e94fb43942b7f98cbc37bab421d72703d85898aae8de5da117bf62cdfc",
    "trades.csv": "9fd0dd86023b71eed49026b9b8e8a45d06d2578ced69393ad696f37233e9c795",
}


def at(*clock: str) -> Times:
    """Return times of one day: ``10:00`` or ``10:00:05``."""
    return np.array([f"{DAY}T{text}" for text in clock], dtype="datetime64[us]")


def rows(kind: InputKind, times: Times, known: Times | None = None, **columns: Any) -> pd.DataFrame:
    """Return a canonical frame of a kind, of good rows where nothing else is said."""
    given = {name: np.broadcast_to(np.asarray(columns.get(name, good), float), len(times)) for name, good in
             GOOD[kind].items()}  # fmt: skip
    frame = pd.DataFrame({"timestamp": from_times(times), "known_at": from_times(times if known is None else known)})
    return canonical(kind, frame.assign(**given), shown="made")


def aligned(kind: InputKind, frame: pd.DataFrame, closes: Times, **how: Any) -> dict[str, list[float]]:
    """Return the outputs of a kind at the closes, by their short names, as lists."""
    values = align(kind, frame, closes, **{"since": None, "max_age": None, **how})
    assert list(values) == [f"{kind}.{name}" for name in KINDS[kind].outputs]
    return {name.partition(".")[2]: column.tolist() for name, column in values.items()}


def same(left: Floats | list[float], right: Floats | list[float]) -> bool:
    return bool(np.array_equal(np.asarray(left, float), np.asarray(right, float), equal_nan=True))


def _sample(file: str) -> pd.DataFrame:
    """Read a file of the package's sample, which is found without importing the package."""
    spec = importlib.util.find_spec("ob_analytics")
    assert spec is not None and spec.submodule_search_locations, "ob-analytics is part of the locked environment"
    path = Path(spec.submodule_search_locations[0]) / "_sample_data" / file
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SAMPLE[file]
    return pd.read_csv(path)


def _stamps(table: pd.DataFrame) -> dict[str, pd.Series[Any]]:
    """Return the exchange's time and the receipt's, which the sample has in milliseconds since 1970."""
    named = {"timestamp": "exchange_timestamp", "known_at": "timestamp"}
    return {
        name: pd.to_datetime(table[column], unit="ms", utc=True).astype("datetime64[us, UTC]")
        for name, column in named.items()
    }


@cache
def sample_orders() -> pd.DataFrame:
    """Order events of BTC/USD on Bitstamp, 2 May 2026, 30 minutes."""
    table = _sample("orders.csv.gz")
    return table[["id", "price", "volume", "action", "direction"]].assign(**_stamps(table))


@cache
def sample_trades() -> pd.DataFrame:
    """The trades of the same half hour, as canonical rows."""
    table = _sample("trades.csv")
    side = np.where(table["side"] == "buy", 1.0, -1.0)
    frame = pd.DataFrame({**_stamps(table), "price": table["price"], "size": table["amount"], "side": side})
    return canonical("trades", frame, shown="trades.csv")


@cache
def sample_quotes() -> pd.DataFrame:
    """The quotes that the sample's orders make, as canonical rows."""
    return canonical("book", replay_orders(sample_orders()), shown="replayed")


@cache
def sample_bars(seconds: int) -> Bars:
    """Bars of the sample's mid price with everything that its book and trades give."""
    files = InputFiles(path="x", max_age="1d")
    market = Market(
        source="bundled", symbols=["BTCUSD"], calendar="24/7", interval="1m", inputs={"book": files, "trades": files}
    )
    bars = Bars.from_frame("BTCUSD", quote_bars(sample_quotes(), sample_trades(), timedelta(seconds=seconds)))
    frames = {"book": sample_quotes(), "trades": sample_trades()}
    since = bars.timestamp[0] - np.timedelta64(seconds, "s")
    return replace(bars, inputs=join(market, frames, bars.timestamp, since=since))
