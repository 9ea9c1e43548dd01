"""Raw bars to hold to the rules: a good series to spoil, and the declared markets' own."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tradeloop.bars import PRICES, from_times
from tradeloop.config import Check, load_params, parse_interval
from tradeloop.integrity import Report, inspect
from tradeloop.sources import open_source

PARAMS = load_params(Path(__file__).parents[1] / "params.yaml")
HOUR = np.timedelta64(1, "h")
START = np.datetime64("2024-01-01T01", "us")
FILE = "data/raw/bars/X.parquet"


def series(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """Return hourly bars of a random walk that break no rule."""
    draw = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(draw.normal(0, 0.002, n)))
    open_ = np.append(100.0, close[:-1])
    high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
    values = {"open": open_, "high": high, "low": low, "close": close, "volume": draw.uniform(1, 9, n)}
    return pd.DataFrame({"timestamp": from_times(START + np.arange(n) * HOUR), **values})


def look(frame: pd.DataFrame, *, calendar: str = "24/7", hours: float = 1, **check: Any) -> Report:
    return inspect("X", frame, calendar=calendar, interval=timedelta(hours=hours), config=Check(**check))


def counts(report: Report) -> dict[str, int]:
    return {rule: report.count(rule) for rule in report.hits}


def scale(frame: pd.DataFrame, rows: slice, factor: float) -> None:
    frame.loc[rows, list(PRICES)] *= factor


@cache
def _read(market: str, symbol: str) -> pd.DataFrame:
    return open_source(PARAMS.markets[market], root=Path(), seed=0).read(symbol)


def real(market: str, symbol: str, **check: Any) -> Report:
    """Return the report on a declared market's own series."""
    declared = PARAMS.markets[market]
    frame = _read(market, symbol)
    config = PARAMS.check.model_copy(update=check)
    return inspect(symbol, frame, calendar=declared.calendar, interval=parse_interval(declared.interval), config=config)
