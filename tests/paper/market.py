"""A market and a bot on it, as the tests and the process that they kill build them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import numpy as np

from tradeloop.bars import Bars
from tradeloop.clock import VirtualClock
from tradeloop.config import Paper
from tradeloop.monitoring.feed import ArrayFeed
from tradeloop.paper.bot import Bot
from tradeloop.paper.endpoint import Endpoint
from tradeloop.paper.exchange import Account
from tradeloop.paper.ledger import Ledger

BARS = 60
RULES = Paper(cash=10_000.0, stop_drawdown=0.9)


def feed(end: datetime = datetime(2100, 1, 1, tzinfo=UTC), drift: float = 0.0) -> ArrayFeed:
    """Return `BARS` hourly bars of two symbols, of which one starts ten bars late."""
    return ArrayFeed({name: _bars(name, seed, drift) for seed, name in enumerate(("AAA", "BBB"))}, VirtualClock(end))


def _bars(symbol: str, seed: int, drift: float) -> Bars:
    rng = np.random.default_rng(seed)
    close = 100.0 * np.exp(np.cumsum(drift + 0.01 * rng.standard_normal(BARS)))
    open_ = np.r_[100.0, close[:-1]] * np.exp(0.002 * rng.standard_normal(BARS))
    times = np.datetime64("2020-01-01T01:00", "us") + np.timedelta64(1, "h") * np.arange(BARS)
    high, low = np.maximum(open_, close) * 1.001, np.minimum(open_, close) * 0.999
    return Bars(symbol, times, open_, high, low, close, np.full(BARS, 1e6))[slice(10 * seed, BARS)]


def bot(market: ArrayFeed, client: httpx.Client, ledger: Ledger, *, rules: Paper = RULES, replay: bool = True) -> Bot:
    """Return a bot on an account that the ledger holds, or opens."""
    settings = rules.model_dump(exclude={"poll", "patience"}) | {"seed": 3}
    state = ledger.begin(Account.open(rules.cash), settings)
    endpoint = Endpoint(client, patience=5.0)
    return Bot(market, endpoint, ledger, state, rules=rules, seed=3, interval=timedelta(hours=1), replay=replay)


if __name__ == "__main__":
    with Ledger(Path(sys.argv[1])) as opened, httpx.Client(base_url=sys.argv[2]) as http:
        trader = bot(feed(), http, opened)
        trader.report()
        trader.run(trader.due())
