"""Bars, predictions and a log for tests of what becomes of predictions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
from sqlalchemy import delete, insert

from tradeloop.bars import Bars
from tradeloop.config import Labels, Outcomes
from tradeloop.monitoring.feed import ArrayFeed
from tradeloop.monitoring.outcomes import Resolver
from tradeloop.monitoring.records import Logged, Outcome, Resolved
from tradeloop.predictor import new_ids
from tradeloop.state.database import Database
from tradeloop.state.tables import OutcomeRow, OutcomeTotalRow, PendingRow, PredictionRow

MARKET = "synthetic"
START = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def random_bars(symbol: str, size: int, *, seed: int = 0) -> Bars:
    """Return hourly bars of a random walk; bar i closes i + 1 hours after `START`."""
    rng = np.random.default_rng([seed, *symbol.encode()])
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, size)))
    opened = np.concatenate([[100.0], close[:-1]]) * np.exp(rng.normal(0, 0.001, size))
    high = np.maximum(opened, close) * np.exp(np.abs(rng.normal(0, 0.004, size)))
    low = np.minimum(opened, close) * np.exp(-np.abs(rng.normal(0, 0.004, size)))
    times = np.datetime64(START.replace(tzinfo=None), "us") + np.arange(1, size + 1) * np.timedelta64(HOUR)
    return Bars(symbol, times, opened, high, low, close, rng.uniform(1, 2, size))


def closes(bar: int) -> datetime:
    """Return the close of bar number `bar`, from 0."""
    return START + (bar + 1) * HOUR


def logged(bar: int | None, symbol: str = "AAA", **changes: Any) -> Logged:
    """Return a prediction from the features of a bar; None for one without features."""
    time = None if bar is None else closes(bar)
    values: dict[str, Any] = {
        "id": new_ids(1)[0],
        "symbol": symbol,
        "model": "a" * 64,
        "arm": "champion",
        "answered": True,
        "parent": None,
        "asked_at": time or START,
        "feature_time": time,
        "clock": "virtual",
        "verdict": "trade",
        "p_up": 0.6,
        "ret": 0.001,
        "ret_low": -0.02,
        "ret_high": 0.02,
        "range": 0.008,
        "range_low": 0.004,
        "range_high": 0.016,
        "side": "long",
        "edge": 0.001,
        "latency": 1.5,
        "adaptation": None,
    }
    return Logged(**(values | changes))


def stream(size: int, *, symbols: Sequence[str] = ("AAA", "BBB"), seed: int = 0, **changes: Any) -> list[Resolved]:
    """Return resolved predictions in order, one a bar and symbol, of forecasts with some skill."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(size):
        bar, symbol = i // len(symbols), symbols[i % len(symbols)]
        ret, spread = float(rng.normal(0, 0.01)), float(rng.normal(-5, 0.3))
        p = float(np.clip(0.5 + 2 * ret + rng.normal(0, 0.05), 0.01, 0.99))
        told: dict[str, Any] = {
            "id": f"{seed}-{i:06d}",
            "p_up": round(p, 2),  # with ties
            "ret": 0.1 * ret + float(rng.normal(0, 0.001)),
            "range": float(np.exp(spread + rng.normal(0, 0.2))),
            "range_low": float(np.exp(spread - 0.3 + rng.normal(0, 0.2))),
            "range_high": float(np.exp(spread + 0.3 + rng.normal(0, 0.2))),
            "verdict": "trade" if abs(p - 0.5) > 0.02 else "abstain",
            "side": "long" if p >= 0.5 else "short",
            "latency": None if rng.random() < 0.1 else float(rng.exponential(1.0)),
        }
        prediction = logged(bar, symbol, **(told | changes))
        regime: Any = ("low", "normal", "high")[(bar // 20) % 3]
        end = closes(bar + 1)
        outcome = Outcome(
            i + 1, prediction.id, "resolved", None, end, float(ret > 0), ret, spread, regime, 0, end, False
        )
        found.append(Resolved(prediction, outcome))
    return found


def row_of(prediction: Logged, market: str = MARKET) -> dict[str, Any]:
    """Return a prediction as the table has it."""
    rest = {"market": market, "logged_at": START, "max_age": 3600.0, "schema_hash": "b" * 64}
    own = {name: getattr(prediction, name) for name in Logged.__slots__}
    return own | rest | {"features": b"", "reasons": []}


def log(database: Database, predictions: Sequence[Logged], market: str = MARKET) -> None:
    """Commit predictions."""
    with database.write() as connection:
        connection.execute(insert(PredictionRow), [row_of(prediction, market) for prediction in predictions])


class HandClock:
    """A clock that a test may also set back."""

    mode = "live"

    def __init__(self, time: datetime) -> None:
        self.time = time

    def now(self) -> datetime:
        return self.time


class Desk:
    """A resolver over random bars in memory, with a clock that the test sets by bars."""

    def __init__(
        self,
        database: Database,
        *,
        symbols: Sequence[str] = ("AAA",),
        size: int = 400,
        labels: Labels | None = None,
        config: Outcomes | None = None,
    ) -> None:
        self.database = database
        self.labels = labels or Labels()
        self.config = config or Outcomes()
        self.bars = {symbol: random_bars(symbol, size) for symbol in symbols}
        self.clock = HandClock(START)
        self.feed = ArrayFeed(self.bars, self.clock)
        self.resolver = self.another()

    def another(self) -> Resolver:
        """Return a resolver as another process would have it."""
        return Resolver(self.database, MARKET, labels=self.labels, feed=self.feed, clock=self.clock, config=self.config)

    def at(self, bar: int) -> None:
        """Set the clock to the close of a bar."""
        self.clock.time = closes(bar)


def resolve_for_ever(url: str, symbols: Sequence[str], bar: int, ready: Event) -> None:
    """Resolve turn by turn from a bar on; to be killed."""
    desk = Desk(Database.open(url, busy_timeout=30), symbols=symbols)
    while True:
        desk.at(min(bar, 399))
        desk.resolver.advance()
        ready.set()
        bar += 5


def end(database: Database, market: str, prediction: str, symbol: str, at: datetime) -> None:
    """Let a prediction end, resolved, as the loop does it: up by 1 %, with a range of 2 %."""
    row = {"prediction_id": prediction, "market": market, "symbol": symbol, "status": "resolved", "label_end": at}
    row |= {"direction": 1.0, "ret": 0.01, "range": np.log(0.02), "regime": "normal", "resolved_at": at}
    with database.write() as connection:
        connection.execute(insert(OutcomeRow).values(**row, recorded_at=at, entry_price=100.0, exit_price=101.0))
        connection.execute(delete(PendingRow).where(PendingRow.prediction_id == prediction))
        connection.execute(insert(OutcomeTotalRow).values(market=market, status="resolved", count=1))
