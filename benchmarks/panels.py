"""Panels of many symbols from the few real ones: what the benchmarks against other libraries run on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tradeloop.config import load_params
from tradeloop.sources import open_source

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("open", "high", "low", "close", "volume")
REAL = ("AAPL", "IBM", "MSFT")
BLOCK = 20


def bootstrapped(symbols: int, bars: int, *, seed: int = 7) -> pd.DataFrame:
    """Return `symbols` daily series of `bars` bars, each drawn in blocks of a month from one real share.

    What is drawn are whole bars relative to the close before, and the volume: clusters of volatility and the bar's
    shape stay real, the path is new. Values are what float32 holds, so that both sides start from the same numbers.

    Returns
    -------
    DataFrame
        ``symbol, timestamp`` (UTC), open, high, low, close, volume (float32); sorted by both.
    """
    rng = np.random.default_rng(seed)
    market = load_params(ROOT / "params.yaml").model_copy(update={"market": "us_daily"}).active
    source = open_source(market, root=ROOT, seed=0)
    real = [source.read(symbol)[list(FIELDS)].to_numpy(np.float64) for symbol in REAL]
    times = (pd.bdate_range("2010-01-04", periods=bars, tz="UTC") + pd.Timedelta(hours=21)).as_unit("us")
    frames = []
    for number in range(symbols):
        held = real[number % len(real)]
        starts = rng.integers(1, len(held) - BLOCK, -(-bars // BLOCK))
        drawn = (starts[:, None] + np.arange(BLOCK)).ravel()[:bars]
        bar, before = held[drawn], held[drawn - 1, 3]
        close = rng.uniform(10, 200) * np.exp(
            np.cumsum(np.log(bar[:, 3] / before) - np.log(held[-1, 3] / held[0, 3]) / len(held))
        )
        prices = bar[:, :4] / bar[:, 3:4] * close[:, None]
        values = np.column_stack([prices, bar[:, 4]]).astype(np.float32)
        frame = pd.DataFrame(values, columns=list(FIELDS))
        frame.insert(0, "symbol", f"S{number:03d}")
        frame.insert(1, "timestamp", times)
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)
